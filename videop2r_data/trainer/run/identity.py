"""Whether a folder's earlier run is this one, and what a run writes about itself."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from videop2r_data import __version__
from videop2r_data.errors import ConfigError
from videop2r_data.prompts import Prompt
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.run.checkpoint import Checkpoint, find_checkpoints
from videop2r_data.trainer.run.config import TrainRecipe, differences
from videop2r_data.trainer.run.recipe_file import recipe_yaml

RUN = "run.json"
RECIPE = "recipe.yaml"
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "vllm", "deepspeed")


@dataclass(frozen=True, slots=True)
class About:
    """What a run is made of, beside its recipe.

    Attributes:
        data: digests and counts of examples and prompt; a run goes on only with equal digests.
        versions: of this package, Python and the libraries.
        processes: number of them.
    """

    data: dict[str, Any]
    versions: dict[str, str]
    processes: int


def describe(recipe: TrainRecipe, examples: Sequence[Example], prompt: Prompt, *, world_size: int) -> About:
    """Describe a run.

    Args:
        recipe: its recipe.
        examples: as `read_examples` gave them.
        prompt: the prompt of rollouts and of SFT.
        world_size: processes.
    """
    data = {
        "data_sha256": getattr(examples, "sha256", ""),
        "prompt_sha256": prompt.sha256,
        "data_revision": getattr(examples, "revision", ""),
        "examples": None if recipe.data.is_demo and recipe.data.limit is None else len(examples),
        "unreadable": dict(getattr(examples, "reasons", {})),
    }
    return About(data, versions(), world_size)


def versions() -> dict[str, str]:
    """Versions of what decides the numbers; libraries that are not installed are left out."""
    found = {"videop2r-data": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def admit(recipe: TrainRecipe, about: About, *, anyway: bool, fresh: bool, main: bool) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run; then the folder describes this run.

    Args:
        recipe, about: the run that wants to start.
        anyway: go on although recipe or data are others.
        fresh: refuse to go on at all.
        main: the process that writes.

    Raises:
        ConfigError: the folder holds another run, or any run if `fresh`.
    """
    folder = recipe.folder
    earlier = _read(folder / RUN)
    found = find_checkpoints(folder)
    if fresh and (earlier or found):
        raise ConfigError(
            "this folder holds a run already",
            where=str(folder),
            hint="choose another --output, or leave --fresh",
        )
    if earlier and found and not anyway:
        _compare(earlier, recipe, about, folder)
    if main:
        _write(recipe, about)
    return found[-1] if found else None


def _compare(earlier: dict[str, Any], recipe: TrainRecipe, about: About, folder: Path) -> None:
    changed = differences(earlier.get("identity") or {}, recipe.identity)
    before = earlier.get("data") or {}
    changed += [
        f"{what}: {before[key]} -> {about.data[key]}"
        for key, what in (("data_sha256", "training data"), ("prompt_sha256", "prompt"))
        if before.get(key) != about.data[key] and key in before
    ]
    if changed:
        raise ConfigError(
            "this folder holds another run; what differs:\n  " + "\n  ".join(changed),
            where=str(folder),
            hint="choose another --output, put the settings back, or say --anyway to go on with the new ones",
        )


def _write(recipe: TrainRecipe, about: About) -> None:
    recipe.folder.mkdir(parents=True, exist_ok=True)
    (recipe.folder / RECIPE).write_text(recipe_yaml(recipe), encoding="utf-8")
    update_run(
        recipe.folder,
        name=recipe.name,
        stage=recipe.stage,
        recipe_sha256=recipe.digest,
        identity=recipe.identity,
        data=about.data,
        versions=about.versions,
        processes=about.processes,
    )


def update_run(folder: Path, **fields: Any) -> None:
    """Set fields of `run.json`, in one piece."""
    draft = folder / f".{RUN}.partial"
    draft.write_bytes(orjson.dumps(_read(folder / RUN) | fields, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(folder / RUN)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        data = orjson.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(path), hint="delete it to go on") from None
    return data if isinstance(data, dict) else {}
