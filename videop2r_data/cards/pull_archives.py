"""Which archives of a repository may hold a clip, and what is in them; a directory is read once and kept."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath

import orjson

from videop2r_data.cards.hub_client import Hub
from videop2r_data.cards.hub_plan import RemoteFile
from videop2r_data.cards.pull_ranges import JoinedFile, RangeFile
from videop2r_data.cards.zip_members import Member, read_directory
from videop2r_data.errors import SourceError
from videop2r_data.schemas import safe_relative_path

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
