"""A journal whose home is a store of objects (S3, or any other of fsspec), and its mirror on this machine.

A store has no appending and no locks. So the writer of a segment writes it in the mirror, as any journal, and
puts what it wrote, in order, as *parts*: objects that never change, each some whole lines of the segment.

    URL/journal/segment-000001-0a1b2c3d.000000004711-000000000815-c0ffee00.jsonl
                stem                    first byte   bytes        CRC-32

A part is believed only if it has the size and the checksum of its name. The mirror is made of the parts: the
same segments on every machine. Each run begins a segment of its own, so no two machines write one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
import time
import urllib.parse
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from videop2r_data.backends.segments import Begin, Writer, begin_segment, cut_torn_tail
from videop2r_data.errors import AwayError, ConfigError, JournalError, MissingExtraError, first_line

SEAL_S = 0.25
"""Seconds in which answers gather, to be put together."""
AWAY_S = 600.0
"""Seconds to wait for a store that cannot be reached, once in a run."""
PART_BYTES = 8 * 2**20
_TOGETHER = 16
"""Parts that are read at once."""
_PAUSES_S = (1.0, 3.0, 0.0)
"""Seconds after a listing that lacks something."""
_PART = re.compile(r"(segment-[^/.]+)\.(\d{12})-(\d{12})-([0-9a-f]{8})\.jsonl")


Tell = Callable[[str], None]


class Part(NamedTuple):
    """Whole lines of a segment, from byte `start` to `end`."""

    start: int
    end: int
    crc: int
    path: str

    def holds(self, data: bytes | None) -> bool:
        """Whether this is what was put."""
        return data is not None and len(data) == self.end - self.start and zlib.crc32(data) == self.crc


class Store:
    """A folder at an fsspec URL.

    Raises:
        ConfigError: the URL cannot be used. MissingExtraError: its library is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        parts = urllib.parse.urlsplit(self.url)
        if "@" in parts.netloc or set(self.url) & set("?*["):
            raise ConfigError(
                "the URL of a work folder must not hold keys, options or any of ?*[",
                hint="give keys in the environment, as the store's own tools read them",
            )
        if not parts.netloc and not parts.path.strip("/"):
            raise ConfigError("the URL names no place", where=url, hint="write s3://bucket/folder")
        import fsspec

        options = {"auto_mkdir": True} if parts.scheme == "file" else {}
        with self._tried():
            self._fs, root = fsspec.core.url_to_fs(self.url, use_listings_cache=False, **options)
        self._root = str(root).rstrip("/")

    def names(self, folder: str) -> dict[str, int]:
        """Name -> bytes of each object of a folder."""
        with self._tried(), suppress(FileNotFoundError):
            found = self._fs.ls(f"{self._root}/{folder}", detail=True)
            return {one["name"].rpartition("/")[2]: one["size"] for one in found if one["type"] == "file"}
        return {}

    def get(self, *paths: str) -> list[bytes | None]:
        """The bytes of each object, read together; None: there is none."""
        whole = [f"{self._root}/{path}" for path in paths]
        with self._tried():
            found = self._fs.cat(whole, on_error="return")
            for error in found.values():
                if isinstance(error, Exception) and not isinstance(error, FileNotFoundError):
                    raise error
        return [found[path] if isinstance(found[path], bytes) else None for path in whole]

    def put(self, path: str, data: bytes, *, new: bool = False) -> None:
        """Write an object; `new`: one that is there stays, as far as the store can tell."""
        with self._tried(), suppress(FileExistsError):
            self._fs.pipe_file(f"{self._root}/{path}", data, **({"mode": "create"} if new else {}))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects."""
        if whole := [f"{self._root}/{path}" for path in paths]:
            with self._tried(), suppress(FileNotFoundError):
                self._fs.rm(whole)

    @contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            what = f"the library for {self.url}"
            if self.url.startswith("s3"):
                raise MissingExtraError(what, "s3") from None
            raise ConfigError(f"{what} is not installed", hint=first_line(error)) from None
        except Exception as error:  # noqa: BLE001 each store raises kinds of its own
            refused = isinstance(error, FileNotFoundError | PermissionError | ValueError)
            if refused or "Credential" in type(error).__name__:
                raise ConfigError(
                    f"the store refuses: {first_line(error)}",
                    where=self.url,
                    hint="check the URL, and the keys in the environment: may they list, read, write?",
                ) from None
            raise AwayError(
                f"the store cannot be used now: {first_line(error)}",
                where=self.url,
                hint="run the same command later: what is finished is kept",
            ) from None

    def parts(self) -> dict[str, list[Part]]:
        """Stem of a segment -> the parts that hold all of it that is there, in order; listed once."""
        found: defaultdict[str, list[Part]] = defaultdict(list)
        for name, size in sorted(self.names("journal").items()):
            if (match := _PART.fullmatch(name)) and 0 < int(match[3]) == size:
                start = int(match[2])
                found[match[1]].append(Part(start, start + size, int(match[4], 16), f"journal/{name}"))
        return found

    def ship(self, path: Path, start: int, end: int) -> list[Part]:
        """Put whole lines of a segment, in parts of `PART_BYTES` at most."""
        found = []
        with path.open("rb") as file:
            while start < end:
                file.seek(start)
                data = file.read(min(PART_BYTES, end - start))
                if not data:
                    raise JournalError("the segment was cut by somebody else", where=str(path))
                data = data[: data.rfind(b"\n") + 1] or data
                crc, end_of = zlib.crc32(data), start + len(data)
                name = f"{path.stem}.{start:012d}-{len(data):012d}-{crc:08x}.jsonl"
                found.append(Part(start, end_of, crc, f"journal/{name}"))
                self.put(found[-1].path, data)
                start = end_of
        return found


class Shipper(Writer):
    """The one writer of a new segment, whose lines count as kept when the store has them.

    Parts are put one after the other: whenever the machine is lost, the store has all lines up to one.

    Args:
        ends: gets how many bytes of the segment are put, by its stem.
        tell: is told when the store is away.
    """

    def __init__(self, path: Path, fd: int, store: Store, ends: dict[str, int], tell: Tell) -> None:
        super().__init__(path, fd)
        self._store, self._ends, self._tell = store, ends, tell
        self._put, self._patience_s = 0, AWAY_S
        self._one, self._closing = threading.Lock(), threading.Event()
        self._round: asyncio.Future[None] | None = None

    async def settled(self) -> None:
        """Wait until all that was written before is in the store; all who wait share a put.

        Raises:
            P2RError: it cannot be put there; the mirror has it.
        """
        end = self.end
        while self._put < end:
            if self._round is None or self._round.done():
                self._round = asyncio.ensure_future(self._soon())
                self._round.add_done_callback(_seen)
            await asyncio.shield(self._round)

    def sync(self) -> None:
        """Bring everything to the disk and to the store."""
        super().sync()
        self._ship()

    def close(self) -> None:
        """As any writer; a store that is away is tried once more: the next run puts what it lacks.

        Raises:
            JournalError: as `sync`. P2RError: the store lacks something.
        """
        self._closing.set()
        super().close()

    async def _soon(self) -> None:
        await asyncio.sleep(SEAL_S)
        await asyncio.to_thread(self._ship)

    def _ship(self) -> None:
        """Put what was written until now; a store that is away is waited for."""
        with self._one:
            began, end, pause = time.monotonic(), self.end, 0.25
            while self._put < end:
                try:
                    self._store.ship(self.path, self._put, end)
                    self._put = self._ends[self.path.stem] = end
                except AwayError as error:
                    if self._closing.is_set() or time.monotonic() - began > self._patience_s:
                        self._patience_s = 0.0
                        raise
                    if pause == 0.25:
                        self._tell(f"{error.message}; answers wait, and are kept in {self.path.parent}")
                    self._closing.wait(pause)
                    pause = min(2 * pause, 5.0)


def _seen(task: asyncio.Future[None]) -> None:
    """Asyncio would log an exception that no one awaits any more."""
    if not task.cancelled():
        task.exception()


# The mirror.


def mirror_of(url: str) -> Path:
    """The folder of this machine where what is at `url` is mirrored."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "p2r-data"
    name = re.sub(r"\W", "-", url.rstrip("/").rpartition("/")[2])[:60]
    return cache / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"


