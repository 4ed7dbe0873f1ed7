"""Checkpoints, and whether the run in a folder is the one that wants to go on.

    RUN/recipe.yaml, run.json              what the run is: settings, digests of the data, versions
    RUN/.lock                              held while a training writes into the folder
    RUN/checkpoints/step-000100/           weights, optimizer, schedule, generators of every rank
                    step-000100/state.json step, digests of recipe and data, number of processes

A checkpoint is whole or not there. It holds no state of the sampler, whose position is the step, and none of
random numbers, which are functions of the step (`data.order`). Verdicts of the judge are in a journal
(`RUN/judge-cache`).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from videop2r_data.backends import FileLock, sync
from videop2r_data.errors import ConfigError
from videop2r_data.prompts import Prompt
from videop2r_data.schemas import default_grammar
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.run.runlog import replace_file
from videop2r_data.trainer.settings.parts import RUN
from videop2r_data.trainer.settings.recipe import RECIPE, TrainRecipe, differences, recipe_yaml
from videop2r_data.version import __version__

if TYPE_CHECKING:
    from accelerate import Accelerator


FOLDER = "checkpoints"
STATE = "state.json"
LOCK = ".lock"
_NAME = re.compile(r"step-(\d{6,})")


class Checkpoint(NamedTuple):
    """A complete checkpoint: its folder, the steps that were done, and what its `state.json` holds."""

    folder: Path
    step: int
    state: dict[str, Any]


def find_checkpoints(run: Path) -> list[Checkpoint]:
    """The complete checkpoints of a run, oldest first; half-written ones are left out."""
    found = []
    for folder in (run / FOLDER).glob("step-*"):
        match = _NAME.fullmatch(folder.name)
        if match is None or not (folder / STATE).is_file():
            continue
        state = _read(folder / STATE, hint="delete this checkpoint's folder")
        found.append(Checkpoint(folder, int(match[1]), state))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


@dataclass
class Checkpoints:
    """Saves and restores what an `Accelerator` has prepared; every process must make the same calls.

    Attributes:
        keep: newest checkpoints that stay; 0: all.
        identity: digests of recipe and data, written into each `state.json`.
        saved: step of the newest checkpoint that was saved or restored here.
        same: the checkpoint that was restored, if it is of the same recipe and data.
        beside: writes more into the folder of each checkpoint; called in every process.
    """

    run: Path
    accelerator: Accelerator
    keep: int
    identity: dict[str, Any]
    saved: int | None = None
    same: Path | None = None
    beside: Callable[[Path], None] | None = None

    @guarded("save")
    def save(self, step: int) -> None:
        """Write the checkpoint of a step, also once more, then drop the oldest above `keep`."""
        accelerator, main = self.accelerator, self.accelerator.is_main_process
        with whole_folder(self.run / FOLDER / f"step-{step:06d}", main=main) as draft:
            accelerator.wait_for_everyone()
            accelerator.save_state(str(draft))
            if self.beside is not None:
                self.beside(draft)
            accelerator.wait_for_everyone()
            if main:
                state = {"step": step, "processes": accelerator.num_processes, **self.identity}
                (draft / STATE).write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2) + b"\n")
        if main:
            for old in find_checkpoints(self.run)[: -self.keep]:  # none for keep 0
                shutil.rmtree(old.folder, ignore_errors=True)
        accelerator.wait_for_everyone()
        self.saved = step

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load weights, optimizer, schedule and generators."""
        try:
            self.accelerator.load_state(str(checkpoint.folder))
        except (RuntimeError, ValueError, FileNotFoundError, KeyError) as error:
            raise ConfigError(
                f"cannot be loaded: {str(error)[:500]}",
                where=str(checkpoint.folder),
                hint="resume with the same model and kind of distribution, or choose another --output",
            ) from error
        self.saved = checkpoint.step
        if self.identity.items() <= checkpoint.state.items():
            self.same = checkpoint.folder


