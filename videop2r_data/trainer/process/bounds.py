"""The lengths that a group is paid for: fixed bounds, or bounds that follow the group."""

from __future__ import annotations

import math
from collections.abc import Sequence

from videop2r_data.trainer.process.specs import DynamicLengthSpec, RewardSpec

Bounds = tuple[int, int]
"""Lowest and highest paid length in tokens, both inclusive."""


def group_bounds(
    lengths: Sequence[int], allowed: Sequence[bool], spec: RewardSpec, fixed: Bounds
) -> Bounds | None:
    """The bounds of one process in one group; None: nobody earns the bonus.

    Args:
        lengths: tokens of the process in each of the G rollouts.
        allowed: whether its accuracy and its format are both non-zero.
        fixed: the process's fixed bounds.
    """
    if spec.length == "off":
        return None
    if spec.length == "fixed":
        return fixed
    return dynamic_bounds([n for n, ok in zip(lengths, allowed, strict=True) if ok], spec.dynamic)


def dynamic_bounds(lengths: Sequence[int], spec: DynamicLengthSpec) -> Bounds | None:
    """Quantiles of the lengths of the correct rollouts, widened by the slack; None if they are too few.

    >>> dynamic_bounds([100, 100, 110, 120, 400], DynamicLengthSpec())
    (90, 132)
    >>> dynamic_bounds([100, 400], DynamicLengthSpec()) is None
    True
    """
    if len(lengths) < spec.at_least:
        return None
    ordered = sorted(lengths)
    low, high = _quantile(ordered, spec.low), _quantile(ordered, spec.high)
    # rounded first: 120 * 1.1 is 132.00000000000003, and a token more must not hang on that
    return math.floor(round(low * (1 - spec.slack), 6)), math.ceil(round(high * (1 + spec.slack), 6))


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Linear between the order statistics, as numpy's default."""
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
