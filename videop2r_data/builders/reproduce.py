"""Rebuild a data set from its lock and journal with no call, and hold every file against the original."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from pydantic import ValidationError

from videop2r_data.builders.export import LOCK_NAME, exclusively, file_lock
from videop2r_data.builders.workspace import Workspace
from videop2r_data.builders.write import Watcher, write_dataset
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.lock import BuildLock
from videop2r_data.schemas.recipe import Recipe


class FileComparison(Model):
    """One file of the data set."""

    path: str
    locked: str | None
    """sha256 in the lock; None for the lock itself and the card, which it does not list."""
    found: str | None
    """sha256 of the file that lies in the folder; None: missing."""
    rebuilt: str | None
    """sha256 of the file that was made anew; None: not made."""

    @property
    def same(self) -> bool:
        """Whether all of them agree."""
        return self.found is not None and self.found == self.rebuilt and self.locked in (None, self.found)


class ReproduceReport(Model):
    """How the rebuilt folder compares."""

    same: bool
    files: list[FileComparison]
    causes: list[str]
    """What else differs and may explain it: prompts, sources, versions, missing calls."""


def read_lock(folder: Path) -> BuildLock:
    """The lock of a data set.

    Raises:
        ConfigError: there is none, or it is not valid.
    """
    path = folder / LOCK_NAME
    try:
        return BuildLock.model_validate(orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError, ValidationError) as error:
        raise ConfigError(
            f"not a lock: {error}", where=str(path), hint="name a folder that p2r-data build made"
        ) from None


async def reproduce(
    place: Workspace, *, card: Callable[[Path], object], observer: Watcher
) -> ReproduceReport:
    """Rebuild `place.out` beside its journal and compare; a temporary folder serves where that is read-only.

    Raises:
        ConfigError: there is no valid lock.
        ExportError: another process reproduces this data set now.
    """
    lock = read_lock(place.out)
    recipe = locked(lock, place.out)
    with _scratch(place.work) as rebuilt:
        new = await write_dataset(recipe, place, card=card, observer=observer, out=rebuilt)
        files = _compare(place.out, rebuilt, lock)
    same = all(f.same for f in files)
    return ReproduceReport(same=same, files=files, causes=[] if same else _causes(lock, new))


def locked(lock: BuildLock, folder: Path) -> Recipe:
    """The recipe that a lock holds.

    Raises:
        ConfigError: it is not valid.
    """
    try:
        return lock.read_recipe()
    except ValidationError as error:
        raise ConfigError(
            f"the lock's recipe is not valid: {error}",
            where=str(folder / LOCK_NAME),
            hint="fetch the file again, or use the version that wrote it: the lock names it",
        ) from None


@contextmanager
def _scratch(work: Path) -> Iterator[Path]:
    """A place for the rebuilt folder; what a killed run left there is cleared."""
    if not os.access(work, os.W_OK):
        with tempfile.TemporaryDirectory(prefix="p2r-reproduce-") as folder:
            yield Path(folder) / "reproduced"
        return
    rebuilt = work / "reproduced"
    with exclusively(work / "reproduce.lock"):
        shutil.rmtree(rebuilt, ignore_errors=True)
        try:
            yield rebuilt
        finally:
            shutil.rmtree(rebuilt, ignore_errors=True)


def _compare(out: Path, rebuilt: Path, lock: BuildLock) -> list[FileComparison]:
    names = set(lock.files) | {LOCK_NAME, "README.md"}
    names |= {p.relative_to(rebuilt).as_posix() for p in rebuilt.rglob("*") if p.is_file()}
    return [
        FileComparison(
            path=name,
            locked=lock.files[name].sha256 if name in lock.files else None,
            found=_sha256(out / name),
            rebuilt=_sha256(rebuilt / name),
        )
        for name in sorted(names)
    ]


def _sha256(path: Path) -> str | None:
    return file_lock(path).sha256 if path.is_file() else None


def _causes(old: BuildLock, new: BuildLock) -> list[str]:
    causes = []
    for name in sorted(old.prompts.keys() | new.prompts.keys()):
        if name not in old.prompts:
            causes.append(f"prompt {name}: the version that wrote the lock did not have it")
        elif old.prompts[name] != new.prompts.get(name):
            causes.append(f"prompt {name}: its text is another one now")
    for was, now in zip(old.sources, new.sources, strict=True):  # of one recipe
        if was != now:
            causes.append(f"source {was.name}: {was.rows:,} rows then, {now.rows:,} now, or other content")
    for name in sorted(old.versions.keys() | new.versions.keys()):
        if old.versions.get(name) != new.versions.get(name):
            causes.append(f"{name}: {old.versions.get(name)} then, {new.versions.get(name)} now")
    missing = sum(n for r, n in new.ledger.reasons.items() if r.endswith("/call_failed"))
    missing -= sum(n for r, n in old.ledger.reasons.items() if r.endswith("/call_failed"))
    if missing > 0:
        causes.append(f"{missing:,} questions have no answer in this journal")
    return causes
