"""Clips out of tar archives: an archive is read once from end to end, wanted members are kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.cards.hub.archives import TWICE, Archive, ForwardFile, names_of, spelled
from videop2r_data.cards.hub.client import Hub, RangeFile
from videop2r_data.cards.hub.plan import RemoteFile, crc_of
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
    """Pass every member to `take`, in order, and read the archive to its end.

    Args:
        chunks: bytes of the archive.
        where: its name, for errors.
        take: called with a member and its bytes; bytes that it leaves are skipped.
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
                    take(Entry(info.name, info.size, _refused(info)), _data(tar, info))
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


def _refused(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    return "" if info.isreg() else "no regular file"


def _data(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    file = tar.extractfile(info) if info.isreg() else None
    while file is not None and (data := file.read(_PIECE)):
        yield data


class _Info(tarfile.TarInfo):
    """Refuses large headers, and sparse files, whose maps can be as large as the archive."""

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
class Stream:
    """One archive to read.

    Attributes:
        archive: the archive.
        files: its parts as the Hub lists them.
        index: where its list of members is kept once it has been read.
    """

    archive: Archive
    files: tuple[RemoteFile, ...]
    index: Path


@dataclass(frozen=True)
class Place:
    """Which commit of which repository."""

    hub: Hub
    repo: str
    commit: str


@dataclass(frozen=True)
class TarPlan:
    """The archives to read, and the clips that may be in them.

    Attributes:
        streams: in the order in which they are read.
        targets: name in the repository, as `spelled` writes it -> where it goes.
    """

    streams: tuple[Stream, ...] = ()
    targets: Mapping[str, Path] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all archives on the Hub."""
        return sum(stream.archive.bytes for stream in self.streams)


def plan_tars(
    archives: Iterable[Archive], files: Mapping[str, RemoteFile], wanted: Mapping[str, Path], cache: Path
) -> tuple[TarPlan, set[str]]:
    """Choose the tar archives to read for some clips.

    Args:
        archives: those that may hold one, the likeliest first.
        files: of the repository.
        wanted: name, as `spelled` writes it -> where it goes.
        cache: folder of the lists of members of archives that were read before.

    Returns:
        The plan, and the names of clips that are already here, whole.
    """
    streams: list[Stream] = []
    perhaps: set[str] = set()
    present: set[str] = set()
    for archive in archives:
        index = cache / f"{archive.key}.json"
        stream = Stream(archive, tuple(files[path] for path, _ in archive.parts), index)
        folder = f"{spelled(archive.folder)}/" if archive.folder else ""
        inside = {name: target for name, target in wanted.items() if name.startswith(folder)}
        held = _may_hold(stream, inside)
        here = {name for name, content in held.items() if _is_here(inside[name], content)}
        present |= here
        if held.keys() - here:
            streams.append(stream)
            perhaps |= held.keys() - here
    targets = {name: wanted[name] for name in sorted(perhaps - present)}
    return TarPlan(tuple(streams) if targets else (), targets), present


def fetch_tars(
    plan: TarPlan, place: Place, tell: Callable[[str, int], None]
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
    lost = ""
    read = 0
    for stream in plan.streams:
        if not left:
            break
        name, before = stream.archive.name, read

        def tick(arrived: int, name: str = name) -> None:
            nonlocal read
            read += arrived
            tell(name, read)

        try:
            found = _read_stream(stream, left, place, tick)
        except HubAuthError:
            raise
        except (HubError, SourceError) as error:
            lost = f"{name}: {error.message}"
            continue
        finally:
            read = before + stream.archive.bytes
        clips |= found
        left = {inside: target for inside, target in left.items() if inside not in found}
    if lost:
        return clips | dict.fromkeys(left, lost), []
    return clips, list(left)


def _known_members(stream: Stream) -> dict[str, tuple[int, int]] | None:
    """Name -> (size, CRC-32) of every member; None: the archive was not read before."""
    try:
        held = orjson.loads(stream.index.read_bytes())
        return {str(name): (int(size), int(crc)) for name, size, crc in held}
    except (OSError, ValueError, TypeError):
        return None


def _may_hold(stream: Stream, wanted: Mapping[str, Path]) -> dict[str, tuple[int, int] | None]:
    """The wanted paths that an archive holds or may hold.

    Args:
        stream: the archive.
        wanted: path, as `spelled` writes it -> where it goes.

    Returns:
        Path -> (size, CRC-32); None for every path if the archive was not read before.
    """
    known = _known_members(stream)
    if known is None:
        return dict.fromkeys(wanted)
    out: dict[str, tuple[int, int] | None] = {}
    for name, content in known.items():
        out |= {path: content for path in names_of(stream.archive, name) if path in wanted}
    return out


def _is_here(target: Path, content: tuple[int, int] | None) -> bool:
    """Whether a file has the size and CRC-32 of the archive's member."""
    if content is None or not target.is_file() or target.stat().st_size != content[0]:
        return False
    return crc_of(target) == content[1]


def _read_stream(
    stream: Stream, wanted: Mapping[str, Path], place: Place, tick: Callable[[int], None]
) -> dict[str, str]:
    """Write the wanted members of one archive; they get their names after the whole archive was checked.

    Returns:
        Name of each clip in it -> what went wrong, or empty.

    Raises:
        HubError: the archive cannot be read, or the disk is full.
        SourceError: no tar archive, a damaged or hostile one, or not the one that the Hub lists.
    """
    keeper = _Keeper(stream.archive, wanted)
    try:
        chunks = _checked(stream, place, tick)
        read_tar(chunks, stream.archive.name, keeper.take, packed=stream.archive.is_packed)
        keeper.name()
    finally:
        keeper.clear()
    _remember(stream, keeper.members)
    return keeper.faults | dict.fromkeys(keeper.parts, "")


def _remember(stream: Stream, members: list[tuple[str, int, int]]) -> None:
    part = stream.index.with_suffix(f".{os.getpid()}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(orjson.dumps(members))
    part.replace(stream.index)


def _checked(stream: Stream, place: Place, tick: Callable[[int], None]) -> Iterator[bytes]:
    """The bytes of all parts; at the end of each part its digest is checked.

    Raises:
        SourceError: a digest is not the one that the Hub lists.
    """
    for (path, size), listed in zip(stream.archive.parts, stream.files, strict=True):
        found = hashlib.sha256() if listed.sha256 else hashlib.sha1(usedforsecurity=False)
        if not listed.sha256:
            found.update(b"blob %d\0" % size)
        for chunk in RangeFile(place.hub, place.repo, path, revision=place.commit, size=size).stream(0, size):
            found.update(chunk)
            tick(len(chunk))
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
        part = self.parts.pop(path, None)
        if part is not None:
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
