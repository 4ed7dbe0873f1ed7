"""Shares with Wilson's interval, means with the bootstrap's, and the counts of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist
from typing import Literal

from pydantic import Field

from videop2r_data.schemas import Model

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
    step = max(1, _AT_A_TIME // n)
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    means = np.concatenate([data[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2]).tolist()
    return CountedEstimate(value=float(data.mean()), low=low, high=high, n=n, method="bootstrap")
