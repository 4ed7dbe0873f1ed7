"""What figures need beyond `Stats`, gathered in the same pass: sources by type, and a sample of texts."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from videop2r_data.cards.stats_text import MAX_GROUPS, words_in

MAX_CHARS = 8_000
"""Characters of a sampled text that are kept: what is behind them no embedding reads."""
OPENINGS = ("based on the question, i need to notice", "based on the observations,")
"""How the prompt tells P and R to begin: they would tell the two apart by themselves. [paper §8.1]"""
MAX_KINDS = 64
"""Different modalities and problem types held; the others count as `other`."""
OTHER = "other"
_OPENING = re.compile(r"\A\W*(?:" + "|".join(map(re.escape, OPENINGS)) + r")[\s:,]*", re.IGNORECASE)


class Crossed:
    """Rows by source, modality and problem type; how many of each are told apart is bounded."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self._known: dict[str, set[str]] = {"source": set(), "modality": set(), "type": set()}

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Count a row; a cell that is no text counts as empty."""
        source, data_type, kind = (
            value if isinstance(value := row[name], str) else ""
            for name in ("data_source", "data_type", "problem_type")
        )
        self.counts[
            self._bounded("source", source, MAX_GROUPS),
            self._bounded("modality", data_type, MAX_KINDS),
            self._bounded("type", kind, MAX_KINDS),
        ] += 1

    def _bounded(self, what: str, name: str, most: int) -> str:
        known = self._known[what]
        if name not in known:
            if len(known) >= most:
                return OTHER
            known.add(name)
        return name


class Opened:
    """Words of the prompted openings, to be taken off the word counts."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = {"perception": Counter(), "reasoning": Counter()}

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Count the openings of a row."""
        for name, text in (("perception", perception), ("reasoning", reasoning)):
            match = _OPENING.match(text) if text else None
            if match:
                self._found[name][" ".join(words_in(match.group()))] += 1

    def without(self, name: str, words: Counter[str]) -> Counter[str]:
        """Word counts of `perception` or `reasoning` with the openings taken off."""
        rest = Counter(words)
        for opening, times in self._found[name].items():
            for word in opening.split():
                rest[word] -= times
        return +rest


class Pair(NamedTuple):
    """P and R of one row."""

    row: int
    """Index of the row in its config, in reading order."""
    perception: str
    reasoning: str


class Sampled:
    """Rows drawn without replacement among those that have both P and R.

    Each row has a rank that only the seed and its number fix; the lowest ranks are kept. So the same rows are
    drawn whatever the size of the batches, and a larger sample holds the smaller one.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.size = size
        self.seen = 0
        """Rows with both P and R."""
        self._seed = seed.to_bytes(8, "big", signed=True)
        self._number = 0
        self._heap: list[tuple[int, Pair]] = []

    def see(self, row: Mapping[str, Any], perception: str | None, reasoning: str | None) -> None:
        """Keep a row if its rank is among the lowest."""
        number, self._number = self._number, self._number + 1
        if not (perception and perception.strip() and reasoning and reasoning.strip()):
            return
        self.seen += 1
        key = blake2b(number.to_bytes(8, "big"), digest_size=8, key=self._seed).digest()
        rank = -int.from_bytes(key, "big")  # heapq pops the smallest: the highest rank has to go first
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (rank, _pair(number, perception, reasoning)))
        elif self._heap and rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, (rank, _pair(number, perception, reasoning)))

    def pairs(self) -> list[Pair]:
        """The sample in reading order."""
        return sorted(pair for _, pair in self._heap)


def _pair(number: int, perception: str, reasoning: str) -> Pair:
    return Pair(number, without_opening(perception)[:MAX_CHARS], without_opening(reasoning)[:MAX_CHARS])


def without_opening(text: str) -> str:
    """A segment without the words that the prompt asks it to begin with.

    >>> without_opening(" Based on the observations, the ball is red.")
    'the ball is red.'
    """
    return _OPENING.sub("", text[: MAX_CHARS + 100])