def pull(store: Store, folder: Path, tell: Tell, least: Mapping[str, int]) -> None:
    """Bring a mirror up to date, and put what was written in it and never put: it was paid.

    Args:
        folder: of the mirror's segments, which no other process writes; made if missing.
        least: stem of a segment -> bytes of it that were put. A listing that lacks some of them, or some in
            the middle, is asked for again; what stays missing is told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for pause in _PAUSES_S:
        found = store.parts()
        whole = [_fetch(store, folder / f"{stem}.jsonl", some) for stem, some in found.items()]
        if all(whole) and all(_end(found.get(stem, [])) >= end for stem, end in least.items()):
            break
        time.sleep(pause)
    else:
        told = "parts of the journal are gone, damaged or not listed"
        tell(f"{store.url}: {told}; what they held is asked again")
    names = sorted(folder.glob("segment-*.jsonl"))
    for path in names:
        _put_rest(store, path, found.get(path.stem, []), last=path == names[-1])


def _end(parts: list[Part]) -> int:
    return max((part.end for part in parts), default=0)


def _fetch(store: Store, path: Path, parts: list[Part]) -> bool:
    """Write a segment that the mirror has not, or not as the store has it; whether all of it is there now."""
    if path.exists() and (path.stat().st_size > _end(parts) or _is_of(path, parts)):
        return True
    whole, end, fresh = True, 0, path.with_suffix(".part")
    with fresh.open("wb") as file:
        for at in range(0, len(parts), _TOGETHER):
            some = parts[at : at + _TOGETHER]
            for part, put in zip(some, store.get(*(one.path for one in some)), strict=True):
                data = put if part.holds(put) else _own(path, part)
                whole &= part.start <= end and part.holds(data)
                if data is not None and part.holds(data) and part.end > end:
                    file.write(data[max(0, end - part.start) :])  # it may overlap with a joined one
                    end = part.end
    fresh.replace(path)
    return whole


def _own(path: Path, part: Part) -> bytes | None:
    """What the mirror has in the place of a part."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return os.pread(file.fileno(), part.end - part.start, part.start)
    return None


