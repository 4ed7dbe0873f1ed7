"""The journal: every finished call, durable at once and found again by the content of its request.

A folder of append-only segments. Each line is one record:

    {"key":"<64 hex>","kind":"call","nusd":1500,"crc":"<8 hex>","data":{…}}

- `key` is the sha256 of the canonical request: a record answers for its content, not for a row or a run;
- `nusd` is money in billionths of a dollar: integers add up exactly;
- `crc` is the CRC-32 of all of the above and of the bytes of `data`: a damaged line is never an answer.

A record is handed to the operating system before its answer is used, so `kill -9` loses nothing that was
finished; a thread brings the file to the disk every `SYNC_S` seconds, which bounds what a power cut can lose.
Each writer owns one segment (by `flock`), so several processes or machines can share a folder, and two
journals are merged by putting their segments into one folder. Where two segments answer the same request, the
first in order of (segment name, offset) counts, in every freshly opened journal alike.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import orjson

from videop2r_data.backends.spending import Spending
from videop2r_data.errors import JournalError

SYNC_S = 0.05
SEGMENT_BYTES = 256 * 2**20
Kind = Literal["call", "refused", "media", "sent", "void", "batch"]
_BATCH_KEY = "0" * 64
_HEAD = re.compile(rb'\{"key":"([0-9a-f]{64})","kind":"([a-z]+)","nusd":(\d+),"crc":"([0-9a-f]{8})","data":')


class Damage(NamedTuple):
    """A line that cannot be read; its call is made, and paid, again."""

    segment: str
    offset: int
    why: str


class Journal:
    """Open a folder of segments for reading, and one of them for writing.

    Args:
        folder: where the segments lie; made if missing.
        readonly: never write; torn tails are left as they are.

    Raises:
        JournalError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, *, readonly: bool = False) -> None:
        self.folder = folder
        self.readonly = readonly
        self.damaged: list[Damage] = []
        self.spending = Spending()
        self.repeats = 0
        """Requests that were answered, and paid, more than once."""
        self._segments: list[_Segment] = []
        self._calls: dict[bytes, int] = {}
        self._media: dict[bytes, int] = {}
        self._batches: list[dict[str, Any]] = []
        self._writer: _Writer | None = None
        try:
            if not readonly:
                folder.mkdir(parents=True, exist_ok=True)
            names = sorted(folder.glob("segment-*.jsonl")) if folder.is_dir() else []
        except OSError as error:
            raise JournalError(f"cannot open the journal: {error}", where=str(folder)) from None
        if not readonly:
            self._writer = _Writer.take_over(folder, names)
            if self._writer.path not in names:
                names.append(self._writer.path)
            self._writing = names.index(self._writer.path)
        for path in names:
            self._scan(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._calls)

    # reading

    def call(self, key: str) -> dict[str, Any] | None:
        """The record of a finished call: its completion, or `{"refused": message}`."""
        return self._read(self._calls.get(bytes.fromhex(key)))

    def has_call(self, key: str) -> bool:
        """Whether the call was finished, without reading it."""
        return bytes.fromhex(key) in self._calls

    def media(self, key: str) -> dict[str, Any] | None:
        """The newest record of what was sampled from a file."""
        return self._read(self._media.get(bytes.fromhex(key)))

    def batch_events(self) -> list[dict[str, Any]]:
        """The life of every batch, in order."""
        return list(self._batches)

    # writing

    def put_call(self, key: str, data: dict[str, Any], *, nusd: int) -> None:
        """Keep a finished call; `nusd` is what it cost, in billionths of a dollar."""
        self._put(key, "call", data, nusd)

    def put_refused(self, key: str, message: str) -> None:
        """Keep that the server refused this request for good, so that it is not asked again."""
        self._put(key, "refused", {"refused": message}, 0)

    def put_media(self, key: str, data: dict[str, Any]) -> None:
        """Keep what was sampled from a file, or why nothing could be."""
        self._put(key, "media", data, 0)

    def put_sent(self, key: str, *, nusd: int) -> None:
        """Say that a call which costs money at most `nusd` is about to be sent."""
        self._put(key, "sent", {}, nusd)

    def put_void(self, key: str, *, nusd: int) -> None:
        """Say that the call last sent was certainly not billed."""
        self._put(key, "void", {}, nusd)

    def append_batch_event(self, event: dict[str, Any]) -> None:
        """Keep an event of a batch; on the disk when this returns."""
        self._put(_BATCH_KEY, "batch", event, 0)
        self.sync()

    def sync(self) -> None:
        """Bring everything to the disk now."""
        if self._writer:
            self._writer.sync()

    def close(self) -> None:
        """Bring everything to the disk and free the segment; safe to call twice."""
        if self._writer:
            self._writer.close()
            self._writer = None
        for segment in self._segments:
            segment.close()

    # inside

    def _put(self, key: str, kind: Kind, data: dict[str, Any], nusd: int) -> None:
        if self._writer is None:
            raise JournalError("the journal is open for reading only", where=str(self.folder))
        body, name, kind_name = orjson.dumps(data), key.encode(), kind.encode()
        crc = _checksum(name, kind_name, nusd, body)
        head = b'{"key":"%b","kind":"%b","nusd":%d,"crc":"%08x","data":' % (name, kind_name, nusd, crc)
        offset = self._writer.write(b"%b%b}\n" % (head, body))
        place = _pack(self._writing, offset + len(head), len(body))
        self._index(bytes.fromhex(key), kind_name, nusd, place, data if kind == "batch" else None)

    def _index(self, key: bytes, kind: bytes, nusd: int, place: int, event: dict[str, Any] | None) -> None:
        if kind in (b"call", b"refused"):
            if key in self._calls:
                self.repeats += 1
            self._calls.setdefault(key, place)
        elif kind == b"media":
            self._media[key] = place
        elif kind == b"batch" and event is not None:
            self._batches.append(event)
        self.spending.note(key, kind, nusd)

    def _scan(self, path: Path) -> None:
        number = len(self._segments)
        segment = _Segment(path)
        self._segments.append(segment)
        for offset, line in segment.lines():
            head = _HEAD.match(line)
            body = line[head.end() : -2] if head else b""
            if head is None or _checksum(head[1], head[2], int(head[3]), body) != int(head[4], 16):
                self.damaged.append(Damage(path.name, offset, "not a record" if head is None else "checksum"))
                continue
            event = orjson.loads(body) if head[2] == b"batch" else None
            place = _pack(number, offset + head.end(), len(body))
            self._index(bytes.fromhex(head[1].decode()), head[2], int(head[3]), place, event)

    def _read(self, place: int | None) -> dict[str, Any] | None:
        if place is None:
            return None
        segment, offset, length = place >> 80, (place >> 32) & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF
        data: dict[str, Any] = orjson.loads(self._segments[segment].read(offset, length))
        return data


