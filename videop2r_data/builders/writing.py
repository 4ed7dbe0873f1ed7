"""What a run writes: Parquet files, in a folder that replaces the old one as a whole."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from videop2r_data.errors import ExportError
from videop2r_data.files import (
    AGREEMENT_NAME,
    CARD_NAME,
    CROISSANT_NAME,
    LOCK_NAME,
    OVERLAP_NAME,
    SHARD,
    file_lock,
)
from videop2r_data.schemas import FileLock, Model

# Parquet files: one explicit schema per config, shards and row groups that move little between versions.


ROW_GROUP_BYTES = 100 * 2**20
"""Text bytes of a row group: large groups let the Hub's storage deduplicate chunks across versions."""
MARKED_ROWS = 1024
"""On average one row in so many may end a row group."""
SHARD_BYTES = 1500 * 2**20
"""Text bytes of a file."""


class TableWriter:
    """Writes the files of one table below `folder`, with its one schema; rows have a `sample_id`.

    Args:
        row: what a row is.
        name: number of a file, from 0 -> its path below `folder`.
    """

    def __init__(self, folder: Path, row: type[Model], name: Callable[[int], str]) -> None:
        from videop2r_data.schemas import arrow_schema

        self.folder = folder
        self.name = name
        self.schema = arrow_schema(row)
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

        path = self.folder / self.name(len(self.shards))
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


# The folder as a whole.


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
            _sync(path)
        if self.old.exists():
            shutil.rmtree(self.old)
        if self.out.exists():
            self.out.rename(self.old)
        self.staging.rename(self.out)
        _sync(self.out.parent)
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
        raise _busy(staging, made)
    for left in staging.iterdir():  # by a run that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def _busy(where: Path, made: Made = DATA_SET) -> ExportError:
    return ExportError(
        f"another process is writing this {made.what}", where=str(where), hint="wait for it, then run again"
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
            f"the folder exists and is not a {made.what} of this tool",
            where=str(out),
            hint="choose another --out, or move that folder away",
        )


def is_ours(folder: Path, made: Made = DATA_SET) -> bool:
    """Whether a folder is what this tool wrote (or is empty)."""
    return folder.is_dir() and ((folder / made.mark).is_file() or not any(folder.iterdir()))


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
