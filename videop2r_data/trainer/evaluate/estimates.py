"""Numbers with their uncertainty: shares by Wilson's interval, means by the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from pydantic import Field

from videop2r_data.schemas import Model

_AT_A_TIME = 4_000_000
"""Drawn indices that are held in memory at once."""


class Estimate(Model):
    """A mean over n questions and its confidence interval."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)
    method: Literal["wilson", "bootstrap"]


def share(hits: int, n: int, *, level: float = 0.95) -> Estimate | None:
    """A share of n questions; None for n = 0.

    Wilson's score interval: `(p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)`; right for few questions
    and for shares near 0 and 1, where the normal approximation is not.

    >>> half = share(5, 10)
    >>> round(half.low, 4), round(half.high, 4)
    (0.2366, 0.7634)
    """
    if n == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = hits / n
    centre, width = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    low = 0.0 if hits == 0 else max(0.0, (centre - width) / scale)
    high = 1.0 if hits == n else min(1.0, (centre + width) / scale)
    return Estimate(value=p, low=low, high=high, n=n, method="wilson")


def mean(
    values: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate | None:
    """A mean of n questions; None for n = 0.

    Values that are all 0 or 1 are a share. Else the percentile bootstrap over questions, equal for equal
    values, settings and seed.
    """
    n = len(values)
    if n == 0:
        return None
    if all(value in (0.0, 1.0) for value in values):
        return share(round(sum(values)), n, level=level)
    data = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // n)
    means = np.concatenate(
        [
            data[rng.integers(0, n, size=(min(step, resamples - done), n))].mean(axis=1)
            for done in range(0, resamples, step)
        ]
    )
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(value=float(data.mean()), low=float(low), high=float(high), n=n, method="bootstrap")
