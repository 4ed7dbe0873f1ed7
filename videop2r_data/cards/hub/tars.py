"""Clips out of tar archives: an archive is read once from end to end, wanted members are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from videop2r_data.cards.hub.archives import (
    TWICE,
    Archive,
    ForwardFile,
    names_of,
    recalled,
    remember,
    spelled,
)
from videop2r_data.cards.hub.client import Place, RangeFile
from videop2r_data.cards.hub.plan import blob_hash, holds
from videop2r_data.errors import HubAuthError, HubError, SourceError

# A tar archive has no directory: to find one member, all of it is read. `tarfile` parses it; the bounds below
# keep a hostile archive from filling the memory.

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
    """One member of a tar archive.

    Attributes:
        name: as written there; check it before it becomes a path.
        size: bytes.
        refused: why it is not taken (a link, a device), or empty.
    """

    name: str
    size: int
    refused: str = ""


def read_tar(
    chunks: Iterable[bytes], where: str, take: Callable[[Entry, Iterator[bytes]], object], *, packed: bool
) -> None:
    """Pass every member with its bytes to `take`, in order, and read the archive to its end.

    Args:
        chunks: bytes of the archive.
        where: its name, for errors.
        take: bytes that it leaves are skipped.
        packed: whether the archive is under gzip.

    Raises:
        SourceError: no tar archive, a damaged or a hostile one.
    """
    feed = ForwardFile(_gunzipped(chunks, where) if packed else chunks, 0)
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
                    link = "a link" if info.issym() or info.islnk() else "no regular file"
                    take(Entry(info.name, info.size, "" if info.isreg() else link), _data(tar, info))
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise SourceError(f"not a whole tar archive: {error}", where=where) from None
    while feed.read(_PIECE):
        pass  # what follows the end mark belongs to the digest of the file


@contextmanager
def _hostile_headers() -> Iterator[None]:
    """Turn errors that a hostile header makes `tarfile` raise into `ReadError`."""
    try:
        yield
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        # numbers of thousands of digits; headers nested in headers
        raise tarfile.ReadError(f"a header that cannot be read ({type(error).__name__})") from None


def _opened(feed: ForwardFile) -> tarfile.TarFile:
    with _hostile_headers():  # opening reads the first one
        return tarfile.open(fileobj=feed, mode="r|", tarinfo=_Info, bufsize=tarfile.BLOCKSIZE * 128)


def _data(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info) if info.isreg() else None
    while file is not None and (data := file.read(_PIECE)):
        yield data


class _Info(tarfile.TarInfo):
    """Refuses large headers, and sparse files, whose maps can be as large as the archive.

    A damaged header behind the first member is refused too: `tarfile` takes it for the end of the archive,
    and every member behind it would be missing without a word.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """The next header.

        Raises:
            tarfile.ReadError: it is damaged, wherever it stands.
        """
        try:
            return super().fromtarfile(tar)
        except tarfile.InvalidHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"a header that cannot be read ({error})") from None

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


