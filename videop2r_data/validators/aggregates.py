"""From the scores of questions to the numbers that a protocol names, each with its interval.

Questions about one clip are not independent: intervals draw clips, with all of their questions, and take the
whole statistic of each draw. Rows without an answer are rows with a score of 0; none is left out here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from videop2r_data.schemas import Aggregate
from videop2r_data.validators.estimate import (
    CountedEstimate,
    estimate_mean,
    in_parts,
    middle,
    wilson,
    worth_of_clips,
)
from videop2r_data.validators.scored import ScoredRow, units_of

if TYPE_CHECKING:
    from videop2r_data.validators.estimate import Floats


class Cells:
    """The sums of each clip and category, of which any draw of clips has its statistic in one product.

    Attributes:
        values, clips: of each unit that counts.
        n: questions behind them.
        total, count: (C clips, K categories) scores and units.
        parts: the columns of each category after `merge`; the statistic is the mean over parts of the mean
            over columns of `total / count`.
    """

    def __init__(self, spec: Aggregate, rows: Sequence[ScoredRow], without: Collection[int] = ()) -> None:
        """Sum up.

        Args:
            without: `order` of rows that are left out, though their clips are drawn.

        Raises:
            ConfigError: groups whose structure cannot be read.
        """
        import numpy as np  # takes 0.1 s to load, and scoring needs none of it

        units = list(units_of(spec, rows))
        counted = [unit for unit in units if not any(order in without for order in unit.orders)]
        self.n = sum(len(unit.orders) for unit in counted)
        self.values = [unit.value for unit in counted]
        self.clips = [unit.clip for unit in counted]
        clips = {clip: i for i, clip in enumerate(dict.fromkeys(unit.clip for unit in units))}
        names = {name: k for k, name in enumerate(dict.fromkeys(unit.category for unit in units))}
        shape = len(clips), len(names)
        size = shape[0] * shape[1]
        cell = [clips[unit.clip] * shape[1] + names[unit.category] for unit in counted]
        index = np.asarray(cell, dtype=np.int64)
        self.total: Floats = np.asarray(np.bincount(index, self.values, size), float).reshape(shape)
        self.count: Floats = np.asarray(np.bincount(index, minlength=size), float).reshape(shape)
        merged = {old: new for new, olds in spec.merge.items() for old in olds}
        parts: dict[str, list[int]] = {}
        for name, column in names.items():
            parts.setdefault(merged.get(name, name), []).append(column)
        self.parts = list(parts.values())

    @property
    def value(self) -> float:
        """The statistic."""
        return float(self.combined(self.total.sum(axis=0)[None], self.count.sum(axis=0)[None])[0])

    def combined(self, total: Floats, count: Floats) -> Floats:
        """The statistic of sums by category, (R, K) each; (R,)."""
        import numpy as np

        # A category of which a draw holds nothing is left out of its mean: division by 0 masks it.
        means = np.ma.divide(total, count)
        parts = np.ma.stack([means[:, part].mean(axis=1) for part in self.parts])
        return np.asarray(parts.mean(axis=0).filled(np.nan))

    def drawn(self, *others: Cells, resamples: int = 2000) -> Iterator[tuple[Floats, ...]]:
        """The statistic of this and of others over the same draws of clips, (r,) each, chunk by chunk."""
        import numpy as np

        clips = len(self.total)
        rng = np.random.default_rng(0)
        for size in in_parts(resamples, clips):
            picked = rng.integers(0, clips, size=(size, clips)) + np.arange(size)[:, None] * clips
            times = np.bincount(picked.ravel(), minlength=size * clips).reshape(size, clips).astype(float)
            yield tuple(one.combined(times @ one.total, times @ one.count) for one in (self, *others))


def aggregate(
    spec: Aggregate, rows: Sequence[ScoredRow], *, level: float = 0.95, resamples: int = 2000
) -> CountedEstimate | None:
    """The number of a protocol with its interval; in [0, 1], whatever `scale` it is printed in.

    A mean of scores that are all 0 or 1 has Wilson's interval, for as many independent questions as the
    questions of the clips are worth; all else the percentile bootstrap over clips, of the whole statistic.
    Equal for equal rows.

    Args:
        spec: the protocol.
        rows: all questions of the benchmark; those without an answer have a score of 0.
        level: probability that the interval holds the number.
        resamples: draws of clips.

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
    plain = len(cells.parts) == 1
    if plain and len(cells.total) == len(cells.values):
        found = estimate_mean(cells.values, level=level, resamples=resamples)
        return None if found is None else found.model_copy(update={"n": cells.n})
    value = cells.value
    if set(cells.values) <= {0.0, 1.0} and (plain or len(set(cells.values)) == 1):
        worth = worth_of_clips([one - value for one in cells.values], cells.clips)
        share = wilson(value * worth, worth, level=level)
        return CountedEstimate(**dict(share) | {"value": value}, n=cells.n, method="wilson")
    low, high = middle((found for (found,) in cells.drawn(resamples=resamples)), level)
    return CountedEstimate(value=value, low=low, high=high, n=cells.n, method="bootstrap")


def gain_of_rows(spec: Aggregate, rows: Sequence[ScoredRow], some: Collection[int]) -> CountedEstimate | None:
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
    every, rest = Cells(spec, rows), Cells(spec, rows, without=some)
    if not rest.n:
        return None
    low, high = middle(a - b for a, b in every.drawn(rest))
    return CountedEstimate(value=every.value - rest.value, low=low, high=high, n=rest.n, method="bootstrap")
