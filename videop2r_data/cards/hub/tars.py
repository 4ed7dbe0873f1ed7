"""Clips out of tar archives: an archive is read once from end to end, wanted members are kept."""

from __future__ import annotations

import hashlib
import io
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

from videop2r_data.cards.hub.archives import TWICE, Archive, names_of, spelled
from videop2r_data.cards.hub.client import Hub, RangeFile
from videop2r_data.cards.hub.plan import RemoteFile, crc_of
from videop2r_data.errors import HubAuthError, HubError, SourceError

# Tar archives, plain or gzip, read once from end to end: they have no directory to look a member up in.


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


# Clips out of tar archives: the archive is read once as a whole, and what is wanted is kept on the way.


SPARE = 1 << 28
"""Bytes of disk that stay free."""


@dataclass(frozen=True)
class Stream:
    """One archive to be read from end to end.

    Attributes:
        archive: which.
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
    """The archives to read, and what may be in them.

    Attributes:
        streams: in the order in which they are read.
        targets: name in the repository, as `spelled` writes it -> where it goes.
    """

    streams: tuple[Stream, ...] = ()
    targets: Mapping[str, Path] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all the archives, packed as they are."""
        return sum(stream.archive.bytes for stream in self.streams)


def plan_tars(
    archives: Iterable[Archive], files: Mapping[str, RemoteFile], wanted: Mapping[str, Path], cache: Path
) -> tuple[TarPlan, set[str]]:
    """Which tar archives have to be read for some clips.

    Args:
        archives: those that may hold one, the likeliest first.
        files: of the repository.
        wanted: name, as `spelled` writes it -> where it goes.
        cache: folder of the lists of members of archives that were read before.

    Returns:
        The plan, and the names of clips that are here already, whole.
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
    """Read the archives one after the other, as long as something may be in them.

    Args:
        plan: of `plan_tars`.
        place: where they lie.
        tell: is told of progress: which archive, bytes of all archives so far.

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
    """Name -> size and CRC-32 of every member, if this archive was read before; None: it was not."""
    try:
        held = orjson.loads(stream.index.read_bytes())
        return {str(name): (int(size), int(crc)) for name, size, crc in held}
    except (OSError, ValueError, TypeError):
        return None


def _may_hold(stream: Stream, wanted: Mapping[str, Path]) -> dict[str, tuple[int, int] | None]:
    """Which of the wanted paths an archive holds, as far as that is known.

    Args:
        stream: which.
        wanted: path, as `spelled` writes it -> where it goes.

    Returns:
        Path -> size and CRC-32; None: the archive was never read, so nobody knows.
    """
    known = _known_members(stream)
    if known is None:
        return dict.fromkeys(wanted)
    out: dict[str, tuple[int, int] | None] = {}
    for name, content in known.items():
        out |= {path: content for path in names_of(stream.archive, name) if path in wanted}
    return out


def _is_here(target: Path, content: tuple[int, int] | None) -> bool:
    """Whether a clip lies there whole, as far as its archive is known."""
    if content is None or not target.is_file() or target.stat().st_size != content[0]:
        return False
    return crc_of(target) == content[1]


def _read_stream(
    stream: Stream, wanted: Mapping[str, Path], place: Place, tick: Callable[[int], None]
) -> dict[str, str]:
    """Keep what is wanted of one archive; nothing gets its name before the whole of it was checked.

    Returns:
        Name of each clip that it holds -> what went wrong, or empty.

    Raises:
        HubError: it cannot be had, or the disk is full.
        SourceError: it is no tar archive, a damaged or a hostile one, or not the one that the Hub lists.
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
    """The bytes of all parts; each part held against its digest when it ends."""
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
    """Writes wanted members aside, and counts how often each name comes."""

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
        """Give every clip its name: the archive was whole."""
        for path, part in self.parts.items():
            part.replace(self.wanted[path])

    def clear(self) -> None:
        """Remove what did not get a name."""
        for part in self.parts.values():
            part.unlink(missing_ok=True)
