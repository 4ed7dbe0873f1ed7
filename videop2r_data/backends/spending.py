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
        self._open: dict[bytes, list[int]] = {}
        self._ended: Counter[bytes] = Counter()
        """Calls whose end was seen before their beginning."""

    def note(self, key: bytes, kind: bytes, nusd: int) -> None:
        """Take one record into account."""
        if kind == b"sent":
            if self._ended[key]:
                self._ended[key] -= 1
                return
            self._open.setdefault(key, []).append(nusd)
            self.open_nusd += nusd
        elif kind in (b"void", b"call", b"refused"):
            sent = self._open.get(key)
            if sent:
                self.open_nusd -= sent.pop()
                if not sent:
                    del self._open[key]
            elif nusd:
                self._ended[key] += 1
            if kind == b"call":
                self.finished_nusd += nusd

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
