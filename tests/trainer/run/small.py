"""A world, a model and recipes that train in seconds on one core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.tiny.model import make_tiny
from videop2r_data.trainer.tiny.recipe import TinySpec

WORLD = DemoSpec(
    rows=48,
    defect_rate=0.0,
    side=56,
    frames=4,
    fps=2,
    max_objects=1,
    questions=1,
    rotated=False,
    tasks=("colour", "count"),
)
TINY = TinySpec(
    hidden=64,
    layers=2,
    heads=2,
    kv_heads=1,
    intermediate=160,
    vision_hidden=32,
    vision_layers=1,
    vision_heads=1,
    vision_intermediate=64,
    vocab=640,
    corpus=300,
)
MEDIA = {"frames": 4, "max_pixels": 784, "min_pixels": 64, "factor": 8}
STREAM = {
    "side": 24,
    "frames": 4,
    "fps": 2,
    "max_objects": 1,
    "tasks": ["colour", "count"],
    "numbered": False,
}
TIMES = ("time/", "tokens_per_s", "judge/wait_s", "memory_gb")


def model(folder: Path) -> Path:
    """A tiny model with random weights."""
    return make_tiny(folder, TINY, world=WORLD)


def sft(model: Path, output: Path, **changes: Any) -> TrainRecipe:
    """SFT on the endless stream, 4 sequences a step."""
    return _recipe(
        {
            "name": "small-sft",
            "stage": "sft",
            "data": {"source": "demo", "config": "sft", "prompt": "tiny-v1", "media": MEDIA, "demo": STREAM},
            "model": _model(model),
            "optim": {"lr": 0.006, "warmup": 2, "betas": [0.9, 0.98]},
            "batch": {"size": 4, "micro": 2},
            "steps": 6,
            "precision": "fp32",
            "save": {"every": 0},
            "output": str(output),
        },
        changes,
    )


def rl(model: Path, output: Path, **changes: Any) -> TrainRecipe:
    """PA-GRPO on the endless stream, 4 prompts of 4 rollouts a step."""
    return _recipe(
        {
            "name": "small-rl",
            "stage": "rl",
            "data": {"source": "demo", "config": "rl", "prompt": "tiny-v1", "media": MEDIA, "demo": STREAM},
            "model": _model(model),
            "optim": {"lr": 0.0005, "schedule": "constant"},
            "batch": {"size": 4, "micro": 2},
            "rl": {"group_size": 4},
            "sampling": {"max_new_tokens": 64},  # the template takes about 40
            "rewards": {"perception_bounds": [5, 40], "reasoning_bounds": [5, 60]},
            "judging": {"kind": "demo"},
            "steps": 6,
            "precision": "fp32",
            "save": {"every": 0, "samples_every": 1, "samples": 4},
            "output": str(output),
        },
        changes,
    )


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics, without what a clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)} for line in lines]


def assert_has_advantages(run: Path) -> None:
    """Refuse a run whose groups mostly collapsed: its loss is all KL, and equal whatever happens to advantages.

    An untrained model is such a run: all its rollouts earn nothing.
    """
    found = rows(run)
    groups = sum(row["groups"] for row in found)
    for name in ("p", "r"):
        collapsed = sum(row[f"collapsed/{name}"] for row in found)
        assert collapsed <= 0.6 * groups, (
            f"{collapsed} of {groups} groups of {name} collapsed: nothing is tested"
        )


def weights(run: Path) -> dict[str, Any]:
    """The trained weights."""
    from safetensors.torch import load_file

    found: dict[str, Any] = load_file(run / "final" / "model.safetensors")
    return found


def _model(folder: Path) -> dict[str, Any]:
    return {"model": str(folder), "dtype": "float32", "gradient_checkpointing": False}


def _recipe(data: dict[str, Any], changes: dict[str, Any]) -> TrainRecipe:
    """The recipe with changes given as `optim__lr=...`."""
    for dotted, value in changes.items():
        *path, last = dotted.split("__")
        place = data
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return TrainRecipe.model_validate(data)
