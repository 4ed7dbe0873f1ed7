"""Write the data set: one pass over the journal in pool order, so that the bytes depend on nothing else."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videop2r_data.errors import ExportError
from videop2r_data.files import (
    AGREEMENT_NAME,
    CARD_NAME,
    CROISSANT_NAME,
    LOCK_NAME,
    SHARD,
    file_lock,
    shard_name,
)
from videop2r_data.schemas import CONFIGS, FileLock

ROW_GROUP_BYTES = 100 * 2**20
"""Text bytes of a row group: large groups let the Hub's storage deduplicate chunks across versions."""
MARKED_ROWS = 1024
"""On average one row in so many may end a row group."""
SHARD_BYTES = 1500 * 2**20
"""Text bytes of a file."""


class ConfigWriter:
    """Writes the shards of one config with its one explicit schema.

    Args:
        folder: the data set's folder; files go to `data/`.
        config: a name of `schemas.rows.CONFIGS`.
    """

    def __init__(self, folder: Path, config: str) -> None:
        from videop2r_data.schemas import arrow_schema

        self.folder = folder
        self.config = config
        self.schema = arrow_schema(CONFIGS[config])
        self.rows = 0
        self.shards: list[tuple[Path, int]] = []
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._shard_rows = 0
        self._shard_bytes = 0
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self._pending_bytes += sum(len(v) for v in row.values() if isinstance(v, str)) + 256
        self.rows += 1
        if self._ends_group(row):
            self._flush()

    def _ends_group(self, row: dict[str, Any]) -> bool:
        """A row group ends at a row whose id hashes to a mark, near the wanted size.

        A row that is inserted or removed then moves no later boundary, and storage that deduplicates finds
        the later groups again.
        """
        if self._pending_bytes < 0.75 * ROW_GROUP_BYTES:
            return False
        marked = zlib.crc32(str(row["sample_id"]).encode()) % MARKED_ROWS == 0
        return marked or self._pending_bytes >= 1.5 * ROW_GROUP_BYTES

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
        self._shard_rows += len(self._pending)
        self._shard_bytes += self._pending_bytes
        self.shards[-1] = (self.shards[-1][0], self._shard_rows)
        self._pending, self._pending_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _begin_shard(self) -> None:
        import pyarrow.parquet as pq

        path = self.folder / shard_name(self.config, len(self.shards))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.shards.append((path, 0))
        self._shard_rows = self._shard_bytes = 0
        self._writer = pq.ParquetWriter(
            path,
            self.schema,
            compression="zstd",
            use_content_defined_chunking=True,
            write_page_index=True,
        )

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class DatasetWriter:
    """Writes all configs into a fresh folder beside the final one; `commit` swaps it in.

    Args:
        out: the final folder; where a symbolic link stands, the folder that it points to.

    Raises:
        ExportError: `out` is something that this tool did not make, or another process writes it now.
    """

    def __init__(self, out: Path) -> None:
        check_ours(out)
        self.out, self.staging, self.old = _places(out)
        self._lock = _fresh(self.staging)
        self.configs = {name: ConfigWriter(self.staging, name) for name in CONFIGS}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.staging.exists():
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
    lock = _try_lock(place) if place.exists() else -1
    if lock is None:
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
    busy = ExportError(
        "another process is writing this data set", where=str(staging), hint="wait for it, then run again"
    )
    if staging.exists():
        lock = _try_lock(staging)
        if lock is None:
            raise busy
        try:
            shutil.rmtree(staging)
        finally:
            os.close(lock)
    staging.mkdir(parents=True)
    lock = _try_lock(staging)
    if lock is None:
        raise busy
    return lock


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
    """Refuse a folder that this tool did not make: asked before the first call, and again before writing.

    Raises:
        ExportError: it is something else.
    """
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
    """One writer of an output at a time.

    Raises:
        ExportError: another process writes it now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ExportError(
                "another process is writing this data set",
                where=str(path),
                hint="wait for it, then run again",
            ) from None
        yield


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
