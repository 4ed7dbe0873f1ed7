"""Whether two lists of answers to the same questions differ: by how much, how surely, what could be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from videop2r_data.schemas import Aggregate, Model, Unit
from videop2r_data.validators.aggregates import Cells, cells_of_pair, middle
from videop2r_data.validators.scored import ScoredRow

if TYPE_CHECKING:
    from videop2r_data.validators.aggregates import Floats

_AT_A_TIME = 4_000_000
ALPHA = 0.05
"""A difference is real if chance alone gives one as large less often than this."""
_POWER = 1.959964 + 0.841621
"""Standard errors that a difference must have to be shown in four of five tries: z(0.975) + z(0.8)."""


class McNemar(NamedTuple):
    """The exact test of questions that one of two models answers right and the other wrong.

    Attributes:
        better: questions that the second answers better.
        worse: questions that it answers worse.
        p: two-sided, exact (binomial); conservative.
        mid_p: the same less half the probability of what was seen: nearer to what it says.
    """

    better: int
    worse: int
    p: float
    mid_p: float


def mcnemar(better: int, worse: int) -> McNemar:
    """McNemar's exact test, and its mid-p version [Fagerland, Lydersen and Laake 2013].

    Questions count as independent: where several are about one clip, the test of `compare_pair` is the one.

    >>> found = mcnemar(7, 1)
    >>> round(found.p, 4), round(found.mid_p, 4)
    (0.0703, 0.0391)
    """
    n, fewer = better + worse, min(better, worse)
    term = below = 1  # of C(n, i): the one at hand, and the sum up to it
    for i in range(fewer):
        term = term * (n - i) // (i + 1)
        below += term
    return McNemar(better, worse, min(1.0, 2 * below / 2**n), (2 * below - term) / 2**n)


class Difference(Model):
    """Two models on the same questions, by one protocol; b is held against a."""

    protocol: str
    """id of the aggregate"""
    a: float
    """its value for the first"""
    b: float
    """its value for the second"""
    difference: float
    """b - a"""
    low: float
    """of its interval"""
    high: float
    """of its interval"""
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
    mcnemar_mid_p: Unit
    """the same, mid-p"""
    p: Unit
    """how often chance alone gives a difference as large: answers to each clip swapped at random"""
    p_holm: Unit
    """the same, if several comparisons were made; p, if it is the only one"""
    smallest: float | None
    """difference that these questions would show in four of five tries; None: no difference would, or graded
    scores differ in nothing, so that nothing says how they vary"""
    verdict: Literal["real", "not shown"]
    """real: `p_holm` is below 0.05"""


def compare_pair(
    spec: Aggregate,
    a: Sequence[ScoredRow],
    b: Sequence[ScoredRow],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Difference | None:
    """Hold a second list of answers against a first one.

    The interval is that of the paired bootstrap over clips, of the whole statistic. p is that of the
    permutation test over clips, `(1 + as large) / (1 + resamples)`: right for few clips, where percentiles
    of the bootstrap are too narrow.

    Args:
        spec: the protocol.
        a: the first model's questions.
        b: the second model's: the same questions, in any order.
        level: probability that the interval holds the difference.
        resamples: draws of clips, and of swaps.
        seed: of the draws.

    Returns:
        The difference; None if no question counts.

    Raises:
        ValueError: the questions differ.
        ConfigError: as `aggregate`.
    """
    import numpy as np

    first, second = cells_of_pair(spec, a, b)
    if first.n == 0:
        return None
    start, end = float(first.value()[0]), float(second.value()[0])
    drawn = [y - x for x, y in first.drawn(second, resamples=resamples, seed=seed)]
    low, high = middle(drawn, level)
    # Sums in another order differ in the last digits, which is no smaller a difference.
    gap = abs(end - start) * (1 - 1e-9)
    larger = sum(int((np.abs(one) >= gap).sum()) for one in _swapped(first, second, resamples, seed))
    p = (1 + larger) / (1 + resamples)
    flips = [y - x for x, y in zip(first.values, second.values, strict=True)]
    test = mcnemar(sum(flip > 0 for flip in flips), sum(flip < 0 for flip in flips))
    spread = float(np.nanstd(np.concatenate(drawn)))
    binary = {*first.values, *second.values} <= {0.0, 1.0}
    return Difference(
        protocol=spec.id,
        a=start,
        b=end,
        difference=end - start,
        low=low,
        high=high,
        n=first.n,
        clips=len(first.total),
        better=test.better,
        worse=test.worse,
        mcnemar_p=test.p,
        mcnemar_mid_p=test.mid_p,
        p=p,
        p_holm=p,
        smallest=_smallest(spread, flips if binary else (), len(first.total)),
        verdict="real" if p < ALPHA else "not shown",
    )


def _swapped(first: Cells, second: Cells, resamples: int, seed: int) -> Iterator[Floats]:
    """Differences with the answers to each clip swapped, or not, at random; (r,) each, chunk by chunk."""
    import numpy as np

    clips = len(first.total)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // clips)
    both = first.total + second.total
    count = first.count.sum(axis=0)
    for done in range(0, resamples, step):
        kept = rng.integers(0, 2, size=(min(step, resamples - done), clips)).astype(np.float64)
        other = kept @ first.total + (1 - kept) @ second.total
        every = np.broadcast_to(count, other.shape)
        yield first.combined(both.sum(axis=0) - other, every) - first.combined(other, every)


def _smallest(spread: float, flips: Sequence[float], clips: int) -> float | None:
    """The difference that is shown with a power of 0.8.

    Answers that get better are flips, too: of right and wrong answers the variance is that of the flips that
    even out, and of the difference itself, `v (even + d)`, so that `d² = (1.96 + 0.84)² v (even + d)`.

    Args:
        spread: standard error of the difference.
        flips: of each question, 1 better, -1 worse; empty: scores are graded.
        clips: drawn as one.
    """
    if not flips:
        found = _POWER * spread
        return found if 0 < found <= 1 else None
    up, down = (sum(flip == way for flip in flips) / len(flips) for way in (1, -1))
    seen = up + down - (up - down) ** 2
    factor = _POWER**2 * (spread**2 / seen if seen > 0 and spread > 0 else 1 / clips)
    found = (factor + sqrt(factor**2 + 8 * factor * min(up, down))) / 2
    return found if found <= 1 else None


def compare_together(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The same differences, judged as one family: p by Holm's step-down method [Holm 1979].

    Of twenty comparisons of equal models one has a p below 0.05 on average; that any has a p of Holm's below
    0.05 happens once in twenty such families.
    """
    adjusted = holm([one.p for one in found])
    return tuple(
        one.model_copy(update={"p_holm": p, "verdict": "real" if p < ALPHA else "not shown"})
        for one, p in zip(found, adjusted, strict=True)
    )


def holm(ps: Sequence[float]) -> list[float]:
    """p-values of a family, each as large as the chance of any false finding up to it [Holm 1979].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted
