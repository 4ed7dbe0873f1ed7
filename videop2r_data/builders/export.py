"""Write the data set from the journal, in pool order, into a folder that replaces the old one as a whole."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import orjson

from videop2r_data.backends import Journal
from videop2r_data.builders.run import Result, Tally, bad_row, rejected_row, rl_row, sft_row
from videop2r_data.builders.sources import PoolDigest
from videop2r_data.builders.steps import Meter, Parts, Watcher
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ExportError, SourceError
from videop2r_data.files import (
    AGREEMENT_NAME,
    CARD_NAME,
    CROISSANT_NAME,
    FIGURES_NAME,
    LOCK_NAME,
    SHARD,
    file_lock,
    read_lock,
    shard_name,
)
from videop2r_data.schemas import (
    CONFIGS,
    BuildLock,
    FileLock,
    Ledger,
    Outcome,
    Recipe,
    RejectReason,
    Sample,
    SourceLock,
    Stage,
    TraceGrammar,
    configs_of,
)
from videop2r_data.version import __version__

# Parquet files: one explicit schema per config, shards and row groups that move little between versions.


ROW_GROUP_BYTES = 100 * 2**20
"""Text bytes of a row group: large groups let the Hub's storage deduplicate chunks across versions."""
MARKED_ROWS = 1024
"""On average one row in so many may end a row group."""
SHARD_BYTES = 1500 * 2**20
"""Text bytes of a file."""


class ConfigWriter:
    """Writes the shards of one config (a name of `CONFIGS`) below `folder/data`, with its one schema."""

    def __init__(
        self, folder: Path, config: str, grammar: TraceGrammar | None = None, *, judged: bool = False
    ) -> None:
        from videop2r_data.schemas import arrow_schema

        self.folder = folder
        self.config = config
        self.schema = arrow_schema(configs_of(grammar, judged=judged)[config])
        self.rows = 0
        self.shards: list[tuple[Path, int]] = []
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._shard_bytes = 0
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self._pending_bytes += sum(len(v) for v in row.values() if isinstance(v, str)) + 256
        self.rows += 1
        if self._pending_bytes >= 0.75 * ROW_GROUP_BYTES:
            # A group ends at a row whose id hashes to a mark, near the wanted size: a row that is inserted or
            # removed moves no later boundary, and storage that deduplicates finds the later groups again.
            marked = zlib.crc32(str(row["sample_id"]).encode()) % MARKED_ROWS == 0
            if marked or self._pending_bytes >= 1.5 * ROW_GROUP_BYTES:
                self._flush()

    def close(self) -> None:
        """Finish the last shard; a config without rows still gets a file with the schema."""
        self._flush(last=True)
        self._end_shard()

    def _flush(self, *, last: bool = False) -> None:
        import pyarrow as pa

        if not self._pending and not (last and not self.shards):
            return
        if self._writer is None:
            self._begin_shard()
        table = pa.Table.from_pylist(self._pending, schema=self.schema)
        self._writer.write_table(table, row_group_size=max(1, len(self._pending)))
        self._shard_bytes += self._pending_bytes
        path, rows = self.shards[-1]
        self.shards[-1] = (path, rows + len(self._pending))
        self._pending, self._pending_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _begin_shard(self) -> None:
        import pyarrow.parquet as pq

        path = self.folder / shard_name(self.config, len(self.shards))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.shards.append((path, 0))
        self._shard_bytes = 0
        self._writer = pq.ParquetWriter(
            path, self.schema, compression="zstd", use_content_defined_chunking=True, write_page_index=True
        )

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class DatasetWriter:
    """Writes all configs into a fresh folder beside the final one; `commit` swaps it in.

    A symbolic link `out` means the folder that it points to.

    Raises:
        ExportError: `out` is something that this tool did not make, or another process writes it now.
    """

    def __init__(self, out: Path, grammar: TraceGrammar | None = None, *, judged: bool = False) -> None:
        check_ours(out)
        self.out, self.staging, self.old = _places(out)
        self._lock = _fresh(self.staging)
        self.configs = {name: ConfigWriter(self.staging, name, grammar, judged=judged) for name in CONFIGS}

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
            _sync(path)
        if self.old.exists():
            shutil.rmtree(self.old)
        if self.out.exists():
            self.out.rename(self.old)
        self.staging.rename(self.out)
        _sync(self.out.parent)
        _carry_over(self.old, self.out)


def recover(out: Path) -> None:
    """Finish or undo a swap that a crash interrupted, unless a running process holds the folder."""
    out, staging, old = _places(out)
    if not old.exists():
        return
    place = out if out.exists() else staging
    if (lock := _try_lock(place) if place.exists() else -1) is None:
        return
    try:
        if out.exists():
            _carry_over(old, out)
        else:
            old.rename(out)
    finally:
        if lock >= 0:
            os.close(lock)


def _places(out: Path) -> tuple[Path, Path, Path]:
    """Paths of the final folder, the staging folder and the parked old folder, all on one file system."""
    out = Path(os.path.realpath(out))
    return out, out.with_name(f".{out.name}.staging"), out.with_name(f".{out.name}.old")


def _fresh(staging: Path) -> int:
    """Make an empty folder and lock it; returns the lock, an open file descriptor."""
    staging.mkdir(parents=True, exist_ok=True)
    lock = _try_lock(staging)
    if lock is None:
        raise _busy(staging)
    for left in staging.iterdir():  # by a run that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def _busy(where: Path) -> ExportError:
    return ExportError(
        "another process is writing this data set", where=str(where), hint="wait for it, then run again"
    )


