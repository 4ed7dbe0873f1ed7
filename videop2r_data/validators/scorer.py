"""One answer against one reference: the metric of the problem type, under a policy [paper §7.2]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from videop2r_data.schemas import ROBUST, Policy, ProblemType, Score, ScoreReason
from videop2r_data.schemas.sample import strip_answer_tag
from videop2r_data.validators import metrics
from videop2r_data.validators.choice import option_set, read_choice, same_option
from videop2r_data.validators.extract import extract_answer, looks_tagged
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.numbers import parse_quantity, plain_float
from videop2r_data.validators.quantity import Quantity, same_number
from videop2r_data.validators.text import fold, ocr_units

MAX_TEXT_CHARS = 20_000
_MATCH = Score(value=1.0, reason=ScoreReason.MATCH)
_QUOTES = "\"'“”‘’`* "
_EVERY_SWITCH = Policy(number_words=True)
"""How a reference is read: with every reading on, for it is trusted."""


def score(
    problem_type: ProblemType | str,
    *,
    prediction: str,
    reference: str,
    options: Sequence[str] = (),
    policy: Policy = ROBUST,
) -> Score:
    """Score an answer; never raises on any string, linear in the prediction.

    Args:
        problem_type: one of the seven types, or its value.
        prediction: an extracted answer, or a whole completion (any segment tag in it makes it one; then the
            answer is taken by `extract_answer`).
        reference: the reference answer, with or without its `<answer>` tag.
        options: of a multiple-choice question, as in the pool.
        policy: see `Policy`.

    Returns:
        A value in [0, 1], or None (unscorable: bad reference), with its reason.

    Raises:
        ValueError: `problem_type` is none of the seven.

    >>> score("numerical", prediction="1,000", reference="1000").value
    1.0
    >>> score("multiple choice", prediction="A or B", reference="A", options=["A. x", "B. y"]).reason.value
    'several_answers'
    """
    kind = ProblemType(problem_type)
    reference = strip_answer_tag(reference)
    if looks_tagged(prediction):
        found = extract_answer(prediction, policy)
        if found.answer is None:
            fault = _unscorable(kind, reference, options, policy)
            return fault or _zero(found.reason or ScoreReason.NO_ANSWER)
        prediction = found.answer
    if policy.profile == "paper":
        return _PAPER_BY_TYPE[kind](prediction.strip(), reference, tuple(options), policy)
    return _ROBUST_BY_TYPE[kind](prediction, reference, tuple(options), policy)


def check_reference(
    problem_type: ProblemType | str, reference: str, options: Sequence[str] = ()
) -> str | None:
    """What is wrong with a reference, for the pool's report; None if it can be scored against.

    >>> check_reference("multiple choice", "C", ["A. x", "B. y"])
    "'C' names none of the options A, B"
    """
    kind = ProblemType(problem_type)
    reference = strip_answer_tag(reference)
    if not reference.strip():
        return "the reference is empty"
    if len(reference) > MAX_TEXT_CHARS:
        return f"the reference has {len(reference)} characters, {MAX_TEXT_CHARS} at most"
    if kind is ProblemType.MULTIPLE_CHOICE:
        known = option_set(tuple(options))
        if read_choice(reference, known).label is None:
            return f"{reference[:60]!r} names none of the options {', '.join(known.labels)}"
    elif kind in (ProblemType.NUMERICAL, ProblemType.REGRESSION):
        number = _reference_number(reference)
        if isinstance(number, ScoreReason):
            return f"{reference[:60]!r} is not one number ({number.value})"
    elif kind is ProblemType.TEMPORAL_GROUNDING and isinstance(parse_interval(reference), ScoreReason):
        return f"{reference[:60]!r} is no interval [start, end] in seconds with start < end"
    elif kind is ProblemType.SPATIAL_GROUNDING and isinstance(parse_box(reference), ScoreReason):
        return f"{reference[:60]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2"
    elif kind is ProblemType.OCR and not ocr_units(fold(reference)):
        return "the reference holds no text"
    elif kind is ProblemType.FREE_FORM and not metrics.rouge_tokens(fold(reference), any_script=True):
        return f"{reference[:60]!r} holds neither letters nor digits"
    return None


def _unscorable(kind: ProblemType, reference: str, options: Sequence[str], policy: Policy) -> Score | None:
    fault = check_reference(kind, reference, options)
    if fault is None or (policy.profile == "paper" and kind is ProblemType.FREE_FORM and reference):
        return None
    return _bad_reference(fault)


def _bad_reference(fault: str) -> Score:
    return Score(value=None, reason=ScoreReason.BAD_REFERENCE, detail=fault[:300])


def _zero(reason: ScoreReason, detail: str = "") -> Score:
    return Score(value=0.0, reason=reason, detail=detail)


def _graded(value: float, prediction: str, reference: str) -> Score:
    if value >= 1.0:
        return _MATCH
    reason = ScoreReason.PARTIAL if value > 0 else ScoreReason.MISMATCH
    return Score(value=max(0.0, value), reason=reason, detail=_pair(prediction, reference))


def _pair(prediction: str, reference: str) -> str:
    return f"{prediction[:80]!r} for {reference[:80]!r}"


def _binary(right: bool, prediction: str, reference: str) -> Score:
    return _MATCH if right else _zero(ScoreReason.MISMATCH, _pair(prediction, reference))


# --- robust -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def _reference_label(reference: str, options: tuple[str, ...]) -> str | None:
    return read_choice(reference, option_set(options)).label


def _choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right = _reference_label(reference, options)
    if right is None:
        return _bad_reference(check_reference(ProblemType.MULTIPLE_CHOICE, reference, options) or "")
    known = option_set(options)
    named = read_choice(prediction, known, policy)
    if named.label is None:
        return _zero(named.reason, _pair(prediction, reference))
    return _binary(same_option(named.label, right, known), prediction, reference)


@lru_cache(maxsize=8192)
def _reference_number(reference: str) -> Quantity | ScoreReason:
    return parse_quantity(reference, _EVERY_SWITCH)


def _numbers(
    prediction: str, reference: str, policy: Policy, judge: Callable[[Quantity, Quantity], float]
) -> Score:
    """Read both, compare units, and grade; percent and fraction are tried against each other if allowed."""
    right = _reference_number(reference)
    if isinstance(right, ScoreReason):
        return _bad_reference(f"{reference[:60]!r} is not one number ({right.value})")
    given = parse_quantity(prediction, policy)
    if isinstance(given, ScoreReason):
        return _zero(given, _pair(prediction, reference))
    values = []
    if given.unit in (right.unit, "") or right.unit == "":
        if right.unit in (given.unit, "") or policy.missing_unit:
            values.append(judge(given, right))
    if policy.percent_as_fraction and ("%" in (given.unit, right.unit)) and given.unit != right.unit:
        if {given.unit, right.unit} == {"%", ""}:
            values.append(judge(_without_percent(given), _without_percent(right)))
    if not values:
        return _zero(ScoreReason.UNIT_MISMATCH, _pair(prediction, reference))
    return _graded(max(values), prediction, reference)


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


def _too_long(prediction: str, reference: str) -> bool:
    return len(prediction) > max(MAX_TEXT_CHARS, 8 * len(reference))


def _ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return _read_text(prediction, reference, lambda t: _ocr_key(t, policy), metrics.word_error_rate)


def _ocr_key(text: str, policy: Policy) -> str:
    folded = fold(text)
    bare = folded.strip(_QUOTES) or folded
    return bare.casefold() if policy.ignore_case else bare


def _read_text(
    prediction: str, reference: str, key: Callable[[str], str], error_rate: Callable[[str, str], float]
) -> Score:
    right = key(reference)
    if not ocr_units(right):
        return _bad_reference("the reference holds no text")
    if _too_long(prediction, reference):
        return _zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    given = key(prediction)
    if not given:
        return _zero(ScoreReason.EMPTY_ANSWER)
    return _graded(1.0 - error_rate(right, given), prediction, reference)


def _free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right, given = fold(reference), fold(prediction)
    if not metrics.rouge_tokens(right, any_script=True):
        return _bad_reference(f"{reference[:60]!r} holds neither letters nor digits")
    if _too_long(prediction, reference):
        return _zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    if not given.strip(_QUOTES + ".,;:!?"):
        return _zero(ScoreReason.EMPTY_ANSWER)
    edges = _QUOTES + ".!。"
    if right.casefold().strip(edges) == given.casefold().strip(edges):
        return _MATCH
    return _graded(_rouge(right, given, any_script=True), prediction, reference)


def _rouge(reference: str, prediction: str, *, any_script: bool) -> float:
    """ROUGE with a bound on the quadratic part: an answer over 1,000 tokens and 4 times the reference gets 0."""
    if len(prediction) > 4000:
        n = len(metrics.rouge_tokens(prediction, any_script=any_script))
        if n > max(1000, 4 * len(metrics.rouge_tokens(reference, any_script=any_script))):
            return 0.0
    return metrics.rouge_mean_f(reference, prediction, any_script=any_script)


def _temporal(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right, given = parse_interval(reference), parse_interval(prediction)
    if isinstance(right, ScoreReason):
        return _bad_reference(f"{reference[:60]!r} is no interval [start, end] in seconds with start < end")
    if isinstance(given, ScoreReason):
        return _zero(given, _pair(prediction, reference))
    return _graded(metrics.interval_iou(given, right), prediction, reference)


def _spatial(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    right, given = parse_box(reference), parse_box(prediction)
    if isinstance(right, ScoreReason):
        return _bad_reference(f"{reference[:60]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    if isinstance(given, ScoreReason):
        return _zero(given, _pair(prediction, reference))
    return _graded(metrics.box_iou(given, right), prediction, reference)


# --- paper: as the predecessor computes it, finite and total --------------------------------------------------------


def _paper_choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if not reference:
        return _bad_reference("the reference is empty")
    if not prediction:
        return _zero(ScoreReason.EMPTY_ANSWER)
    return _binary(prediction == reference, prediction, reference)


def _paper_numbers(prediction: str, reference: str) -> tuple[float, float] | Score:
    right = plain_float(reference)
    if right is None:
        return _bad_reference(f"{reference[:60]!r} is not one finite number")
    given = plain_float(prediction) if len(prediction) < 400 else None
    if given is None:
        return _zero(
            ScoreReason.NOT_A_NUMBER if prediction else ScoreReason.EMPTY_ANSWER, _pair(prediction, reference)
        )
    return given, right


def _paper_numerical(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    pair = _paper_numbers(prediction, reference)
    if isinstance(pair, Score):
        return pair
    fractional = [any(c in text for c in ".,") for text in (prediction, reference)]
    same = fractional[0] == fractional[1] and round(pair[0], 2) == round(pair[1], 2)
    return _binary(same, prediction, reference)


def _paper_regression(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    pair = _paper_numbers(prediction, reference)
    if isinstance(pair, Score):
        return pair
    return _graded(metrics.relative_accuracy_smoothed(*pair), prediction, reference)


def _paper_ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return _read_text(prediction, reference, str, metrics.plain_word_error_rate)


def _paper_free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if not reference:
        return _bad_reference("the reference is empty")
    if _too_long(prediction, reference):
        return _zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    if not prediction:
        return _zero(ScoreReason.EMPTY_ANSWER)
    return _graded(_rouge(reference, prediction, any_script=False), prediction, reference)


_Scorer = Callable[[str, str, tuple[str, ...], Policy], Score]
_ROBUST_BY_TYPE: dict[ProblemType, _Scorer] = {
    ProblemType.MULTIPLE_CHOICE: _choice,
    ProblemType.NUMERICAL: _numerical,
    ProblemType.OCR: _ocr,
    ProblemType.FREE_FORM: _free_form,
    ProblemType.REGRESSION: _regression,
    ProblemType.TEMPORAL_GROUNDING: _temporal,
    ProblemType.SPATIAL_GROUNDING: _spatial,
}
_PAPER_BY_TYPE: dict[ProblemType, _Scorer] = _ROBUST_BY_TYPE | {
    ProblemType.MULTIPLE_CHOICE: _paper_choice,
    ProblemType.NUMERICAL: _paper_numerical,
    ProblemType.OCR: _paper_ocr,
    ProblemType.FREE_FORM: _paper_free_form,
    ProblemType.REGRESSION: _paper_regression,
}
