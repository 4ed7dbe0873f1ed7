"""What a build has cost so far: exact for finished calls, an upper bound for those that were lost."""

from __future__ import annotations

from collections import Counter

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
        self._ended: dict[bytes, list[int]] = {}
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
                self._ended.setdefault(key, []).append(segment)
            if kind == b"call":
                self.finished_nusd += nusd
                self._by_segment[segment] += nusd

    def _note_sent(self, key: bytes, nusd: int, segment: int) -> None:
        self._by_segment[segment] += nusd
        ended = self._ended.get(key)
        if ended:
            self._by_segment[ended.pop()] -= nusd
            if not ended:
                del self._ended[key]
            return
        self._open.setdefault(key, []).append((nusd, segment))
        self.open_nusd += nusd
        self._open_by_segment[segment] += nusd

    def of_segment(self, segment: int) -> int:
        """What the records of one segment add to the total.

        Less than zero where they say that calls which another segment began were never billed.
        """
        return self._by_segment[segment]

    def open_of_segment(self, segment: int) -> int:
        """The part of `open_nusd` for calls that this segment began."""
        return self._open_by_segment[segment]

    @property
    def finished_usd(self) -> float:
        """US dollars of the finished calls."""
        return self.finished_nusd / NANO

    @property
    def open_usd(self) -> float:
        """US dollars, upper bound, of calls that went out and never came back."""
        return self.open_nusd / NANO

    @property
    def total_nusd(self) -> int:
        """What may have been spent: finished calls, and lost ones at their upper bound."""
        return self.finished_nusd + self.open_nusd
