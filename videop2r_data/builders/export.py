"""Write the data set from the journal, in pool order, into a folder that replaces the old one as a whole."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from videop2r_data.backends import Journal, cost_usd, sync, try_lock
from videop2r_data.builders.run import Portion, Replay, Tally
from videop2r_data.builders.sources import PoolDigest
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.workspace import Workspace, busy_writing
from videop2r_data.errors import ExportError, SourceError
from videop2r_data.files import (
    AGREEMENT_NAME,
    CARD_NAME,
    CROISSANT_NAME,
    FIGURES_NAME,
    LOCK_NAME,
    OVERLAP_NAME,
    SHARD,
    TableWriter,
    file_lock,
    read_lock,
    shard_name,
)
from videop2r_data.schemas import (
    CONFIGS,
    PLAIN,
    BadRow,
    BuildLock,
    Extra,
    FileLock,
    Ledger,
    Model,
    Recipe,
    Sample,
    SourceLock,
    Spent,
    StepModel,
    TraceGrammar,
    Usage,
    configs_of,
    digest,
)
from videop2r_data.version import __version__

if TYPE_CHECKING:
    from videop2r_data.builders.news import Observer

# The folder that a run writes replaces the old one as a whole.


class Made(NamedTuple):
    """What a folder is.

    Attributes:
        what: in messages.
        mark: the file that tells it from other folders.
        ours: paths below it that this tool writes; whatever else lies there belongs to people.
        folders: folders below it in which people may have put files.
    """

    what: str
    mark: str
    ours: re.Pattern[str]
    folders: tuple[str, ...]


_RECORDS = (CARD_NAME, LOCK_NAME, AGREEMENT_NAME, OVERLAP_NAME, CROISSANT_NAME)
_FLAT = "|".join(map(re.escape, _RECORDS))
DATA_SET = Made("data set", LOCK_NAME, re.compile(rf"{_FLAT}|data|{SHARD.pattern}"), ("data",))


class FolderWriter:
    """Writes tables into a fresh folder beside the final one; `commit` swaps it in.

    A symbolic link `out` means the folder that it points to.

    Args:
        made: what the folder is.
        tables: given the fresh folder, what writes its tables, by name.

    Raises:
        ExportError: `out` is something that this tool did not make, or another process writes it now.
    """

    def __init__(
        self, out: Path, tables: Callable[[Path], Mapping[str, TableWriter]], made: Made = DATA_SET
    ) -> None:
        check_ours(out, made)
        self.made = made
        self.out, self.staging, self.old = _places(out)
        self._lock = _fresh(self.staging, made)
        self.configs = dict(tables(self.staging))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        os.close(self._lock)

    def close(self) -> dict[str, FileLock]:
        """Finish every file; returns path -> digest, size and rows."""
        files: dict[str, FileLock] = {}
        for writer in self.configs.values():
            writer.close()
            for path, rows in writer.shards:
                files[path.relative_to(self.staging).as_posix()] = file_lock(path, rows)
        return files

    def commit(self) -> None:
        """Put the new folder in the place of the old one; a crash leaves one of the two whole.

        What other people put into the old folder (notes, `.git`, figures) moves into the new one.
        """
        for path in (*self.staging.rglob("*"), self.staging):
            sync(path)
        if self.old.exists():
            shutil.rmtree(self.old)
        if self.out.exists():
            self.out.rename(self.old)
        self.staging.rename(self.out)
        sync(self.out.parent)
        _carry_over(self.old, self.out, self.made)


def recover(out: Path, made: Made = DATA_SET) -> None:
    """Finish or undo a swap that a crash interrupted, unless a running process holds the folder."""
    out, staging, old = _places(out)
    if not old.exists():
        return
    place = out if out.exists() else staging
    if (lock := _try_lock(place) if place.exists() else -1) is None:
        return
    try:
        if out.exists():
            _carry_over(old, out, made)
        else:
            old.rename(out)
    finally:
        if lock >= 0:
            os.close(lock)


def _places(out: Path) -> tuple[Path, Path, Path]:
    """Paths of the final folder, the staging folder and the parked old folder, all on one file system."""
    out = Path(os.path.realpath(out))
    return out, out.with_name(f".{out.name}.staging"), out.with_name(f".{out.name}.old")


def _fresh(staging: Path, made: Made) -> int:
    """Make an empty folder and lock it; returns the lock, an open file descriptor."""
    staging.mkdir(parents=True, exist_ok=True)
    lock = _try_lock(staging)
    if lock is None:
        raise busy_writing(staging, made.what)
    for left in staging.iterdir():  # by a run that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def _try_lock(folder: Path) -> int | None:
    """Lock a folder itself: the lock stays with it when it is renamed. None: another process holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):  # a file system without locks: go on without one
        if not try_lock(fd):
            os.close(fd)
            return None
    return fd


