"""The profile `robust`: what a careful grader accepts, and nothing that one would refuse."""

from __future__ import annotations

from collections.abc import Callable

from videop2r_data.schemas import Policy, ProblemType, Score, ScoreReason
from videop2r_data.validators import metrics
from videop2r_data.validators.choice import read_choice
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.grading import (
    MATCH,
    bad_reference,
    binary,
    bounded_rouge,
    grade_text,
    graded,
    pair,
    too_long,
    zero,
)
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.options import option_set, same_option
from videop2r_data.validators.quantity import Quantity, same_number
from videop2r_data.validators.references import check_reference, reference_labels, reference_number
from videop2r_data.validators.several import read_several
from videop2r_data.validators.text import fold, marked_words
from videop2r_data.validators.units import MULTIPLIERS, same_unit

_SHORT = 200
QUOTES = "\"'“”‘’`* "


def _choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right = reference_labels(reference, options)
    if right is None:
        return bad_reference(check_reference(ProblemType.MULTIPLE_CHOICE, reference, options) or "")
    known = option_set(options)
    named = read_choice(prediction, known, policy)
    if len(right) > 1:
        given = read_several(prediction, known, policy)
        if given is not None:
            return binary(given == right, prediction, reference)
    elif named.label is not None:
        return binary(same_option(named.label, min(right), known), prediction, reference)
    return MATCH if _same_text(prediction, reference) else zero(named.reason, pair(prediction, reference))


def _same_text(prediction: str, reference: str) -> bool:
    """Whether an answer that the policy refuses to read is the very text of a readable reference."""
    if len(prediction) > 2 * len(reference) + 100:
        return False
    return fold(prediction) == fold(reference)


def _numbers(
    prediction: str, reference: str, policy: Policy, judge: Callable[[Quantity, Quantity], float]
) -> Score:
    """Read both, compare units, and grade; percent and fraction are tried against each other if allowed."""
    right = reference_number(reference)
    if isinstance(right, ScoreReason):
        return bad_reference(f"{reference[:60]!r} is not one number ({right.value})")
    given = parse_quantity(prediction, policy)
    if isinstance(given, ScoreReason):
        return MATCH if _same_text(prediction, reference) else zero(given, pair(prediction, reference))
    values = []
    if _units_agree(given.unit, right.unit, policy):
        values.append(judge(given, right))
    if policy.percent_as_fraction and {given.unit, right.unit} == {"%", ""}:
        values.append(judge(_without_percent(given), _without_percent(right)))
    if not values:
        return zero(ScoreReason.UNIT_MISMATCH, pair(prediction, reference))
    return graded(max(values), prediction, reference)


def _units_agree(given: str, right: str, policy: Policy) -> bool:
    """Whether numbers with these units may be compared; a symbol that may multiply is never left out."""
    if same_unit(given, right):
        return True
    if given in MULTIPLIERS or right in MULTIPLIERS:
        return False
    return right == "" or (given == "" and policy.missing_unit)


def _without_percent(number: Quantity) -> Quantity:
    if number.unit != "%":
        return number
    step = None if number.step is None else number.step / 100
    return Quantity(number.value / 100, step, number.decimals + 2, "")


def _numerical(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return _numbers(prediction, reference, policy, _equal)


def _equal(given: Quantity, right: Quantity) -> float:
    try:
        return float(same_number(given, right))
    except ArithmeticError:  # beyond what a float holds, against a root or fraction
        return 0.0


def _regression(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return _numbers(prediction, reference, policy, _relative)


def _relative(given: Quantity, right: Quantity) -> float:
    try:
        return metrics.relative_accuracy(float(given.value), float(right.value))
    except OverflowError:
        return float(given.value == right.value)


def _ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return grade_text(prediction, reference, lambda t: _ocr_key(t, policy), metrics.word_error_rate)


def _ocr_key(text: str, policy: Policy) -> str:
    folded = fold(text)
    bare = folded.strip(QUOTES) or folded
    return bare.casefold() if policy.ignore_case else bare


def _free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right = fold(reference)
    if not metrics.rouge_tokens(right, any_script=True):
        return bad_reference(f"{reference[:60]!r} holds neither letters nor digits")
    if too_long(prediction, reference):
        return zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    given = fold(prediction)
    if not given.strip(QUOTES + ".,;:!?"):
        return zero(ScoreReason.EMPTY_ANSWER)
    edges = QUOTES + ".!。"
    if right.casefold().strip(edges) == given.casefold().strip(edges):
        return MATCH
    if len(given) <= _SHORT and marked_words(right) == marked_words(given):
        return MATCH  # ROUGE would give one equal word 2/3, for it has no pair of words
    return graded(bounded_rouge(right, given, any_script=True), prediction, reference)


def _temporal(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right, given = parse_interval(reference), parse_interval(prediction)
    if isinstance(right, ScoreReason):
        return bad_reference(f"{reference[:60]!r} is no interval [start, end] in seconds with start < end")
    if isinstance(given, ScoreReason):
        return zero(given, pair(prediction, reference))
    return graded(metrics.interval_iou(given, right), prediction, reference)


def _spatial(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right, given = parse_box(reference), parse_box(prediction)
    if isinstance(right, ScoreReason):
        return bad_reference(f"{reference[:60]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    if isinstance(given, ScoreReason):
        return zero(given, pair(prediction, reference))
    scaled = [coordinate * policy.box_scale for coordinate in given]
    return graded(metrics.box_iou(scaled, right), prediction, reference)


BY_TYPE: dict[ProblemType, Callable[[str, str, tuple[str, ...], Policy], Score]] = {
    ProblemType.MULTIPLE_CHOICE: _choice,
    ProblemType.NUMERICAL: _numerical,
    ProblemType.OCR: _ocr,
    ProblemType.FREE_FORM: _free_form,
    ProblemType.REGRESSION: _regression,
    ProblemType.TEMPORAL_GROUNDING: _temporal,
    ProblemType.SPATIAL_GROUNDING: _spatial,
}
