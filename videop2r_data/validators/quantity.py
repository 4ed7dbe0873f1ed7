"""A number as an answer prints it, and when two of them are the same."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple


class Quantity(NamedTuple):
    """A number as printed.

    Attributes:
        value: exact (Fraction) unless it holds a root or π (float).
        step: half-open printed precision, 1/100 for `3.14`; None if exact (integers, fractions, roots).
        decimals: printed decimals.
        unit: canonical, `""` if there is none.
    """

    value: Fraction | float
    step: Fraction | None
    decimals: int
    unit: str


def same_number(prediction: Quantity, reference: Quantity) -> bool:
    """Equality at the reference's printed precision; integers, fractions and roots are exact.

    A fraction or root may also be answered by its decimal expansion, rounded to two decimals or more.
    """
    signed = prediction.value - reference.value
    gap = signed if signed >= 0 else -signed
    if isinstance(gap, float):
        scale = abs(float(reference.value))
        if gap <= 1e-9 * max(scale, 1e-300):
            return True
    elif gap == 0 or (reference.step is not None and gap <= reference.step / 2):
        return True
    irrational = isinstance(reference.value, float)
    if reference.step is not None and not irrational:
        return False
    printed = prediction.step is not None and prediction.decimals >= 2
    whole = not irrational and isinstance(reference.value, Fraction) and reference.value.denominator == 1
    if not printed or whole or prediction.step is None:
        return False
    size = abs(float(prediction.value)) / float(prediction.step)
    return size >= 10 and float(gap) <= float(prediction.step) / 2 * (1 + 1e-9)