def _carry_over(old: Path, out: Path, made: Made) -> None:
    """Move files that this tool did not write from the old folder to the new, then delete the old."""
    if not old.exists():
        return
    for folder in (old, *(old / name for name in made.folders)):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = path.relative_to(old)
            if not made.ours.fullmatch(name.as_posix()) and not os.path.lexists(out / name):
                path.rename(out / name)
    shutil.rmtree(old)


def check_ours(out: Path, made: Made = DATA_SET) -> None:
    """ExportError for what this tool did not make: asked before the first call, and again before writing."""
    if os.path.lexists(out) and not is_ours(out, made):
        raise ExportError(
            f"it exists and is not a {made.what} of this tool",
            where=str(out),
            hint="choose another --out, or move that folder away",
        )


def is_ours(folder: Path, made: Made = DATA_SET) -> bool:
    """Whether a folder is what this tool wrote (or is empty)."""
    return folder.is_dir() and ((folder / made.mark).is_file() or not any(folder.iterdir()))


class ConfigWriter(TableWriter):
    """Writes the shards of one config (a name of `CONFIGS`) below `folder/data`."""

    def __init__(
        self, folder: Path, config: str, grammar: TraceGrammar | None = None, extra: Extra = PLAIN
    ) -> None:
        row = configs_of(grammar, extra)[config]
        super().__init__(folder, row, partial(shard_name, config))


class DatasetWriter(FolderWriter):
    """Writes all configs of a data set; `configs` has the writer of each."""

    def __init__(self, out: Path, grammar: TraceGrammar | None = None, extra: Extra = PLAIN) -> None:
        super().__init__(
            out,
            lambda folder: {name: ConfigWriter(folder, name, grammar, extra) for name in CONFIGS},
        )


# From the journal to the data set's folder: the pipeline once more, with no call, in pool order.


VERSIONED = ("av", "jiwer", "numpy", "pillow", "pyarrow", "rapidfuzz", "rouge-score")
"""Packages that can change a byte of the output."""
CHUNK = 128
"""Questions whose rows are made together."""
ALONE = 32
"""Chunks of a pool that is large enough for processes."""


