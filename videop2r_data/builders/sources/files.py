"""Files of a pool: which ones a path means, and how each is opened without trusting it."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from videop2r_data.errors import SourceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

POOL_SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
BOMB_RATIO = 200
"""Unpacked bytes per packed byte that no pool of questions reaches (plain text packs 3 to 20 times)."""
BOMB_FLOOR = 64 << 20
"""Unpacked bytes that are always allowed."""


def locate(path: str, base: Path) -> Path:
    """A path of a recipe: `~` is the home folder, the rest is relative to `base`."""
    return base / Path(path).expanduser()


def pool_files(path: str, base: Path, *, name: str) -> list[Path]:
    """The files that `path` means: one file, those of a folder, or those of a glob, sorted by name.

    Raises:
        SourceError: none is there.
    """
    place = locate(path, base)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = sorted(p for p in place.iterdir() if p.is_file() and p.name.endswith(POOL_SUFFIXES))
        what = f"no pool file in the folder (known: {', '.join(POOL_SUFFIXES)})"
    else:
        found = sorted(_glob(place))
        what = "no such file, folder or glob"
    if not found:
        raise SourceError(
            what, where=f"source {name!r}, {place}", hint="set `path` of this source in the recipe"
        )
    return found


def _glob(place: Path) -> Iterator[Path]:
    parts = place.parts
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if first is None:
        return
    root = Path(*parts[:first])
    yield from (p for p in root.glob(str(Path(*parts[first:]))) if p.is_file())


class _Gunzip(io.RawIOBase):
    """Unpacks a gzip file and refuses a bomb before it has cost anything."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self._unpacked = gzip.GzipFile(fileobj=file, mode="rb")
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._unpacked.read(len(view))
        view[: len(data)] = data
        self._given += len(data)
        if self._given > BOMB_FLOOR and self._given > BOMB_RATIO * max(1, self._file.tell()):
            raise SourceError(
                f"unpacks to more than {BOMB_RATIO} times its size: a gzip bomb",
                where=self._where,
                hint="unpack it by hand if it is what you want, and name the unpacked file",
            )
        return len(data)


@contextmanager
def open_pool_file(path: Path) -> Iterator[BinaryIO]:
    """Open a plain or gzip file for one pass, as bytes; gzip is told by its first two bytes, not by its name.

    Raises:
        SourceError: it cannot be opened, or unpacks to absurd sizes (while reading).
    """
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer that never comes.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise SourceError(
            f"cannot be opened: {error.strerror}", where=str(path), hint="check path and rights"
        ) from None
    with file:
        if not path.is_file():
            raise SourceError("is no regular file", where=str(path), hint="name a file")
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        yield cast(BinaryIO, _Gunzip(file, str(path))) if packed else file
