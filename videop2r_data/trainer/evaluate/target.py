"""What a person names to evaluate (a run of this trainer, or any model), and the settings that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import MediaSpec, digest, parse_mapping, read_settings, validate_settings
from videop2r_data.trainer.evaluate.specs import PAPER_MEDIA, PAPER_SAMPLING, EvalRecipe

DEMO_START, DEMO_LIMIT = 10_000_000, 200
"""Scenes of the demo stream that no run of ordinary length comes to see, and how many of them."""
RECIPE, FINAL, EVAL = "recipe.yaml", "final", "eval"


@dataclass(frozen=True)
class Target:
    """What is evaluated.

    Attributes:
        name: for people and for folder names.
        model: folder or Hub id.
        run: the run's folder, or None for a model that is none of ours.
        recipe: the run's recipe as plain values; {} without one.
    """

    name: str
    model: str
    run: Path | None
    recipe: Mapping[str, Any]


def find_target(named: str) -> Target:
    """A run's folder (its `final/` is meant), a model's folder, or a Hub id.

    Raises:
        ConfigError: a run that has no final model yet, or a folder without a model.
    """
    path = Path(named).expanduser()
    if not path.is_dir():
        if path.exists() or named.count("/") != 1 or named.startswith((".", "/", "~")):
            raise ConfigError(
                "neither a folder nor a Hub id (owner/name)", where=named, hint="name a run or a model"
            )
        return Target(named.rpartition("/")[2], named, None, {})
    if (path / RECIPE).is_file():
        model = path / FINAL
        if not (model / "config.json").is_file():
            raise ConfigError(
                "this run has no final/ yet",
                where=str(path),
                hint="let it end (the same p2r-train command goes on), or name a model folder",
            )
        recipe = parse_mapping(
            read_settings(path / RECIPE), where=str(path / RECIPE), what="training recipe", valid=""
        )
        return Target(path.resolve().name, str(model), path, recipe)
    if not (path / "config.json").is_file():
        raise ConfigError(
            "no model in this folder: there is no config.json and no recipe.yaml",
            where=str(path),
            hint="name the folder of a run, or of a model as from_pretrained loads it",
        )
    return Target(path.resolve().name, str(path), None, {})


def eval_recipe(target: Target, given: Mapping[str, Any], *, device: str) -> EvalRecipe:
    """Put an evaluation together: what was given wins over the run's recipe, which wins over the paper.

    Args:
        target: the model, and the run that made it.
        given: sections `model`, `data`, `run`, `judging` with the settings that were named.
        device: float32 on `cpu`, else bfloat16, unless a type is given.

    Raises:
        ConfigError: no data are known, or settings that do not fit; all errors at once.
    """
    trained, asked = target.recipe, _section(given, "data")
    training = _section(trained, "data")
    data = {} if asked.get("source") else dict(_section(trained, "evaluation"))
    for name in ("style", "prompt", "demo"):
        if name in training:
            data.setdefault(name, training[name])
    data.setdefault("config", "rl")
    data["media"] = {**_media(target, training, data), **_section(asked, "media")}
    data |= {key: value for key, value in asked.items() if key != "media"}
    if not data.get("source"):
        raise ConfigError("no held-out questions are named", hint="add --data FOLDER_OR_HUB_ID (or demo)")
    if data["source"] == "demo":
        data.setdefault("start", DEMO_START)
        data.setdefault("limit", DEMO_LIMIT)
    else:
        data.pop("demo", None)
    values = {
        "model": {
            "dtype": "float32" if device == "cpu" else "bfloat16",
            "gradient_checkpointing": False,
            **_section(given, "model"),
            "model": target.model,
        },
        "data": data,
        "run": _how(trained, _section(given, "run")),
        "judging": given["judging"] if "judging" in given else _trained_judging(trained),
    }
    return validate_settings(values, EvalRecipe, where=f"evaluation of {target.name}", what="settings")


def _media(target: Target, training: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """How to look at the questions, unless the recipe says how to evaluate.

    The paper trains on 16 frames of 128 * 28 * 28 pixels and evaluates on 32 of 256 * 28 * 28: so is a run
    like the paper's, and a model that is no run. Any other run is evaluated as it was trained.
    """
    if data.get("media"):
        return dict(_section(data, "media"))
    trained = dict(_section(training, "media"))
    usual = MediaSpec()
    like_paper = (trained.get("frames", usual.frames), trained.get("max_pixels", usual.max_pixels)) == (
        usual.frames,
        usual.max_pixels,
    )
    if not like_paper:
        return trained
    if not trained and (factor := patch_factor(target.model)) is not None:
        trained["factor"] = factor
    return trained | {"frames": PAPER_MEDIA.frames, "max_pixels": PAPER_MEDIA.max_pixels}


def _how(trained: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling, grading and batch: as asked for, else as the run evaluates, else as the paper."""
    usual = _section(trained, "evaluating")
    sampling = (
        PAPER_SAMPLING.model_dump() | dict(_section(usual, "sampling")) | dict(_section(asked, "sampling"))
    )
    return {"scoring": _section(trained, "scoring"), **usual, **asked, "sampling": sampling}


def _trained_judging(trained: Mapping[str, Any]) -> Mapping[str, Any]:
    """The run's judge; that nobody was asked in training (grpo) does not mean that nobody is asked here."""
    found = _section(trained, "judging")
    return {} if found.get("kind", "none") == "none" else found


def _section(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def patch_factor(model: str) -> int | None:
    """Patch size times merge size of a local model's processor; None where its files do not say."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            found = orjson.loads((Path(model) / name).read_bytes())
        except (OSError, ValueError):
            continue
        part = found.get("image_processor", found) if isinstance(found, dict) else {}
        patch, merge = part.get("patch_size"), part.get("merge_size")
        if isinstance(patch, int) and isinstance(merge, int):
            return patch * merge
    return None


def model_digest(model: str, revision: str | None) -> str:
    """sha256 that changes when a model is replaced: name and revision, or its files' sizes and times."""
    folder = Path(model)
    if not folder.is_dir():
        return digest(["hub", model, revision])
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin", ".json"))
    return digest([[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files])
