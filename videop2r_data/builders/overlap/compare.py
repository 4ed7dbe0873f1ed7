"""One evaluation set against a pool: which rows have a partner on the other side, by which signal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from videop2r_data.builders.overlap.clips import Links
from videop2r_data.builders.overlap.sides import NO_CLIP, Side
from videop2r_data.builders.overlap.texts import REWORDED, Nearest, Texts, alike, near_texts
from videop2r_data.schemas import OverlapBench, Shared, SharedSplit, Signal, digest

_CLOSE = 0.999
"""Score at most of a pair that is not equal."""


class OverlapRow(NamedTuple):
    """Two rows that overlap: a line of `rows.parquet`."""

    sample_id: str
    """Of the pool."""
    bench: str
    bench_id: str
    """Its sample_id in the evaluation set."""
    signal: Signal
    score: float
    """Share of words in common, or of frames that are alike; 1 for equal names and files."""
    why: str


class _Best:
    """The best partner of each row of a side: (score, row of the other side, why). First pool, then set."""

    def __init__(self) -> None:
        self.sides: tuple[dict[int, tuple[float, int, str]], ...] = ({}, {})

    def add(self, pool: int, bench: int, score: float, why: str) -> None:
        """Two rows that overlap; of equally good partners the first is kept."""
        for mine, row, other in zip(self.sides, (pool, bench), (bench, pool), strict=True):
            if row not in mine or score > mine[row][0]:
                mine[row] = (score, other, why)

    def rows(self) -> Iterator[tuple[int, int, float, str]]:
        """(row of the pool, row of the evaluation set, score, why): each row that overlaps, once at least."""
        pairs = {(a, b): (score, why) for a, (score, b, why) in self.sides[0].items()}
        pairs |= {(a, b): (score, why) for b, (score, a, why) in self.sides[1].items()}
        for (a, b), (score, why) in sorted(pairs.items()):
            yield a, b, score, why


class Comparison:
    """A pool against one evaluation set."""

    def __init__(self, pool: Side, bench: Side) -> None:
        self.pool, self.bench = self._sides = pool, bench
        self._best: dict[Signal, _Best] = {}
        self._links: dict[Signal, Links] = {}
        self._known: dict[Signal, tuple[Collection[int], Collection[int]]] = {}
        """Signal -> clips of each side that it can say something of."""
        self._rows = (pool.by_clip(), bench.by_clip())

    def link(self, signal: Signal, links: Links, known: tuple[Collection[int], Collection[int]]) -> None:
        """Take in what a signal about clips found, and of which clips of each side it can say something."""
        self._links[signal] = links
        self._known[signal] = known if known[0] and known[1] else ((), ())  # there is nothing to compare with
        best = self._best[signal] = _Best()
        for (mine, theirs), link in links.items():
            for row in self._rows[0][mine]:
                best.add(row, self._rows[1][theirs][0], link.score, link.why)
            for row in self._rows[1][theirs]:
                best.add(self._rows[0][mine][0], row, link.score, link.why)

    def compare_texts(self) -> None:
        """Questions that say the same or nearly the same: everywhere, and about clips that are linked."""
        pool, bench = self.pool.texts, self.bench.texts
        near = list(near_texts(pool, bench))
        best = self._best["text"] = _Best()
        for a, b, score, why in _partners(pool, bench, near):
            best.add(a, b, score, why)
        for b, a, score, why in _partners(bench, pool, [(b, a, score) for a, b, score in near]):
            best.add(a, b, score, why)
        self._best["both"] = self._both()

    def _both(self) -> _Best:
        best = _Best()
        pool, bench = self.pool.texts, self.bench.texts
        alike_to = lru_cache(1 << 18)(lambda a, b: alike(pool.words(a), bench.words(b)))
        index = Nearest(pool)
        nearest = lru_cache(None)(lambda b: index.similarity(bench.words(b)))
        linked: Links = {}
        for signal in ("frames", "file", "identity"):  # equal names and files begin at the same time
            linked |= self._links.get(signal, {})
        for (mine, theirs), link in sorted(linked.items()):
            for a, b in product(self._rows[0][mine], self._rows[1][theirs]):
                if self._apart(a, b, link.offset_s):
                    continue
                if pool.wording[a] == bench.wording[b]:
                    best.add(a, b, 1.0, "same clip, same wording")
                    continue
                score = alike_to(pool.text[a], bench.text[b])
                if score >= REWORDED and score >= nearest(bench.text[b]):
                    best.add(a, b, min(score, _CLOSE), "same clip, similar wording")
        return best

    def _apart(self, a: int, b: int, offset: float = 0.0) -> bool:
        """Whether two rows about one clip are about parts of it that do not meet."""
        mine, theirs = self.pool.parts.get(a), self.bench.parts.get(b)
        if mine is None or theirs is None:
            return False
        return mine[1] <= theirs[0] + offset or theirs[1] + offset <= mine[0]

    def found(self, signals: Iterable[Signal]) -> set[str]:
        """Ids of the rows of the evaluation set that one of some signals finds."""
        best = [self._best[signal] for signal in signals if signal in self._best]
        return {self.bench.ids[row] for one in best for row in one.sides[1]}

    def rows(self) -> Iterator[OverlapRow]:
        """Every row of both sides that overlaps, with its best partner."""
        for signal, best in self._best.items():
            for a, b, score, why in best.rows():
                ids = self.pool.ids[a], self.bench.name, self.bench.ids[b]
                yield OverlapRow(*ids, signal, round(score, 4), why)

    def report(self) -> OverlapBench:
        """The counts."""
        return OverlapBench(
            name=self.bench.name,
            rows=len(self.bench),
            bad=self.bench.bad,
            sha256=digest({name: fact.sha256 for name, fact in self.bench.facts.items()}),
            bench={signal: self._shared(signal, 1) for signal in self._best},
            pool={signal: self._shared(signal, 0) for signal in self._best},
            by_source=self._by_label(0),
            by_group=self._by_label(1),
            splits=self._splits(),
            apart=self._only_apart(),
        )

    def _shared(self, signal: Signal, which: int) -> Shared:
        side, found = self._sides[which], self._best[signal].sides[which]
        known = len(side)
        if signal != "text":
            asked = [self._known[signal]] if signal in self._known else self._known.values()
            clips = set().union(*(one[which] for one in asked))
            known = sum(clip in clips for clip in side.clip)
        same = sum(score == 1.0 for score, *_ in found.values()) if signal in ("text", "both") else 0
        return Shared(found=len(found), known=known, rows=len(side), same=same)

    def _by_label(self, which: int) -> dict[str, dict[str, int]]:
        labels = self._sides[which].labels
        counts = {label: Counter({"rows": rows}) for label, rows in sorted(Counter(labels).items())}
        for signal, best in self._best.items():
            for row in best.sides[which]:
                counts[labels[row]][signal] += 1
        return {label: dict(count) for label, count in counts.items()}

    def _splits(self) -> list[SharedSplit]:
        pool, bench = (
            Counter(side.splits[clip] for clip in side.clip if clip != NO_CLIP) for side in self._sides
        )
        shared = {name for name, _ in pool if name} & {name for name, _ in bench}
        keys = sorted(key for key in pool.keys() | bench.keys() if key[0] in shared)
        return [
            SharedSplit(namespace=key[0], split=key[1], pool_rows=pool[key], bench_rows=bench[key])
            for key in keys
        ]

    def _only_apart(self) -> int:
        """Rows of the evaluation set all of whose partners by name are about other parts of the clip."""
        partners: dict[int, list[int]] = defaultdict(list)
        for mine, theirs in self._links["identity"]:
            partners[theirs] += self._rows[0][mine]
        rows = ((row, partners[clip]) for row, clip in enumerate(self.bench.clip) if clip in partners)
        return sum(all(self._apart(a, row) for a in mine) for row, mine in rows)


def _partners(
    mine: Texts, others: Texts, near: Iterable[tuple[int, int, float]]
) -> Iterator[tuple[int, int, float, str]]:
    """The best partner of each row: (row, row of the others, score, why)."""
    wordings, texts = _first_rows(others.wording), _first_rows(others.text)
    best: dict[int, tuple[float, int]] = {}
    for text, other, score in near:
        best[text] = max(best.get(text, (0.0, 0)), (score, texts[other]))
    for row, (text, wording) in enumerate(zip(mine.text, mine.wording, strict=True)):
        if wording in wordings:
            yield row, wordings[wording], 1.0, "same wording"
        elif text in best:
            score, partner = best[text]
            yield row, partner, min(score, _CLOSE), "similar wording"


def _first_rows(keys: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, row)
    return found
