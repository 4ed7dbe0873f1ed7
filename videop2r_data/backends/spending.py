"""What the records of a journal add up to in money, and how much of the rest each process may spend."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import orjson

from videop2r_data.backends.segments import FileLock, is_held
from videop2r_data.errors import JournalError

if TYPE_CHECKING:
    from videop2r_data.backends.journal import Journal


NANO = 1_000_000_000


class Spending:
    """Sums over journal records, in billionths of a US dollar.

    A call that costs money leaves a `sent` record before it goes out and a `call` record when it comes back.
    A `sent` without `call` or `void` was in flight when its process died (or its connection was lost): it may
    have been billed, and counts with its upper bound.
    """

    def __init__(self) -> None:
        self.finished_nusd = 0
        self.open_nusd = 0
        """Upper bound of what calls without an answer may have cost."""
        self._by_segment: Counter[int] = Counter()
        self._open_by_segment: Counter[int] = Counter()
        self._open: dict[bytes, list[tuple[int, int]]] = {}
        """Calls without an answer: their upper bound and the segment that says that they went out."""
        self.ended: dict[bytes, list[int]] = {}
        """Calls whose end was seen before their beginning: the segments that say so."""

    def note(self, key: bytes, kind: bytes, nusd: int, segment: int = 0) -> None:
        """Take one record of the segment with this number into account."""
        if kind == b"sent":
            self._note_sent(key, nusd, segment)
        elif kind in (b"void", b"call", b"refused"):
            sent = self._open.get(key)
            if sent:
                held, began = sent.pop()
                self.open_nusd -= held
                self._open_by_segment[began] -= held
                self._by_segment[segment] -= held
                if not sent:
                    del self._open[key]
            elif nusd:
                self.ended.setdefault(key, []).append(segment)
            if kind == b"call":
                self.finished_nusd += nusd
                self._by_segment[segment] += nusd

    def _note_sent(self, key: bytes, nusd: int, segment: int) -> None:
        self._by_segment[segment] += nusd
        ended = self.ended.get(key)
        if ended:
            self._by_segment[ended.pop()] -= nusd
            if not ended:
                del self.ended[key]
            return
        self._open.setdefault(key, []).append((nusd, segment))
        self.open_nusd += nusd
        self._open_by_segment[segment] += nusd

    def add(self, nusd: int, segment: int) -> None:
        """Take the cost of calls into account that one segment says were sent and answered."""
        self.finished_nusd += nusd
        self._by_segment[segment] += nusd

    def of_segment(self, segment: int) -> int:
        """What the records of one segment add to the total.

        Less than zero where they say that calls which another segment began were never billed.
        """
        return self._by_segment[segment]

    def held_nusd(self, key: bytes) -> int:
        """Upper bound of the call that went out last with this key and has not ended; 0 if there is none."""
        return self._open.get(key, [(0, 0)])[-1][0]

    def open_of_segment(self, segment: int) -> int:
        """The part of `open_nusd` for calls that this segment began."""
        return self._open_by_segment[segment]

    @property
    def finished_usd(self) -> float:
        """US dollars of the finished calls."""
        return self.finished_nusd / NANO

    @property
    def total_nusd(self) -> int:
        """What may have been spent: finished calls, and lost ones at their upper bound."""
        return self.finished_nusd + self.open_nusd


# How several processes that write one journal keep one limit of money, without asking at every call.
#
# Each process takes an allowance out of what is left, spends it, and takes the next. The allowances of
# running processes are kept in the file `allowances` of the journal's folder, read and written under its
# lock:
#
#     total spent <= segments of ended processes + allowances of running processes <= limit
#
# An ended process no longer holds the lock of its segment. Its allowance is then replaced by the sum of its
# segment, so that money which it did not spend is free again.
#
# The file has two slots that are written in turn, each with a number and a checksum. A process killed in the
# middle of writing leaves an invalid slot, and the other slot counts.


FILE = "allowances"
LOCK_S = 30.0
"""Seconds to wait for the file; others hold it for milliseconds."""
CALLS_AHEAD = 64
"""An allowance holds about so many calls at most, and never more than a quarter of what is left."""
_PLACE_BYTES = 1 << 20
_HEAD_BYTES = 39


class Held(NamedTuple):
    """The allowance of one running process."""

    allowed: int
    """The records of its segment may add up to this."""
    lost: int
    """The part of `allowed` that killed processes, earlier writers of the same segment, had reserved."""


class Refusal(NamedTuple):
    """Why nothing more can be taken."""

    taken_nusd: int
    """Spent, committed, or in the allowances of others."""
    elsewhere_nusd: int
    """The part of `taken_nusd` in allowances of other processes: some of it may come back."""


class Allowance:
    """The allowance of one journal's writer.

    Amounts are billionths of a dollar, counted over all records of the segment that it writes.

    Args:
        journal: knows what was spent; only one that writes takes an allowance.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._allowed: int | None = None
        """None: nothing was taken yet."""
        self._lost = 0
        """The part of `_allowed` that killed processes, earlier writers of this segment, had reserved."""

    def take(self, nusd: int, limit: int | None) -> Refusal | None:
        """Reserve `nusd` more for this process, within `limit`; None: reserved.

        Raises:
            JournalError: the file of allowances cannot be used.
        """
        journal = self._journal
        if self._allowed is not None and journal.own_nusd + nusd <= self._allowed:
            return None
        journal.refresh()  # most of the reading is done before others have to wait
        with self._open() as held:
            journal.refresh()
            own = (
                journal.own_nusd
            )  # less than before where it answered calls whose beginning was read just now
            others, spent, finished = _living(held, journal)
            taken = journal.spending.total_nusd - spent + others
            left = None if limit is None else limit - taken
            if left is not None and nusd > left:
                self._note(held, own)
                return Refusal(taken, others - finished)
            ahead = nusd * CALLS_AHEAD
            if left is not None:
                ahead = min(ahead, (left - nusd) // (4 * len(held) + 4))
            self._note(held, own + nusd + ahead)
        return None

    def _note(self, held: dict[str, Held], allowed: int) -> None:
        journal = self._journal
        if self._allowed is None:
            _, self._lost = journal.spent_by(journal.segment)
        self._allowed = allowed
        held[journal.segment] = Held(allowed, self._lost)

    def give_back(self) -> None:
        """Return what is not committed, so that other processes can take it."""
        journal = self._journal
        if not journal.segment or self._allowed is None or self._allowed <= journal.own_nusd:
            return
        with suppress(JournalError), self._open() as held:  # else it is free when this process ends
            self._note(held, journal.own_nusd)

    def begin(self) -> None:
        """Drop the allowance that a killed writer of the same segment left behind."""
        journal = self._journal
        if self._allowed is None and journal.segment and (journal.folder / FILE).exists():
            with self._open() as held:
                held.pop(journal.segment, None)

    @contextmanager
    def _open(self) -> Iterator[dict[str, Held]]:
        """Segment -> allowance; written back when the block ends."""
        lock = self._lock()
        try:
            number, held = max(_read(lock, 0), _read(lock, 1), key=lambda place: place[0])
            yield held
            body = orjson.dumps({name: list(one) for name, one in held.items()})
            head = b"%020d %08d %08x\n" % (number + 1, len(body), zlib.crc32(body, number + 1))
            lock.write(head + body, (number + 1) % 2 * _PLACE_BYTES)
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            lock.release()

    def _lock(self) -> FileLock:
        deadline, pause = time.monotonic() + LOCK_S, 0.0005
        while True:
            try:
                lock = FileLock.take(self._journal.folder / FILE)
            except OSError as error:
                raise self._unusable(error) from None
            if lock is not None:
                return lock
            if time.monotonic() > deadline:
                raise self._unusable(f"another process has held it for {LOCK_S:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def _unusable(self, why: object) -> JournalError:
        return JournalError(
            f"cannot agree with other processes about money: {why}",
            where=str(self._journal.folder / FILE),
            hint="free some space, end processes that are stopped (Ctrl-Z), and run the same command",
        )


def _living(held: dict[str, Held], journal: Journal) -> tuple[int, int, int]:
    """Sums over other running processes: their allowances, what of them is spent or committed, what is spent.

    Ended processes are removed from `held`.
    """
    allowed = spent = finished = 0
    for segment in list(held):
        if segment == journal.segment:
            continue
        if is_held(journal.folder / segment):
            known, unanswered = journal.spent_by(segment)
            allowed += max(held[segment].allowed, known)
            spent += known
            finished += known - max(0, unanswered - held[segment].lost)
        else:
            del held[segment]
    return allowed, spent, finished


def _read(lock: FileLock, place: int) -> tuple[int, dict[str, Held]]:
    """Number and content of one of the two places; number 0 if there is nothing valid."""
    start = place * _PLACE_BYTES
    text = lock.read(4096, start)
    with suppress(ValueError):
        number, length, crc = int(text[:20]), int(text[21:29]), int(text[30:38], 16)
        if _HEAD_BYTES + length > len(text):
            text += lock.read(_HEAD_BYTES + length - len(text), start + len(text))
        body = text[_HEAD_BYTES : _HEAD_BYTES + length]
        if zlib.crc32(body, number) == crc:
            found = orjson.loads(body)
            return number, {str(name): Held(*map(int, one)) for name, one in found.items()}
    return 0, {}
