"""From the scores of questions to the numbers that a protocol names, each with its interval.

Questions about one clip are not independent: intervals draw clips, with all of their questions, and take the
whole statistic of each draw. Rows without an answer are rows with a score of 0; none is left out here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from videop2r_data.schemas import Aggregate
from videop2r_data.validators.estimate import CountedEstimate, estimate_mean, wilson
from videop2r_data.validators.scored import ScoredRow, units_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_AT_A_TIME = 4_000_000
"""Drawn clips that are held in memory at once."""


class Cells:
    """The sums of each clip and category, of which any draw of clips has its statistic in one product.

    Attributes:
        total, count: (C clips, K categories) scores and questions.
        parts: the columns of each category after `merge`; the statistic is the mean over parts of the mean
            over columns of `total / count`.
        values: of each unit that counts.
        n: questions behind it.
    """

    def __init__(self, spec: Aggregate, rows: Sequence[ScoredRow]) -> None:
        """Sum up.

        Raises:
            ConfigError: groups whose structure cannot be read.
        """
        import numpy as np  # takes 0.1 s to load, and scoring needs none of it

        units = list(units_of(spec, rows))
        self.n = sum(unit.n for unit in units)
        self.values = [unit.value for unit in units]
        clips = {clip: i for i, clip in enumerate(dict.fromkeys(unit.clip for unit in units))}
        names = {name: k for k, name in enumerate(dict.fromkeys(unit.category for unit in units))}
        shape = len(clips), len(names)
        size = shape[0] * shape[1]
        cell = [clips[unit.clip] * shape[1] + names[unit.category] for unit in units]
        index = np.asarray(cell, dtype=np.int64)
        self.total: Floats = np.asarray(np.bincount(index, self.values, size), float).reshape(shape)
        self.count: Floats = np.asarray(np.bincount(index, minlength=size), float).reshape(shape)
        merged = {old: new for new, olds in spec.merge.items() for old in olds}
        parts: dict[str, list[int]] = {}
        for name, column in names.items():
            parts.setdefault(merged.get(name, name), []).append(column)
        self.parts = list(parts.values())

    def value(self, weights: Floats | None = None) -> Floats:
        """The statistic of draws; (R,).

        Args:
            weights: (R draws, C clips) how often each clip was drawn; None: one draw, each once.
        """
        import numpy as np

        drawn = np.ones((1, len(self.total))) if weights is None else weights
        return self.combined(drawn @ self.total, drawn @ self.count)

    def combined(self, total: Floats, count: Floats) -> Floats:
        """The statistic of sums by category, (R, K) each; (R,)."""
        import numpy as np

        # A category of which a draw holds nothing is left out of its mean.
        means = np.divide(total, count, out=np.full_like(count, np.nan), where=count > 0)
        return _mean([_mean([means[:, k] for k in part]) for part in self.parts])

    def drawn(self, *others: Cells, resamples: int, seed: int) -> Iterator[tuple[Floats, ...]]:
        """The statistic of this and of others over the same draws of clips, (r,) each, chunk by chunk."""
        import numpy as np

        clips = len(self.total)
        rng = np.random.default_rng(seed)
        step = max(1, _AT_A_TIME // clips)
        for done in range(0, resamples, step):
            size = min(step, resamples - done)
            picked = rng.integers(0, clips, size=(size, clips)) + np.arange(size)[:, None] * clips
            times = np.bincount(picked.ravel(), minlength=size * clips).reshape(size, clips)
            yield tuple(one.value(times.astype(np.float64)) for one in (self, *others))


def _mean(columns: Sequence[Floats]) -> Floats:
    """Mean of columns, those left out that are not a number."""
    import numpy as np

    stacked = np.stack(columns)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    mean: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def aggregate(
    spec: Aggregate, rows: Sequence[ScoredRow], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> CountedEstimate | None:
    """The number of a protocol with its interval; in [0, 1], whatever `scale` it is printed in.

    A mean of scores that are all 0 or 1 has Wilson's interval, for as many independent questions as the
    questions of the clips are worth; all else the percentile bootstrap over clips, of the whole statistic.
    Equal for equal rows and seed.

    Args:
        spec: the protocol.
        rows: all questions of the benchmark; those without an answer have a score of 0.
        level: probability that the interval holds the number.
        resamples: draws of clips.
        seed: of the draws.

    Returns:
        The estimate, n being the questions behind it; None if none counts.

    Raises:
        ConfigError: groups whose structure cannot be read.

    >>> told = [(1, "a"), (1, "a"), (0, "b")]
    >>> rows = [ScoredRow(score, {"task": t}, "numerical", "", i) for i, (score, t) in enumerate(told)]
    >>> aggregate(Aggregate(id="macro", how="macro", by="task"), rows).value
    0.5
    """
    cells = Cells(spec, rows)
    if cells.n == 0:
        return None
    if len(cells.parts) == 1 and len(cells.total) == len(cells.values):
        plain = estimate_mean(cells.values, level=level, resamples=resamples, seed=seed)
        return None if plain is None else plain.model_copy(update={"n": cells.n})
    value = float(cells.value()[0])
    if set(cells.values) <= {0.0, 1.0} and (len(cells.parts) == 1 or len(set(cells.values)) == 1):
        worth = _worth(cells, value)
        share = wilson(value * worth, worth, level=level)
        return CountedEstimate(**dict(share) | {"value": value}, n=cells.n, method="wilson")
    low, high = middle([found for (found,) in cells.drawn(resamples=resamples, seed=seed)], level)
    return CountedEstimate(value=value, low=low, high=high, n=cells.n, method="bootstrap")


def _worth(cells: Cells, share: float) -> float:
    """How many independent questions the questions of the clips are worth, for a share.

    `p(1-p)` over the variance of the share between clips (as a ratio estimator); at most the questions, and
    as many as the clips where all answers are alike, so that nothing says how clips differ [Korn and
    Graubard 1998].
    """
    clips, questions = len(cells.total), len(cells.values)
    if clips == 1 or share in (0.0, 1.0):
        return float(clips)
    spread = float(((cells.total.sum(axis=1) - share * cells.count.sum(axis=1)) ** 2).sum())
    variance = clips / (clips - 1) * spread / questions**2
    return min(questions, share * (1 - share) / variance) if variance > 0 else questions


def middle(drawn: Sequence[Floats], level: float) -> tuple[float, float]:
    """The interval that holds a share `level` of the draws, as much left out at either end."""
    import numpy as np

    low, high = np.nanquantile(np.concatenate(drawn), [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return low, high


def cells_of_pair(spec: Aggregate, a: Sequence[ScoredRow], b: Sequence[ScoredRow]) -> tuple[Cells, Cells]:
    """The sums of two lists of the same questions, in one order of clips and categories.

    Raises:
        ValueError: the questions differ.
    """
    pair = [sorted(rows, key=lambda row: row.order) for rows in (a, b)]
    told = [[(row.order, row.clip, row.problem_type, dict(row.tags)) for row in rows] for rows in pair]
    if told[0] != told[1]:
        raise ValueError(f"{len(a)} and {len(b)} questions that are not the same: no pairs")
    return Cells(spec, pair[0]), Cells(spec, pair[1])


def gain_of_rows(
    spec: Aggregate,
    rows: Sequence[ScoredRow],
    some: Collection[int],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> CountedEstimate | None:
    """How much some of the rows raise a number: that of all rows minus that of the others.

    Both are taken of the same draws of clips.

    Args:
        spec: the protocol.
        rows: all questions of the benchmark.
        some: `order` of the rows in question.

    Returns:
        The difference, n being the questions that are left without them; None if none counts.

    >>> rows = [ScoredRow(score, {}, "numerical", "", i) for i, score in enumerate((1, 1, 0, 1))]
    >>> gain_of_rows(Aggregate(id="mean"), rows, {0, 1}).value
    0.25
    """
    import numpy as np

    others = [row for row in rows if row.order not in some]
    every, rest = Cells(spec, rows), Cells(spec, others)
    if not rest.n:
        return None
    clips = {clip: i for i, clip in enumerate(dict.fromkeys(unit.clip for unit in units_of(spec, rows)))}
    there = [clips[clip] for clip in dict.fromkeys(unit.clip for unit in units_of(spec, others))]
    for sums in ("total", "count"):  # of all clips, so that both have the same draws
        wide = np.zeros((len(clips), getattr(rest, sums).shape[1]))
        wide[there] = getattr(rest, sums)
        setattr(rest, sums, wide)
    drawn = every.drawn(rest, resamples=resamples, seed=seed)
    low, high = middle([a - b for a, b in drawn], level)
    value = float(every.value()[0] - rest.value()[0])
    return CountedEstimate(value=value, low=low, high=high, n=rest.n, method="bootstrap")


def knowledge_gain(
    before: Sequence[ScoredRow],
    after: Sequence[ScoredRow],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> CountedEstimate | None:
    """`(after - before) / (1 - before)` of the means over the same questions [VideoMMMU].

    1 if all that was wrong is right now, negative if answers got worse.

    Returns:
        The estimate; None without questions, or if all were right before.

    Raises:
        ValueError: the questions differ.
    """
    first, second = cells_of_pair(Aggregate(id="mean"), before, after)
    start, end = (float(one.value()[0]) if one.n else 1.0 for one in (first, second))
    if start == 1.0:
        return None
    draws = first.drawn(second, resamples=resamples, seed=seed)
    # A draw of which all was right before says nothing.
    low, high = middle([(b[a < 1] - a[a < 1]) / (1 - a[a < 1]) for a, b in draws], level)
    gain = (end - start) / (1 - start)
    return CountedEstimate(value=gain, low=low, high=high, n=first.n, method="bootstrap")
