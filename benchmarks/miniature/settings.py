"""Every decision of the miniature in one place: world, model, both stages, the arms, the held-out clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videop2r_data.schemas import MediaSpec
from videop2r_data.trainer import TrainRecipe
from videop2r_data.trainer.settings import DataSpec, ObjectiveName, SamplingSpec
from videop2r_data.trainer.tiny import TinySpec, TinyWorld

Style = Literal["process", "agnostic"]
PROMPT = "tiny-v1"
MEDIA = MediaSpec(frames=8, factor=8, min_pixels=64, max_pixels=28 * 28)
WORLD = TinyWorld(
    seed=7,
    side=24,
    frames=8,
    fps=1,
    max_objects=1,
    tasks=("describe", "seconds", "interval", "count_moving"),
)
"""One shape; what it does, for how long and when it is there. Every answer is written out, none is a letter:
at this size looking a letter up is learnt last, and rewards at chance teach nothing (see the pilot)."""
HELD_OUT = 900_000_000
"""First held-out scene: no stage of any seed gets there."""
PER_SEED, RL_FROM = 10_000_000, 5_000_000
"""Scenes of one seed, and where those of RL begin among them."""


def tiny(seed: int) -> TinySpec:
    """The model, with random weights of its own for every seed."""
    return TinySpec(
        hidden=96,
        intermediate=240,
        layers=4,
        heads=4,
        kv_heads=2,
        vision_hidden=64,
        vision_layers=2,
        initializer_range=0.06,
        vocab=1024,
        corpus=2000,
        seed=seed,
    )


@dataclass(frozen=True)
class Scale:
    """How much is spent."""

    sft_planned: int
    """Updates that the first schedule of SFT was made for."""
    sft_cut: int
    """Where it is left: an early stop leaves head-room for RL."""
    sft_steps: int
    """Updates in all, the rate falling to its end: the start is no noisier than a finished run."""
    sft_batch: int
    rl_steps: int
    rl_prompts: int
    questions: int


FULL = Scale(
    sft_planned=1400, sft_cut=700, sft_steps=900, sft_batch=32, rl_steps=60, rl_prompts=32, questions=1000
)
QUICK = Scale(sft_planned=16, sft_cut=4, sft_steps=8, sft_batch=8, rl_steps=2, rl_prompts=4, questions=16)


@dataclass(frozen=True)
class Arm:
    """One way to go on from a start."""

    name: str
    style: Style
    objective: ObjectiveName | None
    """None: the start itself, SFT only."""


ARMS = (
    Arm("sft", "process", None),
    Arm("pa-grpo", "process", "pa-grpo"),
    Arm("grpo", "process", "grpo"),
    Arm("no-separation", "process", "no-separation"),
    Arm("agnostic-sft", "agnostic", None),
    Arm("agnostic-grpo", "agnostic", "grpo"),
)
SAMPLING = SamplingSpec(temperature=1.0, max_new_tokens=80)
RL_LR = 1e-4
SFT_LR = 4e-3


def _data(style: Style, config: Literal["sft", "rl"], start: int, limit: int | None = None) -> DataSpec:
    return DataSpec(
        source="demo",
        config=config,
        start=start,
        limit=limit,
        style=style,
        prompt=PROMPT,
        demo=WORLD,
        media=MEDIA,
        shuffle=False,
        workers=1,
    )


def held_out(style: Style, scale: Scale) -> DataSpec:
    """The questions that every arm of every seed is measured on."""
    return _data(style, "rl", HELD_OUT, scale.questions)


def _model(folder: Path) -> dict[str, Any]:
    return {"model": str(folder), "dtype": "float32", "gradient_checkpointing": False}


def sft_recipe(
    style: Style, seed: int, scale: Scale, model: Path, output: Path, *, steps: int
) -> TrainRecipe:
    """The start of a seed, from random weights."""
    return TrainRecipe.model_validate(
        {
            "name": f"miniature-sft-{style}-{seed}",
            "stage": "sft",
            "data": _data(style, "sft", seed * PER_SEED),
            "model": _model(model),
            "optim": {
                "lr": SFT_LR,
                "betas": (0.9, 0.98),
                "warmup": min(50, scale.sft_planned // 4),
                "schedule": "linear",
                "floor": 0.05,
                "max_grad_norm": 1.0,
            },
            "batch": {"size": scale.sft_batch, "micro": scale.sft_batch},
            "steps": steps,
            "precision": "fp32",
            "save": {"every": scale.sft_cut // 2, "keep": 0},
            "seed": seed,
            "output": str(output),
        }
    )


def rl_recipe(arm: Arm, seed: int, scale: Scale, start: Path, output: Path) -> TrainRecipe:
    """An arm: the same questions, steps, rollouts and learning rate for every objective."""
    return TrainRecipe.model_validate(
        {
            "name": f"miniature-{arm.name}-{seed}",
            "stage": "rl",
            "data": _data(arm.style, "rl", seed * PER_SEED + RL_FROM),
            "model": _model(start),
            "optim": {
                "lr": RL_LR,
                "betas": (0.9, 0.99),
                "warmup": min(5, scale.rl_steps // 2),
                "schedule": "constant",
                "weight_decay": 0.0,
                "max_grad_norm": 1.0,
            },
            "batch": {"size": scale.rl_prompts, "micro": scale.rl_prompts},
            "steps": scale.rl_steps,
            "precision": "fp32",
            "rl": {"group_size": 8},
            "objective": {"name": arm.objective},
            "rewards": {"length": "off"},
            "loss": {"beta": 0.04},
            "sampling": SAMPLING,
            "judging": {"kind": "none" if arm.style == "agnostic" else "demo"},
            "save": {"every": 0, "keep": 1, "samples_every": 20},
            "seed": seed,
            "output": str(output),
        }
    )
