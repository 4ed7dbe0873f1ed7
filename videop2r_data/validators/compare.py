"""Whether two lists of answers to the same questions differ: by how much, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, computed_field

from videop2r_data.schemas import Aggregate, Model, Unit
from videop2r_data.validators.aggregates import Cells
from videop2r_data.validators.estimate import in_parts, middle
from videop2r_data.validators.scored import ScoredRow

if TYPE_CHECKING:
    from videop2r_data.validators.estimate import Floats

ALPHA = 0.05
"""A difference is real if chance alone gives one as large less often than this."""


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p of McNemar's exact test: of the questions that one of two models alone answers right.

    `2 sum(C(n, i), i <= min(better, worse)) / 2^n`, at most 1. Questions count as independent: where several
    are about one clip, the test of `compare_pair` is the one.

    >>> round(mcnemar(7, 1), 4)
    0.0703
    """
    n = better + worse
    term = below = 1  # of C(n, i): the one at hand, and the sum up to it
    for i in range(min(better, worse)):
        term = term * (n - i) // (i + 1)
        below += term
    p: float = 2 * below / 2**n
    return min(1.0, p)


class Difference(Model):
    """Two models on the same questions, by one protocol; b is held against a."""

    protocol: str
    """id of the aggregate"""
    a: float
    """its value for the first"""
    b: float
    """its value for the second"""
    difference: float
    """b - a, with its 95 % interval"""
    low: float
    high: float
    n: int = Field(ge=1)
    """questions"""
    clips: int = Field(ge=1)
    """clips that they are about"""
    better: int = Field(ge=0)
    """questions (or groups) that the second answers better"""
    worse: int = Field(ge=0)
    """questions (or groups) that the second answers worse"""
    mcnemar_p: Unit
    """exact, of better and worse as independent questions; of graded scores it is the sign test"""
    p: Unit
    """how often chance alone gives a difference as large: answers to each clip swapped at random"""
    p_holm: Unit
    """the same, if several comparisons were made; p, if it is the only one"""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Literal["real", "not shown"]:
        """real: `p_holm` is below 0.05."""
        return "real" if self.p_holm < ALPHA else "not shown"


def compare_pair(
    spec: Aggregate, a: Sequence[ScoredRow], b: Sequence[ScoredRow], *, resamples: int = 2000
) -> Difference | None:
    """Hold a second list of answers against a first one.

    The interval is that of the paired bootstrap over clips, of the whole statistic. p is that of the
    permutation test over clips, `(1 + as large) / (1 + resamples)`: right for few clips, where percentiles
    of the bootstrap are too narrow.

    Args:
        spec: the protocol.
        a: the first model's questions.
        b: the second model's: the same questions, in any order.
        resamples: draws of clips, and of swaps.

    Returns:
        The difference; None if no question counts.

    Raises:
        ValueError: the questions differ.
        ConfigError: as `aggregate`.
    """
    import numpy as np

    pair = [sorted(rows, key=lambda row: row.order) for rows in (a, b)]
    told = [[(row.order, row.clip, row.problem_type, dict(row.tags)) for row in rows] for rows in pair]
    if told[0] != told[1]:
        raise ValueError(f"{len(a)} and {len(b)} questions that are not the same: no pairs")
    first, second = (Cells(spec, rows) for rows in pair)
    if first.n == 0:
        return None
    difference = second.value - first.value
    low, high = middle(y - x for x, y in first.drawn(second, resamples=resamples))
    # Sums in another order differ in the last digits, which is no smaller a difference.
    gap = abs(difference) * (1 - 1e-9)
    larger = sum(int((np.abs(one) >= gap).sum()) for one in _swapped(first, second, resamples))
    changes = [y - x for x, y in zip(first.values, second.values, strict=True)]
    better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    p = (1 + larger) / (1 + resamples)
    return Difference(
        protocol=spec.id, a=first.value, b=second.value, difference=difference, low=low, high=high,
        n=first.n, clips=len(first.total), better=better, worse=worse, mcnemar_p=mcnemar(better, worse),
        p=p, p_holm=p,
    )  # fmt: skip


def _swapped(first: Cells, second: Cells, resamples: int) -> Iterator[Floats]:
    """Differences with the answers to each clip swapped, or not, at random; (r,) each, chunk by chunk."""
    import numpy as np

    clips = len(first.total)
    rng = np.random.default_rng(0)
    both = (first.total + second.total).sum(axis=0)
    for size in in_parts(resamples, clips):
        kept = rng.integers(0, 2, size=(size, clips)).astype(np.float64)
        other = kept @ first.total + (1 - kept) @ second.total
        count = np.broadcast_to(first.count.sum(axis=0), other.shape)
        yield first.combined(both - other, count) - first.combined(other, count)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of a family, each as large as the chance of any false finding up to it [Holm 1979].

    Of twenty comparisons of equal models one has a p below 0.05 on average; that any has a p of Holm's below
    0.05 happens once in twenty such families.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted
