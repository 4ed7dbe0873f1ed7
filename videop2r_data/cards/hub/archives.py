"""Archives of a repository: which may hold a clip, and zip members read through byte ranges."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath
from struct import Struct
from typing import IO, Any, TypeVar, cast

import orjson

from videop2r_data.cards.hub.client import JoinedFile, Place, RangeFile
from videop2r_data.cards.hub.plan import RemoteFile
from videop2r_data.errors import SourceError
from videop2r_data.schemas import safe_relative_path

_END, _MANY = Struct("<4s4H2LH"), 0xFFFF
"""The end record (PKWARE's APPNOTE 4.3.16); a field of 0xFFFF stands for a number in the zip64 record."""
_TAIL = _END.size + 0xFFFF + 76
"""Bytes that end records and comment take at most."""
_MAX_DIRECTORY = 2 * 2**30
_HEADER, _UTF8, _ENCRYPTED, _UNIX = 30, 0x800, 0x1, 3
_PIECE = 1 << 20


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a zip archive.

    Attributes:
        name: as written there; check it before it becomes a path.
        header: the name as `zipfile` decodes it, to be held against the member's own header.
        start: byte of its header.
        end: byte before which the next header begins: header and data lie in `start:end`.
        method: 0 stored, 8 deflated; others cannot be read here.
        packed, size: bytes in the archive and unpacked.
        crc: CRC-32 of the unpacked bytes.
        refused: why it cannot be read, or empty.
    """

    name: str
    header: str
    start: int
    end: int
    method: int
    packed: int
    size: int
    crc: int
    refused: str = ""


class _OnePart(io.RawIOBase):
    """An archive as a seekable file that `zipfile` can read: one part, no comment.

    `zipfile` refuses zip64 archives in several parts, and takes `PK\\5\\6` in a comment for an end record.
    So the end of the archive is read ahead, with one request, and changed in memory.
    """

    def __init__(self, archive: JoinedFile) -> None:
        self._archive, self._at = archive, 0
        self._tail_at = max(0, archive.size - _TAIL)
        tail = bytearray(archive.read(self._tail_at, archive.size))
        end = max(0, len(tail) - _END.size + 4)
        while (end := tail.rfind(b"PK\5\6", 0, end)) >= 0:
            if end + _END.size + _END.unpack_from(tail, end)[-1] == len(tail):
                break  # its comment ends with the file
        else:
            raise SourceError("not a zip archive: no end record", where=archive.where)
        _, disk, _, _, self.count, *_ = _END.unpack_from(tail, end)
        self.parts = 1 + disk % _MANY
        if end >= 20 and tail.startswith(b"PK\6\7", end - 20):  # zip64: the part of a record, and all parts
            self.parts = max(self.parts, int.from_bytes(tail[end - 4 : end], "little"))
            tail[end - 16 : end - 12], tail[end - 4 : end] = bytes(4), b"\1\0\0\0"
        self._tail = bytes(tail[: end + _END.size - 2]) + bytes(2)
        self._size = self._tail_at + len(self._tail)

    def seekable(self) -> bool:
        """It is: zipfile seeks for the directory."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset of the archive."""
        self._at = offset + (0, self._at, self._size)[whence]
        if self._at < 0:
            raise OSError("before the first byte")
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Bytes from here on: of the tail at hand, or fetched."""
        start, tail_at = self._at, self._tail_at
        end = self._size if size is None or size < 0 else min(start + size, self._size)
        if end - start > _MAX_DIRECTORY:
            raise SourceError(f"a directory of {end - start:,} bytes cannot be", where=self._archive.where)
        self._at = max(start, end)
        before = self._archive.read(start, min(end, tail_at)) if start < tail_at else b""
        return before + self._tail[max(0, start - tail_at) : max(0, end - tail_at)]


class ForwardFile(io.RawIOBase):
    """Chunks that arrive in order, as a file that only moves forward.

    Args:
        chunks: the bytes.
        at: offset of the first of them in the file that they come from.
    """

    def __init__(self, chunks: Iterable[bytes], at: int) -> None:
        self._chunks, self._rest, self._at = iter(chunks), memoryview(b""), at

    def seekable(self) -> bool:
        """Forward only; `zipfile` asks."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Skip to an offset."""
        to = offset + (self._at if whence else 0)
        while self._at < to and self.read(min(_PIECE, to - self._at)):
            pass
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as asked for; fewer only at the end."""
        taken, left = [], _PIECE if size is None or size < 0 else size
        while left and (rest := self._rest or memoryview(next(self._chunks, b""))):
            taken.append(rest[:left])
            self._rest = rest[left:]
            left -= len(taken[-1])
        data = b"".join(taken)
        self._at += len(data)
        return data


def read_directory(archive: JoinedFile) -> list[Member]:
    """Members in the order of their data; folders are left out.

    Raises:
        SourceError: not a zip archive, a damaged one, or one of whose parts some are missing.
    """
    file = _OnePart(archive)
    try:
        with zipfile.ZipFile(file) as opened:
            infos, directory = opened.infolist(), opened.start_dir
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise SourceError(f"its directory is damaged or cut: {error}", where=archive.where) from None
    if file.count not in {len(infos) & _MANY, _MANY}:
        told = f"it announces {file.count:,} entries and has {len(infos):,}"
        raise SourceError(f"its directory is damaged or cut: {told}", where=archive.where)
    starts = _starts(archive, file.parts, infos, directory)
    found = sorted(zip(starts, infos, strict=True), key=lambda pair: pair[0])
    ends = [*(start for start, _ in found[1:]), directory]
    return [
        _member(info, start, end)
        for (start, info), end in zip(found, ends, strict=False)
        if not info.orig_filename.endswith("/")
    ]


def _starts(archive: JoinedFile, parts: int, infos: Sequence[zipfile.ZipInfo], directory: int) -> list[int]:
    """Where each header begins; in a split archive an offset counts from the part that `volume` names."""
    if parts == 1:
        return [info.header_offset for info in infos]
    if max(parts, *(1 + info.volume for info in infos), 1) > len(archive.starts):
        told = f"a split archive of {parts} parts, {len(archive.starts)} of them here"
        raise SourceError(told, where=archive.where)
    # `zipfile` takes the directory's offset for one in the whole file and shifts all others by the difference
    moved = archive.starts[bisect_right(archive.starts, directory) - 1]
    return [archive.starts[info.volume] + info.header_offset - moved for info in infos]


def _member(info: zipfile.ZipInfo, start: int, end: int) -> Member:
    """One entry as a `Member`: why it cannot be read, and an `end` that bounds the bytes to fetch."""
    link = info.create_system == _UNIX and stat.S_ISLNK(info.external_attr >> 16)
    refused = "encrypted" if info.flag_bits & _ENCRYPTED else "a symbolic link" if link else ""
    if not refused and info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        refused = f"compression method {info.compress_type}, only stored and deflate can be read"
    if not refused and info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        refused = "stored with two sizes"
    if not refused and end < start + _HEADER + info.compress_size:
        refused = "overlaps the next member"
    most = start + _HEADER + 2 * 0xFFFF + info.compress_size + 24  # a name, an extra field, a data descriptor
    numbers = info.compress_type, info.compress_size, info.file_size, info.CRC
    name = info.orig_filename
    if not info.flag_bits & _UTF8:  # macOS writes UTF-8 without this flag
        with suppress(UnicodeDecodeError):
            name = name.encode("cp437").decode("utf-8")
    return Member(name, info.orig_filename, start, min(end, most), *numbers, refused)


def unpack(member: Member, file: ForwardFile, where: str) -> Iterator[bytes]:
    """The unpacked bytes of a member, checked, in pieces of a bounded size.

    Args:
        member: one that is not `refused`.
        file: the archive from a byte at or before `member.start` on.
        where: the archive's name, for errors.

    Raises:
        SourceError: another header, an early end, another size or CRC than announced. Bytes that were yielded
            before are then void.
    """
    here = f"{where}: {member.name}"
    info = zipfile.ZipInfo(member.name)
    info.orig_filename, info.header_offset, info.CRC = member.header, member.start, member.crc
    info.compress_type, info.compress_size, info.file_size = member.method, member.packed, member.size
    done = 0
    try:
        # an empty archive for its `open`: the directory was read when the clips were planned
        with zipfile.ZipFile(io.BytesIO(_NO_MEMBERS)) as archive:
            archive.fp = cast(IO[bytes], file)
            with archive.open(info) as opened:
                while data := opened.read(_PIECE):
                    done += len(data)
                    yield data
    except EOFError:
        raise SourceError("it ends early", where=here) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, zlib.error) as error:
        raise SourceError(f"damaged: {error}", where=here) from None
    if done != member.size:  # `zipfile` never gives more than announced, but may give less
        raise SourceError(f"{done:,} bytes, the archive says {member.size:,}", where=here)


_NO_MEMBERS = b"PK\5\6" + bytes(18)
"""The smallest zip archive."""

_CUT = re.compile(r"(?P<stem>.+\.(?:zip|tar|tar\.gz|tgz))\.(?:part[-_.]?)?(?P<part>\d{2,4}|[a-z]{2,3})")
"""A file cut into pieces: `x.zip.001`, `x.tar.gz.part-aa`, `x.zip.aa`."""
_TARS = (".tar", ".tar.gz", ".tgz")
_SUFFIX = re.compile(r"\.(?:zip|tar|tar\.gz|tgz)\Z")
_SPLIT = re.compile(r"(?P<stem>.+)\.z(?P<part>\d{2,3})")
"""A split archive: `x.z01`, `x.z02`, ..., `x.zip`."""
WORKERS = 8
_FORMAT = 3
TWICE = "two members of one name"


@dataclass(frozen=True)
class Archive:
    """One archive of a repository: zip, tar, or tar under gzip.

    Attributes:
        name: path of it, or of the archive that its parts make up.
        folder: where it lies, empty: at the root. Members are relative to it, or to the root.
        parts: (path, file as the Hub lists it) in order.
        key: changes whenever a byte of it does.
    """

    name: str
    folder: str
    parts: tuple[tuple[str, RemoteFile], ...]
    key: str

    @property
    def bytes(self) -> int:
        """Of all its parts."""
        return sum(file.bytes for _, file in self.parts)

    @property
    def is_tar(self) -> bool:
        """Without a directory: to be read as a whole."""
        return self.name.endswith(_TARS)

    @property
    def is_packed(self) -> bool:
        """A tar archive under gzip."""
        return self.name.endswith((".gz", ".tgz"))

    def open(self, place: Place) -> JoinedFile:
        """For reading by ranges."""
        return JoinedFile(self.name, [RangeFile(place, path, file.bytes) for path, file in self.parts])

    def index(self, cache: Path) -> Path:
        """Where its members are kept once they are known."""
        return cache / f"{self.key}.json"


def find_archives(files: Mapping[str, RemoteFile]) -> list[Archive]:
    """The archives of a repository, pieces and parts put together, by path.

    Archives that are called `x_part1.zip`, `x_part2.zip` stand each for themselves.

    >>> names = ("a/x.zip.002", "a/x.zip.001", "b/y.zip", "b/y.z01")
    >>> files = {name: RemoteFile(bytes=9, oid="0") for name in names}
    >>> [(a.name, a.folder, [path for path, _ in a.parts]) for a in find_archives(files)]
    [('a/x.zip', 'a', ['a/x.zip.001', 'a/x.zip.002']), ('b/y.zip', 'b', ['b/y.z01', 'b/y.zip'])]
    """
    groups: dict[tuple[str, bool], list[tuple[tuple[int, str], str]]] = {}
    for path in files:
        cut = _CUT.fullmatch(path)
        if cut and not path.endswith(_TARS):
            groups.setdefault((cut["stem"], True), []).append(((len(cut["part"]), cut["part"]), path))
        elif split := _SPLIT.fullmatch(path):
            groups.setdefault((f"{split['stem']}.zip", False), []).append(((0, split["part"].zfill(3)), path))
        elif path.endswith((".zip", *_TARS)):
            groups.setdefault((path, False), []).append(((9, ""), path))
    return [
        _archive(name, [path for _, path in sorted(parts)], files)
        for (name, _), parts in sorted(groups.items())
    ]


def _archive(name: str, paths: list[str], files: Mapping[str, RemoteFile]) -> Archive:
    known = [[files[path].sha256 or files[path].oid, files[path].bytes] for path in paths]
    folder = PurePosixPath(name).parent.as_posix()
    return Archive(
        name=name,
        folder="" if folder == "." else folder,
        parts=tuple((path, files[path]) for path in paths),
        key=hashlib.sha256(orjson.dumps([_FORMAT, known])).hexdigest(),
    )


def relevant(archives: Iterable[Archive], paths: Collection[str]) -> list[Archive]:
    """Archives in a folder that one of the paths leads through, those in the deepest folders first."""
    folders = {folder.as_posix() for path in paths for folder in PurePosixPath(path).parents}
    found = [archive for archive in archives if (spelled(archive.folder) or ".") in folders]
    return sorted(
        found, key=lambda archive: (-archive.folder.count("/") if archive.folder else 1, archive.name)
    )


def spelled(name: str) -> str:
    """A name as all systems would spell it: composed letters, forward slashes.

    macOS writes letters and accents apart, some tools of Windows write backslashes.

    >>> spelled("cafe\u0301\\\\1.mp4") == "caf\u00e9/1.mp4"
    True
    """
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def names_of(archive: Archive, member: str) -> tuple[str, ...]:
    """The paths that a member may stand for, the likeliest first; none if its name is hostile.

    Archives are meant to be unpacked where they lie. Some repeat their folder inside, some are flat and named
    after the folder that is missing.

    >>> names_of(Archive("A/x.zip", "A", (), ""), "clips/1.mp4")
    ('A/clips/1.mp4', 'A/x/clips/1.mp4')
    >>> names_of(Archive("A/x.zip", "A", (), ""), "A/1.mp4")
    ('A/A/1.mp4', 'A/x/A/1.mp4', 'A/1.mp4')
    >>> names_of(Archive("A/x.zip", "A", (), ""), "../../etc/passwd")
    ()
    """
    try:
        inside = safe_relative_path(spelled(member))
    except ValueError:
        return ()
    folder = f"{spelled(archive.folder)}/" if archive.folder else ""
    stem = spelled(_SUFFIX.sub("", PurePosixPath(archive.name).name))
    names = [f"{folder}{inside}", f"{folder}{stem}/{inside}"]
    parts = folder.rstrip("/").split("/") if folder else []
    for depth in range(len(parts)):
        if inside.startswith("/".join(parts[depth:]) + "/"):
            names.append("/".join([*parts[:depth], inside]))
    return tuple(names)


def locate(archive: Archive, members: Iterable[Member], wanted: set[str]) -> dict[str, Member]:
    """Which of the wanted paths, as `spelled` writes them, are in an archive.

    A path that two members are called is refused.
    """
    held = [(names, member) for member in members if (names := names_of(archive, member.name))]
    times = Counter(names[0] for names, _ in held)
    likely: dict[str, Member] = {}
    possible: dict[str, Member] = {}
    for (first, *others), member in held:
        found = replace(member, refused=TWICE) if times[first] > 1 else member
        if first in wanted:
            likely[first] = found
        for name in wanted.intersection(others):
            possible.setdefault(name, found)
    return possible | likely


def single_file(path: str, file: RemoteFile) -> Archive:
    """A file of the repository that is a clip itself."""
    return _archive(path, [path], {path: file})


@dataclass(frozen=True)
class Directory:
    """What is in an archive.

    Attributes:
        archive: which.
        members: in the order of their data.
        fetched: bytes that were read to know it; 0 when it was known.
        fault: why it cannot be read, or empty.
    """

    archive: Archive
    members: list[Member]
    fetched: int = 0
    fault: str = ""


def directories(archives: Iterable[Archive], place: Place, cache: Path) -> list[Directory]:
    """The members of each archive; a damaged archive is told, and costs only itself.

    Args:
        archives: which.
        place: where they are.
        cache: folder in which directories are kept: they are read once for all pulls.

    Raises:
        HubError: one cannot be fetched.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda archive: _directory(archive, place, cache), archives))


def _directory(archive: Archive, place: Place, cache: Path) -> Directory:
    known = recalled(archive.index(cache), Member)
    if known is not None:
        return Directory(archive, known)
    opened = archive.open(place)
    try:
        members = read_directory(opened)
    except SourceError as error:
        return Directory(archive, [], opened.fetched, error.message)
    remember(archive.index(cache), map(astuple, members))
    return Directory(archive, members, opened.fetched)


def recalled(index: Path, make: Callable[..., T]) -> list[T] | None:
    """The members that `remember` kept, each made of its fields; None: not there, or not whole."""
    try:
        return [make(*fields) for fields in orjson.loads(index.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None


def remember(index: Path, members: Iterable[tuple[Any, ...]]) -> None:
    """Keep the fields of an archive's members for later plans."""
    part = index.with_suffix(f".{os.getpid()}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(orjson.dumps(list(members)))
    part.replace(index)
