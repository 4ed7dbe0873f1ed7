"""The profile `paper`: as the paper and its predecessor compute it, finite and total.

Where they are undefined, this says nothing rather than something: a reference that cannot be read (no number
for `float`, or empty) makes a row unscorable, for no answer to it could ever be right. The predecessor pays 0
for every answer there, or crashes. `nan` is no number, for which it pays 1.
"""

from __future__ import annotations

from collections.abc import Callable

from videop2r_data.schemas import Policy, ProblemType, Score, ScoreReason
from videop2r_data.validators import metrics, robust
from videop2r_data.validators.grading import (
    bad_reference,
    binary,
    bounded_rouge,
    grade_text,
    graded,
    pair,
    too_long,
    zero,
)
from videop2r_data.validators.numbers import MAX_NUMBER_CHARS, plain_float


def _choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if not reference:
        return bad_reference("the reference is empty")
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    return binary(prediction == reference, prediction, reference)


def _numbers(prediction: str, reference: str) -> tuple[float, float] | Score:
    right = plain_float(reference)
    if right is None:
        return bad_reference(f"{reference[:60]!r} is not one finite number")
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    given = plain_float(prediction) if len(prediction) <= MAX_NUMBER_CHARS else None
    if given is None:
        return zero(ScoreReason.NOT_A_NUMBER, pair(prediction, reference))
    return given, right


def _numerical(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    read = _numbers(prediction, reference)
    if isinstance(read, Score):
        return read
    fractional = [any(c in text for c in ".,") for text in (prediction, reference)]
    same = fractional[0] == fractional[1] and round(read[0], 2) == round(read[1], 2)
    return binary(same, prediction, reference)


def _regression(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    read = _numbers(prediction, reference)
    if isinstance(read, Score):
        return read
    return graded(metrics.relative_accuracy_smoothed(*read), prediction, reference)


def _ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return grade_text(prediction, reference, str, metrics.plain_word_error_rate)


def _free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if not reference:
        return bad_reference("the reference is empty")
    if too_long(prediction, reference):
        return zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    return graded(bounded_rouge(reference, prediction, any_script=False), prediction, reference)


BY_TYPE: dict[ProblemType, Callable[[str, str, tuple[str, ...], Policy], Score]] = robust.BY_TYPE | {
    ProblemType.MULTIPLE_CHOICE: _choice,
    ProblemType.NUMERICAL: _numerical,
    ProblemType.OCR: _ocr,
    ProblemType.FREE_FORM: _free_form,
    ProblemType.REGRESSION: _regression,
}
"""The paper has no grounding: there, both profiles are one."""