def _is_of(path: Path, parts: list[Part]) -> bool:
    """Whether a segment has all that its parts have, where they say."""
    with path.open("rb") as file:
        fd = file.fileno()
        return all(part.holds(os.pread(fd, part.end - part.start, part.start)) for part in parts)


def _put_rest(store: Store, path: Path, parts: list[Part], *, last: bool) -> None:
    """Put the lines behind these parts, whose process was killed before it put them.

    Other machines may have asked the same since, and have used what they were told: if theirs is the last
    segment, the lines go into a new one behind it, so that they change no answer that counts.
    """
    with path.open("r+b") as file:
        cut_torn_tail(file.fileno())
        size, end = file.seek(0, os.SEEK_END), _end(parts)
        rest = size > end and _is_of(path, parts)
        if rest and last:
            store.ship(path, end, size)
        elif rest:
            lines = [*read_lines(path, end)]
            if not _has_copy(path, lines):
                new = add_segment(path.parent, origin(path), lines)
                store.ship(new, 0, new.stat().st_size)
            file.truncate(end)
    if not path.stat().st_size:
        path.unlink()


def _has_copy(path: Path, lines: list[bytes]) -> bool:
    """Whether a run that then ended before its time has made the new segment of these lines."""
    size = sum(map(len, lines))
    behind = (p for p in path.parent.glob("segment-*.jsonl") if p > path and origin(p) == origin(path))
    return any(p.stat().st_size == size and [*read_lines(p)] == lines for p in behind)


def join(store: Store, folder: Path) -> None:
    """Put the small parts of each segment together, from a mirror that is up to date.

    The old parts are removed when the new ones were read back. A process that is killed between leaves both,
    and that does no harm.
    """
    for stem, parts in store.parts().items():
        path, end = folder / f"{stem}.jsonl", _end(parts)
        if len(parts) <= 1 + 2 * (end // PART_BYTES) or not path.exists():
            continue
        whole = path.stat().st_size == end and _is_of(path, parts)
        new = store.ship(path, 0, end) if whole else []
        if new and all(part.holds(store.get(part.path)[0]) for part in new):
            store.remove(part.path for part in parts if part not in new)


# Segments that come from elsewhere.


def origin(path: Path) -> str:
    """What a segment keeps of its name wherever its lines go: who wrote them."""
    return re.sub(r"\W", "", path.stem.rpartition("-")[2])


def read_lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The whole lines from a byte on that look like records."""
    with path.open("rb") as file:
        file.seek(start)
        yield from (line for line in file if line.startswith(b'{"key":"') and line.endswith(b"}\n"))


def add_segment(folder: Path, name: str, lines: Iterable[bytes], begin: Begin | None = None) -> Path:
    """A new segment of this origin, behind all others; kept when this returns."""
    behind = sorted(folder.glob("segment-*.jsonl"))
    writer = begin(folder, behind, name) if begin else Writer(*begin_segment(folder, behind, name))
    try:
        for line in lines:
            writer.write(line)
        writer.sync()
    finally:
        writer.close()
    return writer.path
