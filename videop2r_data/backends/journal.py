"""The journal: every finished call, durable at once and found again by the content of its request.

A folder of append-only segments. Each line is one record:

    {"key":"<64 hex>","kind":"call","nusd":1500,"crc":"<8 hex>","data":{…}}

- `key` is the sha256 of the canonical request: a record answers for its content, not for a row or a run;
- `nusd` is money in billionths of a dollar: integers add up exactly (of `media`: how many older records of
  the same file it replaces);
- `crc` is the CRC-32 of all of the above and of the bytes of `data`: a damaged line is never an answer.

A record is handed to the operating system before its answer is used, so `kill -9` loses nothing that was
finished; a thread brings the file to the disk every `SYNC_S` seconds, which bounds what a power cut can lose.
Each writer owns one segment (by `flock`), so several processes or machines can share a folder; what each of
them may spend is kept in a small file beside the segments (`spending.Allowance`). Two journals are merged by
putting their segments into one folder. Where two segments answer the same request, the first in order of
(segment name, offset) counts, in every freshly opened journal alike.

An answer can be withdrawn, so that its request is asked again: a record of kind `retry` holds the CRC-32 of
the answer's `data`, and that answer counts no longer, in whichever segment the two records stand. Nothing is
removed; the cost of the answer stays on the bill. The next answer to the request says in its `data` how many
were withdrawn before it (`"retry"`), so that an answer of equal words has another CRC-32 than the withdrawn
one. Records of kind `media` are withdrawn in the same way.

A record of kind `done` saves time and is no answer: its key stands for a question, and `nusd` for what became
of it (`builders/finished.py`). Its `data` hold the CRC-32 of each media record that it rests on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import orjson

from videop2r_data.backends.segments import Begin, FileLock, Row, Segment, Writer, is_held
from videop2r_data.backends.spending import Allowance, Spending
from videop2r_data.errors import JournalError, P2RError

Kind = Literal["call", "refused", "media", "sent", "void", "batch", "retry", "done"]
_RETRY = "retry"
_NAME = re.compile(r"segment-.*\.jsonl")
_ANSWERS = (b"call", b"refused", b"media")
_SENT, _CALL = b"sent".ljust(8, b"\0"), b"call".ljust(8, b"\0")
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
        begin: opens the segment to write, among those that are there.

    Raises:
        JournalError: the folder cannot be made, read or (unless `readonly`) written.
    """

    def __init__(self, folder: Path, *, readonly: bool = False, begin: Begin = Writer.take_over) -> None:
        self.folder = folder
        self.readonly = readonly
        self.damaged: list[Damage] = []
        self.spending = Spending()
        self.repeats = 0
        """Requests that were answered, and paid, more than once."""
        self._segments: list[Segment] = []
        self._calls: dict[bytes, int] = {}
        self._media: dict[bytes, int] = {}
        self._replaced: dict[bytes, int] = {}
        """How many older records of a file the one that counts replaces; 0 is not kept."""
        self._others: dict[bytes, list[int]] = {}
        """Further answers to a request, behind the one that counts."""
        self._withdrawn: dict[bytes, set[int]] = {}
        """CRC-32 of the answers that count no longer."""
        self._done: dict[bytes, int] = {}
        self._rests_on: dict[bytes, int] = {}
        self._batches: list[dict[str, Any]] = []
        self._writer: Writer | None = None
        self.allowance = Allowance(self)
        self._own_from = 0
        try:
            if not readonly:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JournalError(f"cannot open the journal: {error}", where=str(folder)) from None
        names = _names(folder)
        try:
            if not readonly:
                self._writer = begin(folder, names)
                if self._writer.path not in names:
                    names.append(self._writer.path)
                self._writing = names.index(self._writer.path)
                self._own_from = self._writer.end
            for path in names:
                self._scan(path)
        except BaseException:
            with suppress(JournalError):
                self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, P2RError):
            with suppress(P2RError):  # what went wrong first is what is told
                self.close()
        else:
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

    def done(self, mark: bytes) -> int | None:
        """What `put_done` noted for this mark, while the media records that it rests on are the newest."""
        place = self._rests_on.get(mark)
        for key, crc in () if place is None else orjson.loads(self._bytes(place)).items():
            record = self._media.get(bytes.fromhex(key))
            if record is None or zlib.crc32(self._bytes(record)) != crc:
                return None
        return self._done.get(mark)

    @property
    def lacks_answers(self) -> bool:
        """Whether something that was answered is damaged, or withdrawn and not answered since."""
        answered = (key in self._calls or key in self._media for key in self._withdrawn)
        return bool(self.damaged) or not all(answered)

    def is_new(self, key: str) -> bool:
        """Whether the answer to a call was written since this journal was opened, by this process."""
        place = self._calls.get(bytes.fromhex(key))
        if place is None or self._writer is None:
            return False
        segment, offset, _ = _unpack(place)
        return segment == self._writing and offset >= self._own_from

    def batch_events(self) -> list[dict[str, Any]]:
        """The life of every batch, in order; with what other processes have written until now."""
        self.refresh()
        return list(self._batches)

    def refresh(self) -> None:
        """Take in what other writers have added since this journal was opened.

        Raises:
            JournalError: the folder cannot be read.
        """
        known = {segment.path.name for segment in self._segments}
        for number, segment in enumerate(self._segments):
            if self._writer is None or number != self._writing:
                self._take_in(number, segment)
        for path in _names(self.folder):
            if path.name not in known:
                self._scan(path)

    # money of several processes

    @property
    def segment(self) -> str:
        """Name of the segment that this journal writes; empty when it is open for reading only."""
        return self._writer.path.name if self._writer else ""

    def spent_by(self, segment: str) -> tuple[int, int]:
        """What the records of one segment add to the total, and the part of it for calls without an answer.

        In billionths of a dollar; 0 if there is no such segment.
        """
        for number, one in enumerate(self._segments):
            if one.path.name == segment:
                return self.spending.of_segment(number), self.spending.open_of_segment(number)
        return 0, 0

    @property
    def own_nusd(self) -> int:
        """What the records of the segment that this journal writes add to the total."""
        return self.spending.of_segment(self._writing) if self._writer else 0

    def lost_nusd(self) -> int:
        """Upper bound of the cost of calls whose process has ended, or that this process lost."""
        return sum(
            self.spending.open_of_segment(number)
            for number, segment in enumerate(self._segments)
            if segment.path.name == self.segment or not is_held(segment.path)
        )

    # writing

    def put_call(self, key: str, data: dict[str, Any], *, nusd: int) -> None:
        """Keep a finished call; `nusd` is what it cost, in billionths of a dollar."""
        self._put(key, "call", data, nusd)

    def put_refused(self, key: str, message: str) -> None:
        """Keep that the server refused this request for good, so that it is not asked again."""
        # what it held, since the segment that says so may be read later than this one
        self._put(key, "refused", {"refused": message}, self.spending.held_nusd(bytes.fromhex(key)))

    def put_media(self, key: str, data: dict[str, Any]) -> None:
        """Keep what was sampled from a file, or why nothing could be."""
        name = bytes.fromhex(key)
        first = name not in self._media and name not in self._withdrawn
        self._put(key, "media", data, 0 if first else self._replaced.get(name, 0) + 1)

    def put_done(self, mark: bytes, what: int, media: Iterable[str] = ()) -> None:
        """Note a number of up to 64 bits for a mark of 32 bytes; `media`: keys of what it rests on."""
        data = {key: zlib.crc32(self._bytes(self._media[bytes.fromhex(key)])) for key in media}
        self._put(mark.hex(), "done", data, what)

    def withdraw(self, key: str) -> bool:
        """Let the answer to a call, or what was sampled from a file, count no longer: it is asked for again.

        Returns:
            Whether there was one.
        """
        name = bytes.fromhex(key)
        place = self._calls.get(name, self._media.get(name))
        if place is None:
            return False
        self._put(key, "retry", {"of": zlib.crc32(self._bytes(place))}, 0)
        return True

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

    def lock_batches(self) -> FileLock | None:
        """The right to submit, settle and collect batches: one process has it; None: another has it.

        Raises:
            JournalError: the folder cannot be written, or its file system has no locks.
        """
        try:
            return FileLock.take(self.folder / "batches.lock")
        except OSError as error:
            raise JournalError(
                f"cannot take the lock of the batches: {error}", where=str(self.folder)
            ) from None

    def sync(self) -> None:
        """Bring everything to the disk now."""
        if self._writer:
            self._writer.sync()

    async def settled(self) -> None:
        """Wait until what was put may be used: it is kept where the journal is at home, else P2RError."""
        if self._writer:
            await self._writer.settled()

    def close(self) -> None:
        """Bring everything to the disk and free the segment; safe to call twice.

        Raises:
            JournalError: what was written may not be on the disk.
        """
        self.allowance.give_back()
        writer, self._writer = self._writer, None
        try:
            if writer:
                writer.close()
        finally:
            for segment in self._segments:
                segment.close()
            # half a kilobyte a question, and the export has its own
            self._calls, self._media, self._done, self._rests_on = {}, {}, {}, {}

    # inside

    def _put(self, key: str, kind: Kind, data: dict[str, Any], nusd: int) -> None:
        if self._writer is None:
            raise JournalError("the journal is open for reading only", where=str(self.folder))
        withdrawn = self._withdrawn.get(bytes.fromhex(key))
        if withdrawn and kind.encode() in _ANSWERS:
            data = {_RETRY: len(withdrawn)} | data
        body, name, kind_name = orjson.dumps(data), key.encode(), kind.encode()
        crc = _checksum(name, kind_name, nusd, body)
        head = b'{"key":"%b","kind":"%b","nusd":%d,"crc":"%08x","data":' % (name, kind_name, nusd, crc)
        offset = self._writer.write(b"%b%b}\n" % (head, body))
        row = bytes.fromhex(key), kind_name, nusd, offset + len(head), len(body)
        self._take(self._writing, row, self._writer.end)

    def _index(self, key: bytes, kind: bytes, nusd: int, place: int) -> None:
        if kind == b"done":
            if not self.readonly:  # nothing is skipped where no call is made
                self._done[key] = nusd
                if place & 0xFFFFFFFF > len(b"{}"):
                    self._rests_on[key] = place
            return
        self.spending.note(key, kind, nusd, place >> 80)
        withdrawn = self._withdrawn.get(key)
        if withdrawn and kind in _ANSWERS and zlib.crc32(self._bytes(place)) in withdrawn:
            return
        if kind in (b"call", b"refused"):
            if key in self._calls:
                self.repeats += 1
                self._others.setdefault(key, []).append(place)
            else:
                self._calls[key] = place
        elif kind == b"media":
            # `nusd` of `media` counts the older records of the file: the highest is the newest, in whichever
            # segment it stands
            if nusd >= self._replaced.get(key, 0):
                self._media[key] = place
                if nusd:
                    self._replaced[key] = nusd
        elif kind == b"batch":
            self._batches.append(orjson.loads(self._bytes(place)))
        elif kind == b"retry":
            self._forget(key, orjson.loads(self._bytes(place))["of"])

    def _forget(self, key: bytes, crc: int) -> None:
        """Drop the withdrawn answer from the index; `_index` skips it if its segment is read later."""
        self._withdrawn.setdefault(key, set()).add(crc)
        place = self._media.get(key)
        if place is not None and zlib.crc32(self._bytes(place)) == crc:
            del self._media[key]
        if key in self._calls:
            answers = [self._calls.pop(key), *self._others.pop(key, ())]
            left = [place for place in answers if zlib.crc32(self._bytes(place)) != crc]
            if left:
                self._calls[key] = left[0]
            if left[1:]:
                self._others[key] = left[1:]

    def _scan(self, path: Path) -> None:
        segment, number = Segment(path), len(self._segments)
        self._segments.append(segment)
        own = path.name == self.segment
        segment.keeps = not self.readonly and (own or not is_held(path))
        # what half a million records are, calls that were sent and answered once, without a detour
        sent, paid = dict[bytes, int](), 0
        for key, kind, nusd, offset, length in segment.known():
            if kind == _SENT and key not in sent and key not in self.spending.ended:
                sent[key] = nusd
            elif kind == _CALL and key in sent and key not in self._calls and key not in self._withdrawn:
                del sent[key]
                self._calls[key] = number << 80 | offset << 32 | length
                paid += nusd
            else:
                if key in sent:
                    self._index(key, b"sent", sent.pop(key), _pack(number, 0, 0))
                self._index(key, kind.rstrip(b"\0"), nusd, _pack(number, offset, length))
        for key, nusd in sent.items():
            self._index(key, b"sent", nusd, _pack(number, 0, 0))
        self.spending.add(paid, number)
        self._take_in(number, segment)
        segment.keeps &= own  # another one may get another writer

    def _take_in(self, number: int, segment: Segment) -> None:
        for offset, line in segment.new_lines():
            head = _HEAD.match(line)
            body = line[head.end() : -2] if head else b""
            if head is None or _checksum(head[1], head[2], int(head[3]), body) != int(head[4], 16):
                why = "not a record" if head is None else "checksum"
                self.damaged.append(Damage(segment.path.name, offset, why))
                segment.keeps = False  # every run tells the damage: from here on lines are read
                continue
            key = bytes.fromhex(head[1].decode())
            row = key, head[2], int(head[3]), offset + head.end(), len(body)
            self._take(number, row, offset + len(line))

    def _take(self, number: int, row: Row, end: int) -> None:
        """Take in a record whose line ends at `end` of the segment with this number."""
        key, kind, nusd, offset, length = row
        self._index(key, kind, nusd, _pack(number, offset, length))
        self._segments[number].note(row, end)

    def _bytes(self, place: int) -> bytes:
        segment, offset, length = _unpack(place)
        return self._segments[segment].read(offset, length)

    def _read(self, place: int | None) -> dict[str, Any] | None:
        if place is None:
            return None
        try:
            data: dict[str, Any] = orjson.loads(self._bytes(place))
        except (OSError, orjson.JSONDecodeError) as error:
            segment, offset, _ = _unpack(place)
            raise JournalError(
                f"a record that was there is gone: {error}",
                where=f"{self._segments[segment].path}, byte {offset}",
                hint="somebody changed or cut the segment: run the same command to read the journal anew",
            ) from None
        data.pop(_RETRY, None)
        return data


def _names(folder: Path) -> list[Path]:
    try:
        # glob would take a folder that may not be read for an empty one, and all would be paid again
        return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []
    except OSError as error:
        raise JournalError(f"cannot open the journal: {error}", where=str(folder)) from None


def _checksum(key: bytes, kind: bytes, nusd: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(b"%b %b %d " % (key, kind, nusd)))


def _pack(segment: int, offset: int, length: int) -> int:
    """Where a record's data lie, as one integer: a third of the memory of a tuple, half a million times."""
    return segment << 80 | offset << 32 | length


def _unpack(place: int) -> tuple[int, int, int]:
    """Segment, offset and length of a place."""
    return place >> 80, (place >> 32) & 0xFFFFFFFFFFFF, place & 0xFFFFFFFF