async def write_dataset(
    recipe: Recipe,
    place: Workspace,
    *,
    card: Callable[[Path], object],
    observer: Observer,
    out: Path | None = None,
    replace: bool = False,
) -> BuildLock:
    """Write the folder from the journal: same recipe and journal, same bytes.

    Args:
        card: writes `README.md` into the finished folder, from its files only.
        out: another folder than `place.out`, where any set may go.
        replace: see `admit`.

    Raises:
        PoorSetError: a better data set stands in `place.out`.
        ExportError: the folder is not ours, the disk is full, or the ledger does not add up.
    """
    to = out or place.out
    try:
        with (
            Journal(place.journal, readonly=True) as journal,
            DatasetWriter(to, recipe.trace, recipe.extra) as writer,
        ):
            observer.begin("writing", None)
            lock = await _Pass(Parts(recipe, place, journal, live=False, tell=observer.wait), writer).run(
                observer
            )
            if out is None:
                admit(lock.ledger, to, replace=replace)
            form = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
            (writer.staging / LOCK_NAME).write_bytes(orjson.dumps(lock.model_dump(mode="json"), option=form))
            # what a build cannot make: labels of the judge, overlap, and text that a person added to the card
            for name in (AGREEMENT_NAME, OVERLAP_NAME, CARD_NAME):
                if (place.out / name).is_file():
                    shutil.copyfile(place.out / name, writer.staging / name)
            if (place.out / FIGURES_NAME).is_dir():  # the card shows them if their digests match the rows
                shutil.copytree(place.out / FIGURES_NAME, writer.staging / FIGURES_NAME)
            card(writer.staging)
            writer.commit()
            return lock
    except OSError as error:
        raise ExportError(
            f"cannot write the data set: {error}",
            where=str(to),
            hint="the old data set, if there was one, is untouched; free some space and run the same command",
        ) from None


class _Pass:
    """Counts and writes every question once, in pool order."""

    def __init__(self, parts: Parts, writer: DatasetWriter) -> None:
        self.parts = parts
        self.replay = Replay(parts)
        self.writer = writer
        self.tally = Tally()
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.digests = {s.name: PoolDigest() for s in parts.recipe.sources}

    async def run(self, observer: Observer) -> BuildLock:
        """Write every row of the pool to its config; the rows of a large pool are made in processes."""
        pool = self._read()
        chunks = iter(lambda: list(islice(pool, CHUNK)), [])
        first = list(islice(chunks, ALONE))
        if len(first) < ALONE:
            for items in first:
                await self.add(items, None, observer)
        else:
            from videop2r_data.builders.writing import made_in_processes

            async for items, made in made_in_processes(self.parts, chain(first, chunks), self.tally):
                await self.add(items, made, observer)
        return self.lock()

    def _read(self) -> Iterator[Sample | BadRow]:
        for item in self.parts.pool():
            self.digests[item.source].update(item)
            yield item

    async def add(self, items: list[Sample | BadRow], made: Portion | None, observer: Observer) -> None:
        """Write what became of some questions; `made` in another process, or not yet."""
        room = (self.parts.recipe.target or math.inf) - self.tally.kept
        if made is None or made.tally.kept >= room:
            made = await self.replay.make(items, room)
        for name, rows in made.rows.items():
            self.writer.configs[name].add_table(rows)
        self.tally.merge(made.tally)
        self.counts.update(made.counts)
        observer.step(self.tally, self.parts)
        await asyncio.sleep(0)

    def nested(self, about: str) -> dict[str, dict[str, int]]:
        """What is counted about something, as a table of tables, sorted."""
        found: dict[str, dict[str, int]] = {}
        for (what, first, second), count in sorted(self.counts.items()):
            if what == about:
                found.setdefault(first, {})[second] = count
        return found

    def models(self) -> dict[str, StepModel]:
        """Step -> its models, and what they took."""
        served, took, models = self.nested("served"), self.nested("took"), {}
        for step, spec in self.parts.recipe.backends.items():
            spent = None
            if self.parts.recipe.judges:
                own = Counter(took.get(step))
                usage = Usage(**{field: own[field] for field in Usage.model_fields})
                # beside a list of judges no step takes batches
                usd = None if spec.price is None else cost_usd(usage, spec.price, batched=False)
                spent = Spent(rows=own["rows"], calls=own["calls"], usage=usage, usd=usd)
            models[step] = StepModel(asked=spec.model, served=served.get(step, {}), spent=spent)
        return models

    def lock(self) -> BuildLock:
        """Close the files and describe them."""
        files = self.writer.close()
        recipe, tally = self.parts.recipe, self.tally
        ledger = Ledger(
            rows_in=tally.rows,
            kept=tally.kept,
            rejected=tally.rejected,
            failed=tally.failed,
            surplus=sum(pool.rows for pool in self.digests.values()) - tally.rows,
            reasons=dict(sorted(tally.reasons.items())),
            table=self.nested("table"),
        )
        check_ledger(ledger, {name: config.rows for name, config in self.writer.configs.items()})
        return BuildLock(
            recipe=locked_settings(recipe),
            prompts=self.parts.prompts(),
            sources=[
                SourceLock(name=name, rows=pool.rows, sha256=pool.hexdigest())
                for name, pool in self.digests.items()
            ],
            left_out=digest(self.parts.left_out) if self.parts.left_out else "",
            models=self.models(),
            versions={"videop2r-data": __version__} | {name: version(name) for name in VERSIONED},
            ledger=ledger,
            files=files,
        )


