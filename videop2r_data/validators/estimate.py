"""A figure with its interval, the counts of a comparison, and the interval of a share."""

from __future__ import annotations

from math import sqrt

from pydantic import Field

from videop2r_data.schemas import Model

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


class Estimate(Model):
    """A figure with its 95 % interval; all None where nothing was counted."""

    value: float | None
    low: float | None
    high: float | None


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


def wilson(hits: int, total: int) -> Estimate:
    """A share with its 95 % score interval [Wilson 1927].

    >>> e = wilson(190, 200)
    >>> e.value, round(e.low, 4), round(e.high, 4)
    (0.95, 0.9104, 0.9726)
    """
    if total == 0:
        return Estimate(value=None, low=None, high=None)
    share, z2 = hits / total, Z95 * Z95
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == total else min(1.0, middle + half)
    return Estimate(value=share, low=low, high=high)
