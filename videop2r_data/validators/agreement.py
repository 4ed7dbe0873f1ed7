"""How far a judge and people agree: agreement, kappa, precision and recall, each with its interval.

"Positive" is *sufficient*: a false positive is an observation that the judge lets through and people do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

from pydantic import Field

from videop2r_data.schemas.base import Model

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


class Agreement(Model):
    """Everything that a confusion says."""

    confusion: Confusion
    agreement: Estimate
    """Share of equal verdicts; Wilson interval."""
    kappa: Estimate
    """Cohen's kappa: agreement beyond chance; interval by its large-sample standard error."""
    precision: Estimate
    """Of what the judge lets through, the share that people call sufficient; Wilson interval."""
    recall: Estimate
    """Of what people call sufficient, the share that the judge lets through; Wilson interval."""
    specificity: Estimate
    """Of what people call insufficient, the share that the judge stops; Wilson interval."""


def count_confusion(pairs: Iterable[tuple[bool, bool]]) -> Confusion:
    """Count pairs of (label, verdict).

    >>> count_confusion([(True, True), (False, True)]).false_positive
    1
    """
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for pair in pairs:
        counts[pair] += 1
    return Confusion(
        true_positive=counts[True, True],
        false_positive=counts[False, True],
        false_negative=counts[True, False],
        true_negative=counts[False, False],
    )


def measure_agreement(confusion: Confusion) -> Agreement:
    """All figures of a confusion."""
    c = confusion
    tp, fp, fn, tn = c.true_positive, c.false_positive, c.false_negative, c.true_negative
    return Agreement(
        confusion=c,
        agreement=wilson(tp + tn, c.total),
        kappa=_kappa(c),
        precision=wilson(tp, tp + fp),
        recall=wilson(tp, tp + fn),
        specificity=wilson(tn, tn + fp),
    )


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


def _kappa(c: Confusion) -> Estimate:
    """Cohen's kappa and its standard error [Fleiss, Cohen and Everitt 1969, eq. 13].

    Undefined (None) where both sides always say the same one thing: chance then explains everything.
    """
    n = c.total
    if n == 0:
        return Estimate(value=None, low=None, high=None)
    p = [[c.true_positive / n, c.false_negative / n], [c.false_positive / n, c.true_negative / n]]
    label = [sum(row) for row in p]
    judge = [p[0][j] + p[1][j] for j in (0, 1)]
    observed = p[0][0] + p[1][1]
    chance = label[0] * judge[0] + label[1] * judge[1]
    if chance >= 1.0:
        return Estimate(value=None, low=None, high=None)
    kappa = (observed - chance) / (1 - chance)
    diagonal = sum(p[i][i] * (1 - (label[i] + judge[i]) * (1 - kappa)) ** 2 for i in (0, 1))
    crossed = (1 - kappa) ** 2 * sum(p[i][j] * (judge[i] + label[j]) ** 2 for i, j in ((0, 1), (1, 0)))
    spread = diagonal + crossed - (kappa - chance * (1 - kappa)) ** 2
    error = sqrt(max(0.0, spread) / n) / (1 - chance)
    return Estimate(value=kappa, low=max(-1.0, kappa - Z95 * error), high=min(1.0, kappa + Z95 * error))
