"""How far a judge and people agree: agreement, kappa, precision and recall, each with its interval.

"Positive" is *sufficient*: a false positive is an observation that the judge lets through and people do not.
"""

from __future__ import annotations

from collections.abc import Iterable

from videop2r_data.schemas.base import Model
from videop2r_data.validators.estimate import Confusion, Estimate, wilson
from videop2r_data.validators.kappa import kappa, says_little


class Agreement(Model):
    """Everything that a confusion says."""

    confusion: Confusion
    agreement: Estimate
    """Share of equal verdicts; Wilson interval."""
    kappa: Estimate
    """Cohen's kappa: agreement beyond chance; interval as `validators.kappa` makes it."""
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
