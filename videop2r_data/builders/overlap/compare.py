"""One evaluation set against a pool: which rows have a partner on the other side, by which signal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from videop2r_data.builders.overlap.clips import Link, Links
from videop2r_data.builders.overlap.sides import NO_CLIP, Side
from videop2r_data.builders.overlap.texts import REWORDED, Nearest, alike, near_texts
from videop2r_data.schemas import OverlapBench, Shared, SharedSplit, Signal, digest


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
    """The best partner of each row, on both sides."""

    def __init__(self) -> None:
        self.of_pool: dict[int, tuple[float, int, str]] = {}
        self.of_bench: dict[int, tuple[float, int, str]] = {}

    def add(self, pool: int, bench: int, score: float, why: str) -> None:
        """Two rows that overlap; of equally good partners the first is kept."""
        for mine, row, other in ((self.of_pool, pool, bench), (self.of_bench, bench, pool)):
            if row not in mine or score > mine[row][0]:
                mine[row] = (score, other, why)

    def rows(self) -> Iterator[tuple[int, int, float, str]]:
        """(row of the pool, row of the evaluation set, score, why): each row that overlaps, once at least."""
        pairs = {(a, b): (score, why) for a, (score, b, why) in self.of_pool.items()}
        pairs |= {(a, b): (score, why) for b, (score, a, why) in self.of_bench.items()}
        for (a, b), (score, why) in sorted(pairs.items()):
            yield a, b, score, why


def by_identity(pool: Side, bench: Side) -> Links:
    """Clips of one id in one namespace."""
    clips = defaultdict(list)
    for clip, identities in enumerate(pool.identities):
        for one in identities:
            clips[one.namespace, one.id].append(clip)
    found: Links = {}
    for clip, identities in enumerate(bench.identities):
        for one in identities:
            for other in clips.get((one.namespace, one.id), ()):
                found.setdefault((other, clip), Link(1.0, f"{one.namespace}:{one.id}"))
    return found


class Comparison:
    """A pool against one evaluation set."""

    def __init__(self, pool: Side, bench: Side) -> None:
        self.pool, self.bench = pool, bench
        self.best: dict[Signal, _Best] = {}
        self.links: dict[Signal, Links] = {}
        self.unknown: dict[Signal, tuple[Collection[int], Collection[int]]] = {}
        """Signal -> clips of each side that it says nothing of."""
        self._rows = (pool.by_clip(), bench.by_clip())

    def link(self, signal: Signal, links: Links, unknown: tuple[Collection[int], Collection[int]]) -> None:
        """Take in what a signal about clips found."""
        self.links[signal], self.unknown[signal] = links, unknown
        best = self.best[signal] = _Best()
        for (mine, theirs), link in links.items():
            for row in self._rows[0][mine]:
                best.add(row, self._rows[1][theirs][0], link.score, link.why)
            for row in self._rows[1][theirs]:
                best.add(self._rows[0][mine][0], row, link.score, link.why)

    def compare_texts(self) -> None:
        """Questions that say the same or nearly the same: everywhere, and about clips that are linked."""
        pool, bench = self.pool.texts, self.bench.texts
        mine, theirs = _first_rows(pool.text), _first_rows(bench.text)
        partner_of, text_of = defaultdict(list), defaultdict(list)
        for a, b, score in near_texts(pool, bench):
            partner_of[a].append((score, theirs[b]))
            text_of[b].append((score, mine[a]))
        best = self.best["text"] = _Best()
        wordings = _first_rows(bench.wording), _first_rows(pool.wording)
        for row, (text, wording) in enumerate(zip(pool.text, pool.wording, strict=True)):
            if wording in wordings[0]:
                best.add(row, wordings[0][wording], 1.0, "same wording")
            elif text in partner_of:
                score, other = max(partner_of[text])
                best.add(row, other, min(score, 0.999), "similar wording")
        for row, (text, wording) in enumerate(zip(bench.text, bench.wording, strict=True)):
            if wording in wordings[1]:
                best.add(wordings[1][wording], row, 1.0, "same wording")
            elif text in text_of:
                score, other = max(text_of[text])
                best.add(other, row, min(score, 0.999), "similar wording")
        self.best["both"] = self._both()

    def _both(self) -> _Best:
        best = _Best()
        pool, bench = self.pool.texts, self.bench.texts
        alike_to = lru_cache(1 << 18)(lambda a, b: alike(pool.words(a), bench.words(b)))
        index = Nearest(pool)
        nearest = lru_cache(None)(lambda b: index.similarity(bench.words(b)))
        linked: Links = {}
        for signal in ("frames", "file", "identity"):  # equal names and files begin at the same time
            linked |= self.links.get(signal, {})
        for (mine, theirs), link in sorted(linked.items()):
            for a, b in product(self._rows[0][mine], self._rows[1][theirs]):
                if self._apart(a, b, link.offset_s):
                    continue
                if pool.wording[a] == bench.wording[b]:
                    best.add(a, b, 1.0, "same clip, same wording")
                    continue
                score = alike_to(pool.text[a], bench.text[b])
                if score >= REWORDED and score >= nearest(bench.text[b]):
                    best.add(a, b, min(score, 0.999), "same clip, similar wording")
        return best

    def _apart(self, a: int, b: int, offset: float = 0.0) -> bool:
        """Whether two rows about one clip are about parts of it that do not meet."""
        mine, theirs = self.pool.parts.get(a), self.bench.parts.get(b)
        if mine is None or theirs is None:
            return False
        return mine[1] <= theirs[0] + offset or theirs[1] + offset <= mine[0]

    def found(self, signals: Iterable[Signal]) -> set[int]:
        """Rows of the evaluation set that one of some signals finds."""
        return {row for signal in signals if signal in self.best for row in self.best[signal].of_bench}

    def rows(self) -> Iterator[OverlapRow]:
        """Every row of both sides that overlaps, with its best partner."""
        for signal, best in self.best.items():
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
            bench={signal: self._shared(signal, 1) for signal in self.best},
            pool={signal: self._shared(signal, 0) for signal in self.best},
            by_source=_by_label(self.pool, {signal: best.of_pool for signal, best in self.best.items()}),
            by_group=_by_label(self.bench, {signal: best.of_bench for signal, best in self.best.items()}),
            splits=self._splits(),
            apart=self._only_apart(),
        )

    def _shared(self, signal: Signal, which: int) -> Shared:
        side = self.bench if which else self.pool
        found = self.best[signal].of_bench if which else self.best[signal].of_pool
        known = len(side)
        if signal != "text":
            asked = [self.unknown[signal]] if signal in self.unknown else self.unknown.values()
            silent = set.intersection(*(set(one[which]) for one in asked)) if asked else set()
            known = sum(clip != NO_CLIP and clip not in silent for clip in side.clip)
        same = sum(score == 1.0 for score, _, _ in found.values()) if signal in ("text", "both") else 0
        return Shared(found=len(found), known=known, rows=len(side), same=same)

    def _splits(self) -> list[SharedSplit]:
        counts = [_declared(side) for side in (self.pool, self.bench)]
        shared = {name for name, _ in counts[0]} & {name for name, _ in counts[1]}
        keys = sorted(key for key in counts[0].keys() | counts[1].keys() if key[0] in shared)
        return [
            SharedSplit(namespace=key[0], split=key[1], pool_rows=counts[0][key], bench_rows=counts[1][key])
            for key in keys
        ]

    def _only_apart(self) -> int:
        """Rows of the evaluation set all of whose partners by name are about other parts of the clip."""
        partners: dict[int, list[int]] = defaultdict(list)
        for mine, theirs in self.links.get("identity", {}):
            partners[theirs] += self._rows[0][mine]
        return sum(
            all(self._apart(a, row) for a in partners[clip])
            for row, clip in enumerate(self.bench.clip)
            if clip in partners
        )


def _first_rows(keys: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, row)
    return found


def _by_label(side: Side, found: Mapping[Signal, Collection[int]]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {label: Counter() for label in side.labels}
    for label in side.label:
        counts[side.labels[label]]["rows"] += 1
    for signal, rows in found.items():
        for row in rows:
            counts[side.labels[side.label[row]]][signal] += 1
    return {label: dict(count) for label, count in sorted(counts.items())}


def _declared(side: Side) -> Counter[tuple[str, str]]:
    """(namespace, declared split) -> rows."""
    counts: Counter[tuple[str, str]] = Counter()
    for clip in side.clip:
        if clip != NO_CLIP and side.identities[clip]:
            counts[side.identities[clip][0].namespace, side.splits[clip]] += 1
    return counts