def _try_lock(folder: Path) -> int | None:
    """Lock a folder itself: the lock stays with it when it is renamed. None: another process holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        pass  # a file system without locks: go on without one
    return fd


def _carry_over(old: Path, out: Path) -> None:
    """Move files that this tool did not write from the old folder to the new, then delete the old."""
    if not old.exists():
        return
    for folder in (old, old / "data"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            name = path.relative_to(old)
            if not _OURS.fullmatch(name.as_posix()) and not os.path.lexists(out / name):
                path.rename(out / name)
    shutil.rmtree(old)


_FLAT = "|".join(re.escape(name) for name in (CARD_NAME, LOCK_NAME, AGREEMENT_NAME, CROISSANT_NAME))
_OURS = re.compile(rf"{_FLAT}|data|{SHARD.pattern}")


def check_ours(out: Path) -> None:
    """ExportError for what this tool did not make: asked before the first call, and again before writing."""
    if os.path.lexists(out) and not is_ours(out):
        raise ExportError(
            "the folder exists and is not a data set of this tool",
            where=str(out),
            hint="choose another --out, or move that folder away",
        )


def is_ours(folder: Path) -> bool:
    """Whether a folder is a data set that this tool wrote (or is empty)."""
    return folder.is_dir() and ((folder / LOCK_NAME).is_file() or not any(folder.iterdir()))


@contextmanager
def exclusively(path: Path) -> Iterator[None]:
    """One writer of an output at a time: ExportError while another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _busy(path) from None
        yield


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# From the journal to the data set's folder: the pipeline once more, with no call, in pool order.


VERSIONED = ("av", "jiwer", "numpy", "pillow", "pyarrow", "rapidfuzz", "rouge-score")
"""Packages that can change a byte of the output."""
_BREATHE = 256


async def write_dataset(
    recipe: Recipe,
    place: Workspace,
    *,
    card: Callable[[Path], object],
    observer: Watcher,
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
        judged = bool(recipe.judges)
        with (
            Journal(place.journal, readonly=True) as journal,
            DatasetWriter(to, recipe.trace, judged=judged) as writer,
        ):
            observer.begin("writing", None)
            lock = await _Pass(Parts(recipe, place, journal, live=False), writer).run(observer)
            if out is None:
                admit(lock.ledger, to, replace=replace)
            form = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
            (writer.staging / LOCK_NAME).write_bytes(orjson.dumps(lock.model_dump(mode="json"), option=form))
            # human labels of the judge, which a build cannot make, and text that a person added to the card
            for name in (AGREEMENT_NAME, CARD_NAME):
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
        self.writer = writer
        self.marks = {"synthetic": parts.recipe.synthetic, "judged": bool(parts.recipe.judges)}
        self.tally = Tally()
        self.surplus = 0
        self.table: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.meter = Meter(parts)
        self.digests = {s.name: PoolDigest() for s in parts.recipe.sources}

    async def run(self, observer: Watcher) -> BuildLock:
        target = self.parts.recipe.target
        for item in self.parts.pool():
            self.digests[item.source].update(item)
            if target is not None and self.tally.kept >= target:
                self.surplus += 1
                continue
            if isinstance(item, Sample):
                result = settled(await self.parts.steps.run(item))
                self.put(result)
                self.tally.add(result)
            else:
                self.writer.configs["rejected"].add(bad_row(item, **self.marks))
                self.tally.add(item)
            observer.step(self.tally, self.parts)
            if self.tally.rows % _BREATHE == 0:
                await asyncio.sleep(0)
        return self.lock()

    def put(self, result: Result) -> None:
        self.meter.add(result.models)
        if result.stage is not Stage.MEDIA:
            self.writer.configs["rl"].add(rl_row(result.sample))
        if result.outcome is Outcome.KEPT:
            self.writer.configs["sft"].add(sft_row(result, **self.marks))
            self.table[result.sample.data_type.value][result.sample.problem_type.value] += 1
        else:
            self.writer.configs["rejected"].add(rejected_row(result, **self.marks))

    def lock(self) -> BuildLock:
        files = self.writer.close()
        recipe, tally = self.parts.recipe, self.tally
        ledger = Ledger(
            rows_in=tally.rows,
            kept=tally.kept,
            rejected=tally.rejected,
            failed=tally.failed,
            surplus=self.surplus,
            reasons=dict(sorted(tally.reasons.items())),
            table={k: dict(sorted(v.items())) for k, v in sorted(self.table.items())},
        )
        check_ledger(ledger, {name: config.rows for name, config in self.writer.configs.items()})
        return BuildLock(
            recipe=locked_recipe(recipe),
            prompts=self.parts.prompts(),
            sources=[
                SourceLock(name=name, rows=digest.rows, sha256=digest.hexdigest())
                for name, digest in self.digests.items()
            ],
            models=self.meter.models(),
            versions={"videop2r-data": __version__} | {name: version(name) for name in VERSIONED},
            ledger=ledger,
            files=files,
        )


def settled(result: Result) -> Result:
    """A result without outcome becomes a failure: the journal lacks its answer, the next run asks again."""
    if result.outcome is not None:
        return result
    return replace(
        result, outcome=Outcome.FAILED, reason=RejectReason.CALL_FAILED, detail="no answer in the journal"
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
_HOST_SETTINGS |= {"server_wait_s"}


def locked_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as the lock keeps it: without the settings that change no byte of the output."""
    data: dict[str, Any] = recipe.model_dump(mode="json")
    data.pop("max_cost")
    for setting in ("workers", "buffer_mb"):
        data["media"].pop(setting, None)
    for step in (data["generate"], data["judge"] or {}, *data.get("judges", ())):
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