def check_ledger(ledger: Ledger, written: dict[str, int]) -> None:
    """ExportError unless rows in = kept + rejected + failed, and the files hold just these."""
    out = ledger.kept + ledger.rejected + ledger.failed
    if ledger.rows_in != out or written["sft"] != ledger.kept or written["rejected"] != out - ledger.kept:
        raise ExportError(
            f"the ledger does not add up: {ledger.rows_in} rows in, {ledger.kept} kept + {ledger.rejected} "
            f"rejected + {ledger.failed} failed, {written['sft']} + {written['rejected']} rows written"
        )


_HOST_SETTINGS = {"concurrency", "requests_per_minute", "tokens_per_minute", "timeout_s", "retries"}
_HOST_SETTINGS |= {"server_wait_s", "base_urls", "serve"}


def locked_settings(settings: Model) -> dict[str, Any]:
    """A recipe or a plan as it is kept: without what changes no byte of the output."""
    data: dict[str, Any] = settings.model_dump(mode="json")
    data.pop("max_cost")
    for setting in ("workers", "buffer_mb"):
        data["media"].pop(setting, None)
    steps = (data, *map(data.get, ("generate", "judge", "exam")), *data.get("judges", ()))
    for step in filter(None, steps):
        for backend in (step.get("backend"), step.get("unsure_to"), *step.get("panel", ())):
            for setting in _HOST_SETTINGS & (backend or {}).keys():
                del backend[setting]
    return data


# A good data set is not replaced by one that has lost its rows to a server or a disk.


class PoorSetError(ExportError):
    """The existing data set is not replaced; `ledger` is that of the new set."""

    def __init__(self, message: str, ledger: Ledger, *, where: Path) -> None:
        hint = "mend what the reasons say, then run the same command"
        super().__init__(message, where=str(where), hint=hint)
        self.ledger = ledger


def admit(ledger: Ledger, out: Path, *, replace: bool = False) -> None:
    """Refuse to replace a data set by a much poorer one.

    A set without an accepted row replaces none that has some. Nor, without `replace`, does one that keeps
    less than half of the rows, where rows that could not be looked at (refused, unanswered, unreadable) make
    up half of the loss.

    Raises:
        PoorSetError: it may not go there.
    """
    old = _kept(out)
    if old == 0:
        return
    stands = "a data set" if old is None else f"the data set of {old:,} accepted rows"
    if ledger.kept == 0:
        raise PoorSetError(f"no row was accepted: {stands} stays as it was", ledger, where=out)
    if old is None or replace:
        return
    if ledger.kept * 2 < old and ledger.failed * 2 >= old - ledger.kept:
        raise PoorSetError(
            f"only {ledger.kept:,} rows were accepted and {ledger.failed:,} could not be looked at: {stands} "
            "stays as it was (--replace puts the new one in its place)",
            ledger,
            where=out,
        )


def _kept(out: Path) -> int | None:
    """Accepted rows of the existing data set: 0 if there is none, None if it has no readable lock."""
    if not (out / LOCK_NAME).is_file():
        return 0
    try:
        return read_lock(out).ledger.kept
    except SourceError:
        return None
