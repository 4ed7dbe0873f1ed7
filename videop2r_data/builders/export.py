"""Write the data set: one pass over the journal in pool order, so that the bytes depend on nothing else."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videop2r_data.errors import ExportError
from videop2r_data.schemas.lock import FileLock
from videop2r_data.schemas.rows import CONFIGS

ROW_GROUP_BYTES = 100 * 2**20
"""Text bytes of a row group: large groups let the Hub's storage deduplicate chunks across versions."""
SHARD_BYTES = 1500 * 2**20
"""Text bytes of a file."""
LOCK_NAME = "build.lock.json"


class ConfigWriter:
    """Writes the shards of one config with its one explicit schema.

    Args:
        folder: the data set's folder; files go to `data/`.
        config: a name of `schemas.rows.CONFIGS`.
    """

    def __init__(self, folder: Path, config: str) -> None:
        from videop2r_data.schemas.arrow import arrow_schema

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
        if self._pending_bytes >= ROW_GROUP_BYTES:
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
        self._shard_rows += len(self._pending)
        self._shard_bytes += self._pending_bytes
        self.shards[-1] = (self.shards[-1][0], self._shard_rows)
        self._pending, self._pending_bytes = [], 0
        if self._shard_bytes >= SHARD_BYTES:
            self._end_shard()

    def _begin_shard(self) -> None:
        import pyarrow.parquet as pq

        path = self.folder / "data" / f"{self.config}-{len(self.shards):05d}.parquet"
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
        out: the final folder.

    Raises:
        ExportError: `out` is something that this tool did not make.
    """

    def __init__(self, out: Path) -> None:
        if out.exists() and not is_ours(out):
            raise ExportError(
                "the folder exists and is not a data set of this tool",
                where=str(out),
                hint="choose another --out, or move that folder away",
            )
        self.out = out
        self.staging = out.with_name(f".{out.name}.staging")
        if self.staging.exists():
            shutil.rmtree(self.staging)
        self.staging.mkdir(parents=True)
        self.configs = {name: ConfigWriter(self.staging, name) for name in CONFIGS}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.staging.exists():
            shutil.rmtree(self.staging, ignore_errors=True)

    def close(self) -> dict[str, FileLock]:
        """Finish every file; returns path -> digest, size and rows."""
        files: dict[str, FileLock] = {}
        for writer in self.configs.values():
            writer.close()
            for path, rows in writer.shards:
                files[path.relative_to(self.staging).as_posix()] = file_lock(path, rows)
        return files

    def commit(self) -> None:
        """Put the new folder in the place of the old one; a crash leaves one of the two whole."""
        for path in self.staging.rglob("*"):
            if path.is_file():
                _sync(path)
        old = self.out.with_name(f".{self.out.name}.old")
        if old.exists():
            shutil.rmtree(old)
        if self.out.exists():
            self.out.rename(old)
        self.staging.rename(self.out)
        _sync(self.out.parent)
        if old.exists():
            shutil.rmtree(old)


def recover(out: Path) -> None:
    """Undo a swap that a crash cut in half: the old folder comes back if the new one is not there."""
    old = out.with_name(f".{out.name}.old")
    if old.exists() and not out.exists():
        old.rename(out)


def is_ours(folder: Path) -> bool:
    """Whether a folder is a data set that this tool wrote (or is empty)."""
    return folder.is_dir() and ((folder / LOCK_NAME).is_file() or not any(folder.iterdir()))


def file_lock(path: Path, rows: int | None = None) -> FileLock:
    """Digest, size and rows of one output file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileLock(sha256=sha256, bytes=path.stat().st_size, rows=rows)


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


def count_table(table: dict[str, Counter[str]], data_type: str, problem_type: str) -> None:
    """Count one kept row into the table of data type x problem type."""
    table.setdefault(data_type, Counter())[problem_type] += 1


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
