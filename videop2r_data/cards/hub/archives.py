"""Archives of a repository: which may hold a clip, and zip members read through byte ranges."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath
from struct import Struct
from typing import Protocol

import orjson

from videop2r_data.cards.hub.client import Hub, JoinedFile, RangeFile
from videop2r_data.cards.hub.plan import RemoteFile
from videop2r_data.errors import SourceError
from videop2r_data.schemas import safe_relative_path

# PKWARE's APPNOTE 6.3: sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 8.5.
STORED, DEFLATED = 0, 8
_END = Struct("<4s4H2LH")
_END64_AT = Struct("<4sLQL")
_END64 = Struct("<4sQ2H2L4Q")
_ENTRY = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_HEAD = Struct("<2H")
_TAIL = _END.size + 0xFFFF + _END64_AT.size + _END64.size
_MAX_DIRECTORY = 2 * 2**30
_ENCRYPTED, _UTF8, _FULL16, _FULL32 = 0x1, 0x800, 0xFFFF, 0xFFFFFFFF
_UNIX, _DESCRIPTOR = 3, 24
"""Bytes that may follow the data."""
_PIECE = 1 << 20


class Ranged(Protocol):
    """A file of known size that is read by ranges."""

    @property
    def where(self) -> str:
        """Its name, for errors."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def starts(self) -> Sequence[int]:
        """Where each of its parts begins; `(0,)` for a single file."""

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, not included."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: as written there; check it before it becomes a path.
        start: byte of its local header.
        end: byte before which the next header begins: header and data lie in `start:end`.
        method: 0 stored, 8 deflated; others cannot be read here.
        packed, size: bytes in the archive and unpacked.
        crc: CRC-32 of the unpacked bytes.
        refused: why it cannot be read, or empty.
    """

    name: str
    start: int
    end: int
    method: int
    packed: int
    size: int
    crc: int
    refused: str = ""


def read_directory(archive: Ranged) -> list[Member]:
    """Members in the order of their data; folders are left out.

    Raises:
        SourceError: not a zip archive, a damaged one, or one of whose parts some are missing.
    """
    tail_at = max(0, archive.size - _TAIL)
    tail = archive.read(tail_at, archive.size)
    at = _find_end(tail)
    if at is None:
        raise SourceError("not a zip archive: no end record", where=archive.where)
    place = _directory_place(archive, tail, tail_at, at)
    begin, size = place.begin, place.size
    if size > _MAX_DIRECTORY or begin < 0 or begin + size > archive.size:
        raise SourceError(f"a directory of {size:,} bytes at {begin:,} cannot be", where=archive.where)
    before = archive.read(begin, min(begin + size, tail_at)) if begin < tail_at else b""
    table = before + tail[max(0, begin - tail_at) :][: size - len(before)]
    found = sorted(_entries(table, place, archive), key=lambda member: member.start)
    ends = [*(member.start for member in found[1:]), begin]
    return [
        _bounded(member, end)
        for member, end in zip(found, ends, strict=False)
        if not member.name.endswith("/")
    ]


def unpack(member: Member, chunks: Iterable[bytes], where: str) -> Iterator[bytes]:
    """The unpacked bytes of a member, checked.

    Args:
        member: one that is not `refused`.
        chunks: the archive's bytes from `member.start` on, in pieces of any size; more than needed is fine.
        where: the archive's name, for errors.

    Raises:
        SourceError: its header is another's, it ends early, is longer than announced, or its CRC differs.
            What was yielded before is then to be thrown away.
    """
    here = f"{where}: {member.name}"
    body = _body(member, chunks, here)
    crc = done = 0
    try:
        for data in _inflated(body) if member.method == DEFLATED else body:
            crc, done = zlib.crc32(data, crc), done + len(data)
            if done > member.size:
                raise SourceError(f"more than the {member.size:,} bytes that it announces", where=here)
            yield data
    except zlib.error as error:
        raise SourceError(f"damaged: {error}", where=here) from None
    if done != member.size or crc != member.crc:
        said = f"{member.size:,} with {member.crc:08x}"
        raise SourceError(f"{done:,} bytes with CRC {crc:08x}, the archive says {said}", where=here)


def _inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpacked in pieces of a bounded size, so that a bomb is noticed before it fills the memory."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    for chunk in chunks:
        left = chunk
        while not inflate.eof:
            data = inflate.decompress(left, _PIECE)
            left = inflate.unconsumed_tail
            if data:
                yield data
            if not left and len(data) < _PIECE:
                break


def _body(member: Member, chunks: Iterable[bytes], here: str) -> Iterator[bytes]:
    """The packed bytes, behind the local header."""
    head, skip, left = b"", -1, member.packed
    for piece in chunks:
        chunk = piece
        if skip < 0:
            head += chunk
            if len(head) < _LOCAL.size:
                continue
            signature, _, flags, *_, name, extra = _LOCAL.unpack_from(head)
            if signature != b"PK\x03\x04":
                raise SourceError("its header is not where the directory says", where=here)
            if len(head) < _LOCAL.size + name:
                continue
            if _text(head[_LOCAL.size :][:name], flags) != member.name:
                raise SourceError("its header has another name than the directory", where=here)
            skip, chunk, head = _LOCAL.size + name + extra, head, b""
        jump = min(skip, len(chunk))
        skip -= jump
        take = chunk[jump : jump + left]
        left -= len(take)
        if take:
            yield take
        if not left and not skip:
            return
    if left or skip:
        raise SourceError("it ends early", where=here)


def _find_end(tail: bytes) -> int | None:
    """Where the end record begins: the last one whose comment ends with the file."""
    at = len(tail)
    while (at := tail.rfind(b"PK\x05\x06", 0, at)) >= 0:
        if len(tail) - at >= _END.size and at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
    return None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the directory begins, its bytes and entries, and by how much every offset in it is short."""

    begin: int
    size: int
    count: int
    shift: int


