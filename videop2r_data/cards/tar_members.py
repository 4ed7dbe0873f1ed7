"""Tar archives, plain or gzip, read once from end to end: they have no directory to look a member up in."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from videop2r_data.errors import SourceError

_PIECE = 1 << 20
_MAX_HEADER = 1 << 20
"""Bytes of an extended header; real ones hold a path and some dates."""
_MAX_MEMBERS = 5_000_000
_MAX_NAMES = 1 << 29
"""Characters of all names together: they are kept in memory, and each may be as long as a header."""
_MAX_RATIO = 200
"""Unpacked bytes for each packed one, beyond which an archive is a bomb."""
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Entry:
    """One regular file of an archive, or something that cannot be one.

    Attributes:
        name: as written there; check it before it becomes a path.
        size: bytes.
        refused: why it cannot be taken, or empty.
    """

    name: str
    size: int
    refused: str = ""


def read_tar(
    chunks: Iterable[bytes], where: str, take: Callable[[Entry, Iterator[bytes]], object], *, packed: bool
) -> None:
    """Show every member to `take`, in the order of the archive, and read the archive to its very end.

    Args:
        chunks: its bytes.
        where: its name, for errors.
        take: gets a member and its bytes; bytes that it leaves are read past.
        packed: it is gzip.

    Raises:
        SourceError: no tar archive, a damaged or a hostile one.
    """
    feed = _Feed(_gunzipped(chunks, where) if packed else chunks)
    try:
        with _opened(feed) as tar:
            named = 0
            for number in range(_MAX_MEMBERS + 1):
                with _hostile_headers():
                    info = tar.next()
                if info is None:
                    break
                if number == _MAX_MEMBERS:
                    raise SourceError(f"more than {_MAX_MEMBERS:,} members", where=where)
                named += len(info.name)
                if named > _MAX_NAMES:
                    raise SourceError(f"names of more than {_MAX_NAMES:,} characters", where=where)
                tar.members = []  # type: ignore[attr-defined]  # else every header stays in memory
                if not info.isdir():
                    take(Entry(info.name, info.size, _refused(info)), _data(tar, info))
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise SourceError(f"not a whole tar archive: {error}", where=where) from None
    while feed.read(_PIECE):
        pass  # what follows the end mark belongs to the digest of the file


@contextmanager
def _hostile_headers() -> Iterator[None]:
    """What a hostile header makes the library raise, told as a damaged archive."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # Numbers of thousands of digits; headers that announce headers that announce headers.
        raise tarfile.ReadError(f"a header that cannot be read ({type(error).__name__})") from None


def _opened(feed: _Feed) -> tarfile.TarFile:
    with _hostile_headers():  # opening reads the first one
        return tarfile.open(fileobj=feed, mode="r|", tarinfo=_Info, bufsize=tarfile.BLOCKSIZE * 128)


def _refused(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    return "" if info.isreg() else "no regular file"


def _data(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info) if info.isreg() else None
    while file is not None and (data := file.read(_PIECE)):
        yield data


class _Info(tarfile.TarInfo):
    """Headers of a bounded size, and no sparse files, whose maps can be as large as the archive."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        small = (
            *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
            *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        )
        if self.type in small and self.size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes")
        kept = sum(len(key) + len(value) for key, value in tar.pax_headers.items())
        if kept > _MAX_HEADER:  # what headers for all members say stays until the end
            raise tarfile.ReadError(f"headers for all members of {kept:,} characters")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a sparse file")
        return super()._proc_member(tar)  # type: ignore[misc]  # the hook that the class offers

    def _no_sparse(self, *_: Any) -> None:
        raise tarfile.ReadError("a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _no_sparse


class _Feed(io.RawIOBase):
    """Chunks as a file that is read forwards."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        out, self._rest = self._rest[:size], self._rest[size:]
        return out


def _gunzipped(chunks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """Unpacked in pieces of a bounded size; several gzip streams may follow one another."""
    taken = given = 0
    inflate = zlib.decompressobj(_GZIP)
    try:
        for chunk in chunks:
            left, taken = chunk, taken + len(chunk)
            while True:
                if inflate.eof:
                    if not left.strip(b"\0"):
                        break  # padding behind the last stream
                    inflate = zlib.decompressobj(_GZIP)
                data = inflate.decompress(left, _PIECE)
                left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
                given += len(data)
                if given > _MAX_RATIO * taken + _PIECE:
                    raise SourceError(f"unpacks to more than {_MAX_RATIO} times its size", where=where)
                if data:
                    yield data
                if not left and len(data) < _PIECE:
                    break
    except zlib.error as error:
        raise SourceError(f"damaged: {error}", where=where) from None
    if not inflate.eof:
        raise SourceError("it ends early", where=where)