def _gunzipped(chunks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """Inflate gzip in pieces of a bounded size; several streams may follow one another.

    Raises:
        SourceError: damaged, cut, or more than `_MAX_RATIO` times its size.
    """
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


# Each archive is read once; wanted members are written to hidden files and get their names when the whole
# archive has the digest that the Hub lists.

SPARE = 1 << 28
"""Bytes of disk that must stay free."""


@dataclass(frozen=True)
class TarPlan:
    """The archives to read, and the clips that may be in them.

    Attributes:
        archives: in the order in which they are read.
        targets: name in the repository, as `spelled` writes it -> where it goes.
        cache: folder of the lists of members of archives that were read before.
    """

    archives: tuple[Archive, ...]
    targets: Mapping[str, Path]
    cache: Path

    @property
    def bytes(self) -> int:
        """Size of all archives on the Hub."""
        return sum(archive.bytes for archive in self.archives)


def plan_tars(
    archives: Iterable[Archive], wanted: Mapping[str, Path], cache: Path
) -> tuple[TarPlan, set[str]]:
    """Choose the tar archives to read for some clips.

    Args:
        archives: those that may hold one, the likeliest first.
        wanted: name, as `spelled` writes it -> where it goes.
        cache: as in `TarPlan`.

    Returns:
        The plan, and the names of clips that are already here, whole.
    """
    chosen: list[Archive] = []
    perhaps: set[str] = set()
    present: set[str] = set()
    for archive in archives:
        folder = f"{spelled(archive.folder)}/" if archive.folder else ""
        inside = {name for name in wanted if name.startswith(folder)}
        known = recalled(archive.index(cache), lambda name, size, crc: (str(name), int(size), int(crc)))
        if known is not None:  # it was read before: then it says which it holds, and as what
            content = {p: rest for name, *rest in known for p in names_of(archive, name) if p in inside}
            inside = set(content)
            here = {path for path, (size, crc) in content.items() if holds(wanted[path], size, crc)}
            present |= here
            inside -= here
        if inside:
            chosen.append(archive)
            perhaps |= inside
    targets = {name: wanted[name] for name in sorted(perhaps - present)}
    return TarPlan(tuple(chosen) if targets else (), targets, cache), present


def fetch_tars(
    plan: TarPlan, place: Place, tell: Callable[[str, int], object]
) -> tuple[dict[str, str], list[str]]:
    """Read the archives one after the other until every clip is found.

    Args:
        plan: of `plan_tars`.
        place: where they lie.
        tell: called with progress: (archive, bytes of all archives so far).

    Returns:
        Name -> what went wrong, or empty; and the names that were in no archive.

    Raises:
        HubAuthError: the token lost its access.
        OSError: the disk cannot be written.
    """
    clips: dict[str, str] = {}
    left = dict(plan.targets)
    lost, read = "", 0
    for archive in plan.archives:
        if not left:
            break
        chunks = _checked(archive, place, read, tell)
        keeper = _Keeper(archive, left)
        try:
            read_tar(chunks, archive.name, keeper.take, packed=archive.is_packed)
            keeper.name()
        except HubAuthError:
            raise
        except (HubError, SourceError) as error:
            lost = f"{archive.name}: {error.message}"
            continue
        finally:
            keeper.clear()
            read += archive.bytes
        remember(archive.index(plan.cache), keeper.members)
        found = keeper.faults | dict.fromkeys(keeper.parts, "")
        clips |= found
        left = {inside: target for inside, target in left.items() if inside not in found}
    if lost:
        return clips | dict.fromkeys(left, lost), []
    return clips, list(left)


def _checked(
    archive: Archive, place: Place, done: int, tell: Callable[[str, int], object]
) -> Iterator[bytes]:
    """The bytes of all parts, `done` of others read before; at the end of each part its digest is checked.

    Raises:
        SourceError: a digest is not the one that the Hub lists.
    """
    for path, listed in archive.parts:
        found = hashlib.sha256() if listed.sha256 else blob_hash(listed.bytes)
        for chunk in RangeFile(place, path, listed.bytes).stream(0, listed.bytes):
            found.update(chunk)
            done += len(chunk)
            tell(archive.name, done)
            yield chunk
        if found.hexdigest() != (listed.sha256 or listed.oid):
            raise SourceError("its digest is not the one that the Hub lists", where=path)


class _Keeper:
    """Writes wanted members to hidden files; refuses a name that comes twice."""

    def __init__(self, archive: Archive, wanted: Mapping[str, Path]) -> None:
        self.archive = archive
        self.wanted = wanted
        self.members: list[tuple[str, int, int]] = []
        self.parts: dict[str, Path] = {}
        self.faults: dict[str, str] = {}
        self._rank: dict[str, int] = {}
        self._seen: set[str] = set()

    def take(self, entry: Entry, data: Iterator[bytes]) -> None:
        """One member of the archive."""
        names = names_of(self.archive, entry.name)
        if not names:
            return
        again = names[0] in self._seen
        self._seen.add(names[0])
        rank, path = next(((rank, name) for rank, name in enumerate(names) if name in self.wanted), (0, ""))
        if path and again:
            self._refuse(path, TWICE)
        elif path and (path not in self._rank or rank < self._rank[path]):
            self._rank[path] = rank
            if entry.refused:
                self._refuse(path, entry.refused)
            else:
                data = self._written(path, entry, data)
        crc = 0
        for piece in data:
            crc = zlib.crc32(piece, crc)
        self.members.append((entry.name, entry.size, crc))

    def _refuse(self, path: str, why: str) -> None:
        self.faults[path] = why
        if part := self.parts.pop(path, None):
            part.unlink(missing_ok=True)

    def _written(self, path: str, entry: Entry, data: Iterable[bytes]) -> Iterator[bytes]:
        target = self.wanted[path]
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
        if entry.size + SPARE > free:
            raise HubError(
                f"{path} takes {entry.size:,} bytes, {free:,} are free",
                where=str(target.parent),
                hint="choose fewer rows, or another disk",
            )
        self.faults.pop(path, None)
        self.parts[path] = part = target.with_name(f".{target.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            for piece in data:
                file.write(piece)
                yield piece

    def name(self) -> None:
        """Give every clip its name, after the whole archive was checked."""
        for path, part in self.parts.items():
            part.replace(self.wanted[path])

    def clear(self) -> None:
        """Delete the hidden files that are left."""
        for part in self.parts.values():
            part.unlink(missing_ok=True)