@contextmanager
def whole_folder(final: Path, *, main: bool = True) -> Iterator[Path]:
    """An empty folder that gets its name at the end of the block, in place of an older one: it is whole or
    not there. Of several processes the `main` one makes and renames it."""
    draft, old = (final.with_name(f".{kind}-{final.name}") for kind in ("partial", "old"))
    if main:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
    yield draft
    if not main:
        return
    for path in [*draft.rglob("*"), draft]:
        if not path.is_symlink():
            sync(path)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    draft.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    sync(final.parent)


# The run that a folder belongs to.


def describe(recipe: TrainRecipe, examples: Sequence[Example], prompt: Prompt) -> dict[str, Any]:
    """Digests and counts of examples and prompt, and the grammar of the traces if it is not the default."""
    grammar = recipe.data.grammar
    other = {} if grammar == default_grammar() else {"trace": grammar.model_dump(mode="json")}
    return {
        **other,
        "data_sha256": getattr(examples, "sha256", ""),
        "prompt_sha256": prompt.sha256,
        "data_revision": getattr(examples, "revision", ""),
        "examples": None if recipe.data.is_demo and recipe.data.limit is None else len(examples),
        "unreadable": dict(getattr(examples, "reasons", {})),
    }


def _versions() -> dict[str, str]:
    """Of this package, Python and the libraries that affect the results, as far as installed."""
    found = {"videop2r-data": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate", "peft", "vllm", "deepspeed"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def admit(
    recipe: TrainRecipe, data: dict[str, Any], *, processes: int, anyway: bool, fresh: bool, main: bool
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run; then the folder describes this run.

    Args:
        data: of `describe`.
        processes: number of them; the first one (`main`) writes.
        anyway, fresh: as in `train`: ConfigError for another run, or for any.
    """
    folder = recipe.folder
    earlier, found = _read(folder / RUN), find_checkpoints(folder)
    if fresh and (earlier or found):
        raise ConfigError(
            "this folder holds a run already",
            where=str(folder),
            hint="choose another --output, or leave --fresh",
        )
    if earlier and found and not anyway:
        _compare(earlier, recipe, data)
    if main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe_yaml(recipe), encoding="utf-8")
        update_run(
            folder,
            name=recipe.name,
            stage=recipe.stage,
            recipe_sha256=recipe.digest,
            identity=recipe.identity,
            data=data,
            versions=_versions(),
            processes=processes,
        )
    return found[-1] if found else None


def _compare(earlier: dict[str, Any], recipe: TrainRecipe, data: dict[str, Any]) -> None:
    changed = differences(earlier.get("identity") or {}, recipe.identity)
    before = earlier.get("data") or {}
    changed += [
        f"{what}: {before[key]} -> {data[key]}"
        for key, what in (("data_sha256", "training data"), ("prompt_sha256", "prompt"))
        if key in before and before[key] != data[key]
    ]
    if changed:
        raise ConfigError(
            "this folder holds another run; what differs:\n  " + "\n  ".join(changed),
            where=str(recipe.folder),
            hint="choose another --output, put the settings back, or say --anyway to go on with the new ones",
        )


def run_lock(folder: Path) -> ExitStack:
    """Hold a run's folder, ConfigError if another training does; of several processes the first holds it."""
    held = ExitStack()
    if os.environ.get("RANK", "0") != "0":
        return held
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock.take(folder / LOCK)
    except OSError:
        # no locks on this file system; a folder that cannot be written is said where it is written
        return held
    if lock is None:
        raise ConfigError(
            "another training is at work in this folder; two would overwrite each other's checkpoints",
            where=str(folder),
            hint="wait until it has ended or stop it, or choose another --output",
        )
    held.callback(lock.release)
    return held


def update_run(folder: Path, **fields: Any) -> None:
    """Set fields of `run.json`."""
    told = _read(folder / RUN) | fields
    replace_file(folder / RUN, orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")


def _read(path: Path, hint: str = "delete it to go on") -> dict[str, Any]:
    try:
        data = orjson.loads(path.read_bytes()) if path.exists() else {}
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(path), hint=hint) from None
    return data if isinstance(data, dict) else {}
