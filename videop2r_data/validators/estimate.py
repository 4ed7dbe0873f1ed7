"""Shares with Wilson's interval, means with the bootstrap's, and the counts of a comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from videop2r_data.schemas import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_AT_A_TIME = 4_000_000
"""Drawn indices that are held in memory at once."""


class Estimate(Model):
    """A figure with its 95 % interval; all None where nothing was counted."""

    value: float | None
    low: float | None
    high: float | None


class CountedEstimate(Model):
    """A mean over n questions and its confidence interval."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    method: Literal["wilson", "bootstrap"]


class Confusion(Model):
    """Counts of verdicts against labels; what was not scored is in none of the four."""

    true_positive: int = Field(default=0, ge=0)
    false_positive: int = Field(default=0, ge=0)
    false_negative: int = Field(default=0, ge=0)
    true_negative: int = Field(default=0, ge=0)

    @property
    def total(self) -> int:
        """Verdicts that were compared."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative


def wilson(hits: float, total: float, *, level: float = 0.95) -> Estimate:
    """A share with its score interval [Wilson 1927].

    `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`; right for few questions and for shares near 0 and
    1, where the normal approximation is not.

    Args:
        hits: 0 to `total`.
        total: how many were counted, or what they are worth; 0 gives an estimate without numbers.
        level: probability that the interval holds the share.

    >>> e = wilson(190, 200)
    >>> e.value, round(e.low, 4), round(e.high, 4)
    (0.95, 0.9104, 0.9726)
    """
    if total == 0:
        return Estimate(value=None, low=None, high=None)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, z2 = hits / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    # The ends are exact where nothing or everything was hit; rounding would leave 1e-17 there.
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == total else min(1.0, middle + half)
    return Estimate(value=share, low=low, high=high)


def worth_of_clips(deviations: Sequence[float], clips: Sequence[str]) -> float:
    """How many independent questions the questions of clips are worth, for a figure made of shares.

    The variance of the figure if all questions were independent over its variance between clips (as a ratio
    estimator) [Korn and Graubard 1998]: `n S (C - 1) / (C B)`, where S sums the squares of the deviations and
    B those of their sums by clip. At most n; C where nothing deviates, so that nothing says how clips differ.

    Args:
        deviations: (n,) what each question adds to the figure's deviation from its expectation, in any unit.
        clips: (n,) the clip of each; C different ones.
    """
    sums: dict[str, float] = defaultdict(float)
    for deviation, clip in zip(deviations, clips, strict=True):
        sums[clip] += deviation
    n, count = len(clips), len(sums)
    between = sum(one * one for one in sums.values())
    alone = sum(one * one for one in deviations)
    if count in (1, n) or alone == 0:
        return float(count)
    return min(float(n), n * alone * (count - 1) / (count * between)) if between else float(n)


def estimate_share(hits: int, n: int, *, level: float = 0.95) -> CountedEstimate | None:
    """A share of n questions by `wilson`; None for n = 0.

    >>> half = estimate_share(5, 10)
    >>> round(half.low, 4), round(half.high, 4)
    (0.2366, 0.7634)
    """
    return CountedEstimate(**dict(wilson(hits, n, level=level)), n=n, method="wilson") if n else None


def estimate_mean(
    values: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> CountedEstimate | None:
    """A mean of n questions; None for n = 0.

    Values that are all 0 or 1 are a share. Else the percentile bootstrap over questions: equal for equal
    values, settings and seed.

    Args:
        values: one per question.
        level: probability that the interval holds the mean.
        resamples: means that are drawn.
        seed: of the draw.
    """
    n = len(values)
    if n == 0:
        return None
    if all(value in (0.0, 1.0) for value in values):
        return estimate_share(round(sum(values)), n, level=level)
    import numpy as np  # takes 0.1 s to load, and scoring needs none of it

    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = (data[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in in_parts(resamples, n))
    low, high = middle(means, level)
    return CountedEstimate(value=float(data.mean()), low=low, high=high, n=n, method="bootstrap")


def in_parts(resamples: int, n: int) -> Iterator[int]:
    """How many draws of n things are made at once."""
    step = max(1, _AT_A_TIME // n)
    return (min(step, resamples - done) for done in range(0, resamples, step))


def middle(drawn: Iterable[Floats], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds a share `level` of the draws, as much left out at either end."""
    import numpy as np

    low, high = np.nanquantile(np.concatenate(list(drawn)), [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return low, high