def _directory_place(archive: Ranged, tail: bytes, tail_at: int, at: int) -> _Place:
    _, disk, first_disk, _, count, size, offset, _ = _END.unpack_from(tail, at)
    ends_at, locator = tail_at + at, at - _END64_AT.size
    if locator >= 0 and tail[locator : locator + 4] == b"PK\x06\x07":
        _, end_disk, end_offset, disks = _END64_AT.unpack_from(tail, locator)
        ends_at = tail_at + locator - _END64.size
        if tail[max(0, locator - _END64.size) :][:4] != b"PK\x06\x06":
            ends_at = _absolute(archive, end_disk, end_offset)
        record = archive.read(ends_at, min(ends_at + _END64.size, archive.size))
        if len(record) < _END64.size or record[:4] != b"PK\x06\x06":
            raise SourceError("its zip64 end record is damaged", where=archive.where)
        _, _, _, _, disk, first_disk, _, count, size, offset = _END64.unpack_from(record)
        disk = max(disk, disks - 1)
    if disk:
        if disk >= len(archive.starts):
            parts = f"a split archive of {disk + 1} parts, {len(archive.starts)} of them here"
            raise SourceError(parts, where=archive.where)
        return _Place(_absolute(archive, first_disk, offset), size, count, 0)
    begin = ends_at - size  # counted from the end: something may stand before the archive
    return _Place(begin, size, count, begin - offset)


def _absolute(archive: Ranged, disk: int, offset: int) -> int:
    if disk >= len(archive.starts):
        raise SourceError(f"part {disk + 1} of a split archive is missing", where=archive.where)
    return archive.starts[disk] + int(offset)


def _entries(table: bytes, place: _Place, archive: Ranged) -> Iterator[Member]:
    """The entries as they stand there; their `end` is not known yet."""
    at = 0
    split = len(archive.starts) > 1
    for _ in range(place.count):
        if at + _ENTRY.size > len(table) or table[at : at + 4] != b"PK\x01\x02":
            raise SourceError("its directory is damaged or cut", where=archive.where)
        fields = _ENTRY.unpack_from(table, at)
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        name_bytes, extra_bytes, comment_bytes, disk, _, mode, start = fields[10:]
        at += _ENTRY.size
        raw, extra = table[at : at + name_bytes], table[at + name_bytes :][:extra_bytes]
        at += name_bytes + extra_bytes + comment_bytes
        size, packed, start, disk = _wide(extra, size, packed, start, disk)
        start = _absolute(archive, disk, start) if split else start + place.shift
        link = fields[1] >> 8 == _UNIX and stat.S_ISLNK(mode >> 16)
        refused = "encrypted" if flags & _ENCRYPTED else "a symbolic link" if link else ""
        if not refused and method not in (STORED, DEFLATED):
            refused = f"compression method {method}, only stored and deflate can be read"
        if not refused and method == STORED and packed != size:
            refused = "stored with two sizes"
        yield Member(_text(raw, flags), start, -1, method, packed, size, crc, refused)


def _text(raw: bytes, flags: int) -> str:
    """A name; macOS writes UTF-8 without the flag that says so, and hardly any other bytes are UTF-8."""
    if flags & _UTF8:
        return raw.decode("utf-8", "replace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437", "replace")