def _checksum(key: bytes, kind: bytes, nusd: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(b"%b %b %d " % (key, kind, nusd)))


def _pack(segment: int, offset: int, length: int) -> int:
    """Where a record's data lie, as one integer: a third of the memory of a tuple, half a million times."""
    return segment << 80 | offset << 32 | length


class _Segment:
    """One file of the journal, for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of each complete line; a torn tail is left out."""
        offset = 0
        with open(self._fd, "rb", buffering=1 << 20, closefd=False) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield offset, line
                offset += len(line)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Writer:
    """The one writer of a segment, with a thread that brings it to the disk."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._end = os.fstat(fd).st_size
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._keep_synced, name="journal-sync", daemon=True)
        self._thread.start()

    @classmethod
    def take_over(cls, folder: Path, names: list[Path]) -> _Writer:
        """Go on with the newest segment that no living writer holds, or begin a new one."""
        for path in reversed(names):
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            if os.fstat(fd).st_size < SEGMENT_BYTES and _lock(fd):
                _cut_torn_tail(fd)
                return cls(path, fd)
            os.close(fd)
        last = max((int(p.name[8:14]) for p in names if p.name[8:14].isdigit()), default=0)
        path = folder / f"segment-{last + 1:06d}-{secrets.token_hex(4)}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        if not _lock(fd):
            raise JournalError("a new segment is already locked", where=str(path))
        _sync_folder(folder)
        return cls(path, fd)

    def write(self, line: bytes) -> int:
        """Append one line and return its offset.

        Raises:
            JournalError: the disk is full or broken; nothing of the line remains.
        """
        if self._failure is not None:
            raise JournalError(
                f"the journal cannot be brought to the disk: {self._failure}", where=str(self.path)
            )
        offset = self._end
        try:
            written = os.write(self._fd, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written: the disk is full")
        except OSError as error:
            os.ftruncate(self._fd, offset)
            raise JournalError(
                f"cannot write: {error}",
                where=str(self.path),
                hint="free some space and run the same command",
            ) from None
        self._end += len(line)
        self._dirty.set()
        return offset

    def sync(self) -> None:
        self._dirty.clear()
        os.fsync(self._fd)

    def close(self) -> None:
        self._stop.set()
        self._dirty.set()
        self._thread.join()
        os.fsync(self._fd)
        os.close(self._fd)

    def _keep_synced(self) -> None:
        while not self._stop.is_set():
            self._dirty.wait()
            if self._stop.wait(SYNC_S):
                return
            try:
                self.sync()
            except OSError as error:
                self._failure = error
                return


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _cut_torn_tail(fd: int) -> None:
    """A killed writer may leave half a line: cut it, so that the next record starts on a line of its own."""
    size = os.fstat(fd).st_size
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
        os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
