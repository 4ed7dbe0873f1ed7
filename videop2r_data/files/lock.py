"""Read the lock of a data set, and digest the files that it lists."""

from __future__ import annotations

import hashlib
from pathlib import Path

import orjson
from pydantic import ValidationError

from videop2r_data.errors import SourceError
from videop2r_data.files.names import LOCK_NAME, SHARD
from videop2r_data.schemas import BuildLock, FileLock, digest

MAX_TEXT_BYTES = 64 * 2**20
"""A card or a lock above it is refused unread: both are small, and come from strangers."""


def read_lock(folder: Path) -> BuildLock:
    """The lock of a data set.

    Raises:
        SourceError: there is none, or it is not valid; the first faults are named.
    """
    path = folder / LOCK_NAME
    try:
        return BuildLock.model_validate(orjson.loads(read_text(path)))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
    except (OSError, ValueError, RecursionError) as error:
        faults = str(error)
    raise SourceError(
        f"not a build lock: {faults}",
        where=str(path),
        hint="name the folder of a data set that p2r-data build wrote",
    )


def config_digest(lock: BuildLock, config: str) -> str:
    """Digest of the digests of a config's files: which rows it holds."""
    return digest(
        [
            [name, file.sha256]
            for name, file in sorted(lock.files.items())
            if (shard := SHARD.fullmatch(name)) and shard[1] == config
        ]
    )


def file_digest(path: Path) -> str:
    """sha256 of a file, read once: 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_lock(path: Path, rows: int | None = None) -> FileLock:
    """What a lock says of one file.

    Args:
        path: the file.
        rows: how many it holds; None: it holds none.

    Raises:
        OSError: it cannot be read.
    """
    return FileLock(sha256=file_digest(path), bytes=path.stat().st_size, rows=rows)


def read_text(path: Path) -> str:
    """The text of a card or a lock.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `MAX_TEXT_BYTES`, or no UTF-8.
    """
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"larger than {MAX_TEXT_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")