def _wide(extra: bytes, size: int, packed: int, start: int, disk: int) -> tuple[int, int, int, int]:
    """Values of more than 32 bits stand in the zip64 field, only those and in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = (
            int.from_bytes(extra[at : at + 2], "little"),
            int.from_bytes(extra[at + 2 : at + 4], "little"),
        )
        field, at = extra[at + 4 : at + 4 + length], at + 4 + length
        if kind == 1:
            values = [size, packed, start]
            for i, value in enumerate(values):
                if value == _FULL32 and len(field) >= 8:
                    values[i], field = int.from_bytes(field[:8], "little"), field[8:]
            if disk == _FULL16 and len(field) >= 4:
                disk = int.from_bytes(field[:4], "little")
            return values[0], values[1], values[2], disk
    return size, packed, start, disk


def _bounded(member: Member, end: int) -> Member:
    """With an `end` that is never far beyond what header and data can take."""
    most = member.start + _LOCAL.size + 2 * _FULL16 + member.packed + _DESCRIPTOR
    short = end < member.start + _LOCAL.size + member.packed
    refused = member.refused or ("overlaps the next member" if short else "")
    return replace(member, end=min(end, most), refused=refused)


_CUT = re.compile(r"(?P<stem>.+\.(?:zip|tar|tar\.gz|tgz))\.(?:part[-_.]?)?(?P<part>\d{2,4}|[a-z]{2,3})")
"""A file cut into pieces: `x.zip.001`, `x.tar.gz.part-aa`, `x.zip.aa`."""
_TARS = (".tar", ".tar.gz", ".tgz")
_SUFFIX = re.compile(r"\.(?:zip|tar|tar\.gz|tgz)\Z")
_SPLIT = re.compile(r"(?P<stem>.+)\.z(?P<part>\d{2,3})")
"""A split archive: `x.z01`, `x.z02`, ..., `x.zip`."""
WORKERS = 8
_FORMAT = 2
TWICE = "two members of one name"


@dataclass(frozen=True)
class Archive:
    """One archive of a repository: zip, tar, or tar under gzip.

    Attributes:
        name: path of it, or of the archive that its parts make up.
        folder: where it lies, empty: at the root. Members are relative to it, or to the root.
        parts: (path, bytes) in order.
        key: changes whenever a byte of it does.
    """

    name: str
    folder: str
    parts: tuple[tuple[str, int], ...]
    key: str

    @property
    def bytes(self) -> int:
        """Of all its parts."""
        return sum(size for _, size in self.parts)

    @property
    def is_tar(self) -> bool:
        """Without a directory: to be read as a whole."""
        return self.name.endswith(_TARS)

    @property
    def is_packed(self) -> bool:
        """A tar archive under gzip."""
        return self.name.endswith((".gz", ".tgz"))

    def open(self, hub: Hub, repo: str, revision: str) -> JoinedFile:
        """For reading by ranges."""
        return JoinedFile(
            self.name, [RangeFile(hub, repo, path, revision=revision, size=size) for path, size in self.parts]
        )


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
        parts=tuple((path, files[path].bytes) for path in paths),
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


def locate(archive: Archive, members: Iterable[Member], wanted: Collection[str]) -> dict[str, Member]:
    """Which of the wanted paths are in an archive; one that two members are called is refused.

    Args:
        archive: which.
        members: what is in it.
        wanted: as `spelled` writes them.
    """
    held = [(names, member) for member in members if (names := names_of(archive, member.name))]
    times = Counter(names[0] for names, _ in held)
    likely: dict[str, Member] = {}
    possible: dict[str, Member] = {}
    for (first, *others), member in held:
        found = replace(member, refused=TWICE) if times[first] > 1 else member
        if first in wanted:
            likely[first] = found
        for name in others:
            if name in wanted:
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


def directories(
    archives: Iterable[Archive], hub: Hub, repo: str, revision: str, cache: Path
) -> list[Directory]:
    """The members of each archive; a damaged archive is told, and costs only itself.

    Args:
        archives: which.
        hub, repo, revision: where; the revision is a commit.
        cache: folder in which directories are kept: they are read once for all pulls.

    Raises:
        HubError: one cannot be fetched.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(lambda archive: _directory(archive, hub, repo, revision, cache), archives))


def _directory(archive: Archive, hub: Hub, repo: str, revision: str, cache: Path) -> Directory:
    path = cache / f"{archive.key}.json"
    try:
        return Directory(archive, [Member(*fields) for fields in orjson.loads(path.read_bytes())])
    except (OSError, ValueError, TypeError):
        pass  # not there, or not whole: read it anew
    opened = archive.open(hub, repo, revision)
    try:
        members = read_directory(opened)
    except SourceError as error:
        return Directory(archive, [], opened.fetched, error.message)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(orjson.dumps([astuple(member) for member in members]))
    part.replace(path)
    return Directory(archive, members, opened.fetched)
