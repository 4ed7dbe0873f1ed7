"""Open the files that a source or a release names, and find media under their root."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import orjson

from videop2r_data.errors import ConfigError, MediaError, SourceError
from videop2r_data.files.names import WORKSPACE_NAME, work_folder
from videop2r_data.schemas import MediaLimits, RejectReason, expanded, safe_relative_path

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# --- which files a path means, and how each is opened without trusting it ---

POOL_SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")
FORMATS = {
    ".csv": "table",
    ".tsv": "table",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "columnar",
    ".pq": "columnar",
    ".arrow": "columnar",
}
"""Ending of a file, without `.gz` -> how it is read."""
BOMB_RATIO = 200
"""Unpacked bytes per packed byte that no pool of questions reaches (plain text packs 3 to 20 times)."""
BOMB_FLOOR = 64 << 20
"""Unpacked bytes that are always allowed."""


def locate(path: str, base: Path) -> Path:
    """A path of a recipe: `~` is the home folder, the rest is relative to `base`."""
    return base / expanded(path)


def format_of(path: Path) -> str:
    """How a file is read: `table`, `json`, `columnar`, or "" if its ending is none that is known."""
    return FORMATS.get(Path(path.name.removesuffix(".gz")).suffix.lower(), "")


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
        raise no_such_path(what, place, name=name)
    return found


def no_such_path(what: str, place: Path, *, name: str) -> SourceError:
    """The error for a path of a source that leads to nothing, with the names that come near it."""
    hint = "name the file or folder; in a recipe that is `path` of this source"
    folder = next(parent for parent in [place, *place.parents] if parent.is_dir())
    wanted = place.relative_to(folder).parts
    near = get_close_matches(wanted[0], [p.name for p in folder.iterdir()], n=3) if wanted else []
    if near:
        hint += f"; in {folder} there is {', '.join(near)}"
    return SourceError(what, where=f"source {name!r}, {place}", hint=hint)


def _glob(place: Path) -> Iterator[Path]:
    parts = place.parts
    first = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), None)
    if first is None:
        return
    root = Path(*parts[:first])
    yield from (p for p in root.glob(str(Path(*parts[first:]))) if p.is_file())


def refuse_bomb(unpacked: int, packed: int, where: str, kind: str) -> None:
    """Refuse what unpacks to absurd sizes.

    Raises:
        SourceError: so many bytes out of so few.
    """
    if unpacked > BOMB_FLOOR and unpacked > BOMB_RATIO * max(1, packed):
        raise SourceError(
            f"unpacks to more than {BOMB_RATIO} times its size: a {kind} bomb",
            where=where,
            hint="unpack it by hand if it is what you want, and name the unpacked file",
        )


class _Gunzip(io.RawIOBase):
    """Unpacks a gzip file and refuses a bomb before it has cost anything."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._file = file
        self._where = where
        self._unpacked = gzip.GzipFile(fileobj=file, mode="rb")
        self._given = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with the next bytes."""
        view = memoryview(buffer)
        data = self._unpacked.read(len(view))
        view[: len(data)] = data
        self._given += len(data)
        refuse_bomb(self._given, self._file.tell(), self._where, "gzip")
        return len(data)


class _Recode(io.RawIOBase):
    """A text in UTF-16 or UTF-32 as UTF-8; half a surrogate pair stays one, and costs its row."""

    def __init__(self, file: BinaryIO, encoding: str, where: str) -> None:
        self._file = file
        self._where = where
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._rest = b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer with the next bytes."""
        view = memoryview(buffer)
        while not self._rest:
            data = self._file.read(len(view))
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                name = type(self._decoder).__module__.removeprefix("encodings.").replace("_", "-").upper()
                raise SourceError(
                    f"is no {name}: {error.reason}",
                    where=self._where,
                    hint="it is damaged or cut off: fetch it again, or save it as UTF-8",
                ) from None
            self._rest = text.encode("utf-8", "surrogatepass")
            if not data:
                break
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAVED = "a browser or an error page was saved: download the file itself"
_RENAME = "give the file the ending .{} (in a recipe: kind: dataset)"
_FOREIGN = (
    (b"<!doctype", "a web page (HTML), not rows", _SAVED),
    (b"<html", "a web page (HTML), not rows", _SAVED),
    (b"<?xml", "XML, not rows", "name a file of JSON, CSV or Parquet"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
    (b"pk\x03\x04", "a zip file or an Excel sheet", "save the sheet as CSV, or unpack the archive"),
    (b"%pdf", "a PDF, not rows", "name a file of JSON, CSV or Parquet"),
    (b"par1", "a Parquet file under another name", _RENAME.format("parquet")),
    (b"arrow1", "an Arrow file under another name", _RENAME.format("arrow")),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it, or pack it with gzip"),
    (b"bzh", "packed with bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zxz", "packed with xz", "unpack it, or pack it with gzip"),
)


@contextmanager
def open_pool_file(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file of text for one pass, as bytes of UTF-8.

    What it is, its first bytes say, not its name: gzip is unpacked, UTF-16 and UTF-32 with a byte order mark
    are recoded.

    Raises:
        SourceError: it cannot be opened, is no text (a web page, a sheet, Parquet), or unpacks to absurd
            sizes (while reading).
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
        raw: BinaryIO = cast(BinaryIO, _Gunzip(file, str(path))) if packed else file
        yield _as_utf8(raw, str(path))


def _as_utf8(raw: BinaryIO, where: str) -> io.BufferedReader:
    """The stream, recoded where its mark asks for it.

    Raises:
        SourceError: its first bytes are those of another kind of file.
    """
    buffered = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    try:
        head = buffered.peek(1024)[:1024]
    except (OSError, EOFError, zlib.error):
        return buffered  # whoever reads on gets the error with its place
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return io.BufferedReader(_Recode(buffered, encoding, where))
    start = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for sign, what, hint in _FOREIGN:
        if start.startswith(sign):
            raise SourceError(f"is {what}", where=where, hint=hint)
    if head.count(b"\0") * 4 > len(head):
        raise SourceError(
            "holds NUL bytes: UTF-16 without a byte order mark, or no text at all",
            where=where,
            hint="convert it to UTF-8: iconv -f UTF-16LE -t UTF-8",
        )
    return buffered


# --- where the media of a data set lie, and from a row's path to a file that surely lies there ---


def resolve_media(root: Path, relative: str) -> Path:
    """The file that a row means; never outside `root`, symbolic links followed first.

    The file need not exist: `probe_media` and `sample_media` say so when they open it.

    Args:
        root: media root of the row's source.
        relative: `Sample.path`: POSIX, relative.

    Returns:
        An absolute path with no symbolic link left in it.

    Raises:
        MediaError: reason `unsafe_path` when the path, or what its links lead to, is outside the root.
    """
    try:
        inside = safe_relative_path(relative)
        base = root.resolve()
        target = (base / inside).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise MediaError(str(error), reason=RejectReason.UNSAFE_PATH, where=repr(relative)) from None
    if not target.is_relative_to(base) or target == base:
        raise MediaError(
            f"leads out of the media root {base} (to {target})",
            reason=RejectReason.UNSAFE_PATH,
            where=repr(relative),
        )
    return target


def file_size(path: Path, limits: MediaLimits) -> int:
    """Size in bytes of a regular, non-empty file within the limits.

    Raises:
        MediaError: `media_missing`, `media_unreadable` (not a regular file, no permission), `media_empty`,
            `media_too_large`.
    """
    refused = partial(MediaError, where=str(path))
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise refused("no such file", reason=RejectReason.MEDIA_MISSING) from None
    except (OSError, ValueError) as error:
        raise refused(f"cannot be opened: {error}", reason=RejectReason.MEDIA_UNREADABLE) from None
    if not stat.S_ISREG(info.st_mode):
        # A named pipe or a device would block or never end.
        raise refused("not a regular file", reason=RejectReason.MEDIA_UNREADABLE)
    if info.st_size == 0:
        raise refused("the file has 0 bytes", reason=RejectReason.MEDIA_EMPTY)
    if info.st_size > limits.max_bytes:
        allowed = f"{info.st_size} bytes, limits.max_bytes allows {limits.max_bytes}"
        raise refused(allowed, reason=RejectReason.MEDIA_TOO_LARGE)
    return info.st_size


_FLAG = "name the folder that the rows' `path` is relative to with --media-root (data.media_root)"


@dataclass(frozen=True)
class MediaRoots:
    """Media roots by source name; one root for all when the user named it.

    Attributes:
        where: the data set, for messages.
        one: the user's `media_root`.
        by_source: source name (the part of a `sample_id` before its `/`) -> root.
    """

    where: str
    one: Path | None = None
    by_source: Mapping[str, Path] = field(default_factory=dict)

    def known(self, sample_id: str) -> Path | None:
        """The root of a row's source, if it is known."""
        return self.one or self.by_source.get(sample_id.partition("/")[0])

    def root(self, sample_id: str) -> Path:
        """The root of a row's source.

        Raises:
            ConfigError: none is known.
        """
        found = self.known(sample_id)
        if found is None:
            known = f"known for: {', '.join(sorted(self.by_source))}" if self.by_source else "none is noted"
            raise ConfigError(
                f"no media root for {sample_id!r} ({known})", where=f"{self.where}, field path", hint=_FLAG
            )
        return found


def find_media_roots(source: str, *, base: Path, media_root: str = "") -> MediaRoots:
    """The media roots of a data set: the user's, else those noted in the work folder beside it.

    Args:
        source: the data set: a folder, or anything else, of which nothing is noted.
        base: folder that relative paths start from.
        media_root: as the user named it; empty: not at all.

    Raises:
        ConfigError: `media_root` is no folder.
    """
    if media_root:
        one = locate(media_root, base).absolute()
        if not one.is_dir():
            raise ConfigError("no such folder", where=f"media_root {one}", hint=_FLAG)
        return MediaRoots(source, one)
    folder = locate(source, base)
    if not folder.is_dir():
        return MediaRoots(source)
    work = work_folder(folder.absolute())
    try:
        note = orjson.loads((work / WORKSPACE_NAME).read_bytes())
        start = Path(note["base"])
        found = {str(spec["name"]): noted_root(spec, work, start) for spec in note["recipe"]["sources"]}
    except (OSError, ValueError, KeyError, TypeError):
        return MediaRoots(source)  # built elsewhere, or the note is not of this version: the user may say it
    return MediaRoots(source, by_source={name: root for name, root in found.items() if root is not None})


def noted_root(source: Mapping[str, Any], work: Path, base: Path) -> Path | None:
    """Where the media of a source of a recipe lie, as far as the recipe and the work folder tell.

    Args:
        source: a source of the recipe, as in its file.
        work: work folder of the build.
        base: folder that the recipe's paths start from.

    Returns:
        None: only the pool itself can tell.
    """
    name = str(source["name"])
    if source["kind"] == "demo":
        return work / "demo" / name / "media"
    embedded = work / "embedded" / name
    if embedded.is_dir():  # media that the rows of the pool held, written by the build
        return embedded.absolute()
    noted = str(source.get("media_root") or "")
    return locate(noted, base).absolute() if noted else None
