"""Agreement of a judge with people: agreement, Cohen's kappa, precision and recall, with intervals."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from videop2r_data.schemas import Model
from videop2r_data.validators.estimate import Confusion, Estimate, wilson

# Cohen's kappa of two raters with an interval that holds for few items too.


FEW = 10
"""Below so many items, or where one side says only one thing, kappa says next to nothing."""
_PRIOR = 0.5
_POINTS = 64
_GRID = 4096
_TAILS = (0.025, 0.975)


def kappa(c: Confusion) -> Estimate:
    """Cohen's kappa [Cohen 1960] with its central 95 % interval under Jeffreys' prior.

    The four probabilities have a Dirichlet posterior (counts + 1/2). The share of equal verdicts and the two
    splits, of the equal and of the unequal ones, are then independent Beta variables. The distribution of
    kappa is summed over the midpoints of their quantiles: no draw, the same figure each time. Simulated, the
    interval covers 86 to 97 % from 10 items on (`tests/validators/test_agreement.py`); that of the
    large-sample standard error covers 22 % at 10 and 46 % at 20, and is 0 to 0 for two.

    Undefined (None) where both sides always say the same one thing: chance then explains everything.
    """
    n = c.total
    if n == 0:
        return Estimate(value=None, low=None, high=None)
    label = (c.true_positive + c.false_negative) / n
    judge = (c.true_positive + c.false_positive) / n
    observed = (c.true_positive + c.true_negative) / n
    chance = label * judge + (1 - label) * (1 - judge)
    if chance >= 1.0:
        return Estimate(value=None, low=None, high=None)
    value = (observed - chance) / (1 - chance)
    low, high = _interval(c.true_positive, c.false_positive, c.false_negative, c.true_negative)
    if c.false_positive + c.false_negative == 0:
        high = 1.0  # the posterior has no weight at a perfect agreement, which the counts do not rule out
    return Estimate(value=value, low=max(-1.0, min(low, value)), high=min(1.0, max(high, value)))


def says_little(c: Confusion) -> bool:
    """Whether there are too few items for a kappa that means anything, or one side says only one thing."""
    positives = c.true_positive + c.false_negative
    verdicts = c.true_positive + c.false_positive
    return c.total < FEW or positives in (0, c.total) or verdicts in (0, c.total)


@lru_cache(maxsize=256)
def _interval(tp: int, fp: int, fn: int, tn: int) -> tuple[float, float]:
    import numpy as np

    equal = _quantiles(tp + tn + 2 * _PRIOR, fp + fn + 2 * _PRIOR)[:, None, None]
    both_yes = _quantiles(tp + _PRIOR, tn + _PRIOR)[None, :, None]
    label_yes = _quantiles(fn + _PRIOR, fp + _PRIOR)[None, None, :]
    label = equal * both_yes + (1 - equal) * label_yes
    judge = equal * both_yes + (1 - equal) * (1 - label_yes)
    chance = label * judge + (1 - label) * (1 - judge)
    low, high = np.quantile((equal - chance) / (1 - chance), _TAILS)
    return float(low), float(high)


def _quantiles(a: float, b: float) -> Any:
    """Midpoint quantiles of Beta(a, b), float64 [64]; summed over x = sin² t: no edge is infinite."""
    import numpy as np

    t = (np.arange(_GRID) + 0.5) * (np.pi / 2 / _GRID)
    log_density = (2 * a - 1) * np.log(np.sin(t)) + (2 * b - 1) * np.log(np.cos(t))
    density = np.exp(log_density - log_density.max())
    cumulated = np.cumsum(density) - density / 2
    wanted = (np.arange(_POINTS) + 0.5) / _POINTS
    return np.sin(np.interp(wanted, cumulated / density.sum(), t)) ** 2


# "Positive" is *sufficient*: a false positive is an observation that the judge lets through and people
# do not.


class Agreement(Model):
    """Everything that a confusion says."""

    confusion: Confusion
    agreement: Estimate
    """Share of equal verdicts; Wilson interval."""
    kappa: Estimate
    """Cohen's kappa: agreement beyond chance; interval as in `kappa`."""
    precision: Estimate
    """Of what the judge lets through, the share that people call sufficient; Wilson interval."""
    recall: Estimate
    """Of what people call sufficient, the share that the judge lets through; Wilson interval."""
    specificity: Estimate
    """Of what people call insufficient, the share that the judge stops; Wilson interval."""
    too_few: bool = False
    """Under ten items, or one side says only one thing: kappa says next to nothing."""


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
        kappa=kappa(c),
        precision=wilson(tp, tp + fp),
        recall=wilson(tp, tp + fn),
        specificity=wilson(tn, tn + fp),
        too_few=says_little(c),
    )
