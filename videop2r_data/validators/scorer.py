"""Score an answer against a reference by the metric of its type [paper §7.2], under one of two profiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

from videop2r_data.schemas import (
    BOX,
    ROBUST,
    Policy,
    ProblemType,
    Role,
    Score,
    ScoreReason,
    TraceGrammar,
    default_grammar,
    strip_answer_tag,
    trace_parser,
)
from videop2r_data.validators.choice import read_choice, read_several
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.metrics import (
    MATCH,
    MAX_TEXT_CHARS,
    bad_reference,
    binary,
    bounded_rouge,
    box_iou,
    fold,
    grade_text,
    graded,
    interval_iou,
    marked_words,
    mean_relative_accuracy,
    pair,
    plain_word_error_rate,
    relative_accuracy,
    relative_accuracy_smoothed,
    rouge_tokens,
    too_long,
    word_error_rate,
    zero,
)
from videop2r_data.validators.numbers import (
    MAX_NUMBER_CHARS,
    Quantity,
    parse_quantity,
    plain_float,
    same_number,
)
from videop2r_data.validators.options import option_set, same_option
from videop2r_data.validators.units import MULTIPLIERS, same_unit

# --- reference answers: read once, and checked when the pool is loaded ---


def check_reference(
    problem_type: ProblemType | str, reference: str, options: Sequence[str] = ()
) -> str | None:
    """The fault of a reference that no answer could match, or None.

    >>> check_reference("multiple choice", "C", ["A. x", "B. y"])
    "'C' names none of the options A, B"
    """
    reference = strip_answer_tag(reference)
    if not reference:
        return "the reference is empty"
    if len(reference) > MAX_TEXT_CHARS:
        return f"the reference has {len(reference)} characters, {MAX_TEXT_CHARS} at most"
    # A grader looks at the reference first: scored against itself, it has a value unless it is at fault.
    scored = GRADERS[ProblemType(problem_type).traits.grader].robust(
        reference, reference, tuple(options), ROBUST
    )
    return scored.detail if scored.value is None else None


@lru_cache(maxsize=8192)
def reference_labels(reference: str, options: tuple[str, ...]) -> frozenset[str] | None:
    """The labels of a multiple-choice reference: one, or several if the question has several answers."""
    return read_several(reference, option_set(options))


_NUMBER_WORDS = Policy(number_words=True)


@lru_cache(maxsize=8192)
def reference_number(reference: str) -> Quantity | ScoreReason:
    """The number of a reference, or why there is none."""
    # References are trusted: number words count in them whatever the policy of the answers.
    return parse_quantity(reference, _NUMBER_WORDS)


# --- profile `robust`: accepts what a careful human grader accepts, and nothing else ---

_SHORT = 200
QUOTES = "\"'“”‘’`* "


def _choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    """Exact match of the option or options [paper §7.2]; twins (two options of the same text) are one."""
    known, right = option_set(options), reference_labels(reference, options)
    if right is None:
        return bad_reference(f"{reference[:60]!r} names none of the options {', '.join(known.labels)}")
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
    return len(prediction) <= 2 * len(reference) + 100 and fold(prediction) == fold(reference)


def _numbers(
    prediction: str,
    reference: str,
    options: tuple[str, ...],
    policy: Policy,
    *,
    judge: Callable[[Quantity, Quantity], float],
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


def _equal(given: Quantity, right: Quantity) -> float:
    """1 if equal at the reference's printed precision (`same_number`), else 0 [paper §7.2]."""
    try:
        return float(same_number(given, right))
    except ArithmeticError:  # beyond what a float holds, against a root or fraction
        return 0.0


def _relative(given: Quantity, right: Quantity) -> float:
    """Relative accuracy, `1 - |p - r| / |r|` clipped to [0, 1] [paper §7.2]."""
    try:
        return relative_accuracy(float(given.value), float(right.value))
    except OverflowError:
        return float(given.value == right.value)


def _mean_relative(given: Quantity, right: Quantity) -> float:
    """Mean relative accuracy over ten thresholds [VSI-Bench]."""
    try:
        return mean_relative_accuracy(float(given.value), float(right.value))
    except OverflowError:
        return float(given.value == right.value)


def _ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    """`1 - word error rate`, clipped at 0 [paper §7.2]; quotes and markup around the text do not count."""

    def key(text: str) -> str:
        folded = fold(text)
        bare = folded.strip(QUOTES) or folded
        return bare.casefold() if policy.ignore_case else bare

    return grade_text(prediction, reference, key, word_error_rate)


def _free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    """Mean F of ROUGE-1, ROUGE-2 and ROUGE-L [paper §7.2]; 1 where the words are the same."""
    right = fold(reference)
    if not rouge_tokens(right, any_script=True):
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
        return MATCH  # ROUGE-2 of a single word is 0, so ROUGE would give an equal word 2/3
    return graded(bounded_rouge(right, given, any_script=True), prediction, reference)


def _temporal(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    """Intersection over union of two intervals in seconds."""
    right, given = parse_interval(reference), parse_interval(prediction)
    if isinstance(right, ScoreReason):
        return bad_reference(f"{reference[:60]!r} is no interval [start, end] in seconds with start < end")
    if isinstance(given, ScoreReason):
        return zero(given, pair(prediction, reference))
    return graded(interval_iou(given, right), prediction, reference)


def _spatial(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    """Intersection over union of two boxes; the answer's coordinates are scaled by `policy.box_scale`."""
    right, given = parse_box(reference), parse_box(prediction)
    if isinstance(right, ScoreReason):
        return bad_reference(f"{reference[:60]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    if isinstance(given, ScoreReason):
        return zero(given, pair(prediction, reference))
    scaled = [coordinate * policy.box_scale for coordinate in given]
    return graded(box_iou(scaled, right), prediction, reference)


# --- profile `paper`: the formulas of the paper [§7.2] and of Video-R1, made finite and total ---
#
# Where they are undefined, the answer is unscorable: no answer to an unreadable reference (no number for
# `float`, or empty) could ever be right. The predecessor pays 0 for every answer there, or crashes. `nan` is
# no number; the predecessor pays 1 for it.


def _paper_choice(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    return binary(prediction == reference, prediction, reference)


def _paper_numbers(
    prediction: str, reference: str, options: tuple[str, ...], policy: Policy, *, relative: bool
) -> Score:
    right = plain_float(reference)
    if right is None:
        return bad_reference(f"{reference[:60]!r} is not one finite number")
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    given = plain_float(prediction) if len(prediction) <= MAX_NUMBER_CHARS else None
    if given is None:
        return zero(ScoreReason.NOT_A_NUMBER, pair(prediction, reference))
    if relative:
        return graded(relative_accuracy_smoothed(given, right), prediction, reference)
    fractional = [any(c in text for c in ".,") for text in (prediction, reference)]
    same = fractional[0] == fractional[1] and round(given, 2) == round(right, 2)
    return binary(same, prediction, reference)


def _paper_ocr(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    return grade_text(prediction, reference, str, plain_word_error_rate)


def _paper_free_form(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> Score:
    if too_long(prediction, reference):
        return zero(ScoreReason.TOO_LONG, f"{len(prediction)} characters")
    if not prediction:
        return zero(ScoreReason.EMPTY_ANSWER)
    return graded(bounded_rouge(reference, prediction, any_script=False), prediction, reference)


# --- the graders by name: a problem type names the one that scores its answers ---


Grade = Callable[[str, str, tuple[str, ...], Policy], Score]


class Grader(NamedTuple):
    """How the answers of some problem types are scored.

    Attributes:
        robust: (prediction, reference, options, policy) -> score, in the profile `robust`; without a value,
            and with the fault as its detail, if no answer could match the reference.
        paper: the same in the profile `paper`.
    """

    robust: Grade
    paper: Grade


GRADERS: dict[str, Grader] = {
    "choice": Grader(_choice, _paper_choice),
    "number": Grader(partial(_numbers, judge=_equal), partial(_paper_numbers, relative=False)),
    "reading": Grader(_ocr, _paper_ocr),
    "text": Grader(_free_form, _paper_free_form),
    "relative": Grader(partial(_numbers, judge=_relative), partial(_paper_numbers, relative=True)),
    "interval": Grader(_temporal, _temporal),  # the paper has no grounding
    "box": Grader(_spatial, _spatial),
    "mean_relative_accuracy": Grader(*2 * (partial(_numbers, judge=_mean_relative),)),
}
"""Name, as `TypeTraits.grader` has it, or the metric of a benchmark -> grader."""


# --- from a completion to its score ---
#
# The answer of a completion is its answer segment after the last `</think>`: a tag that the model only talks
# about, inside observation or think, does not count.


class _Tag(NamedTuple):
    """A mark of a segment: the text that opens it, what the segment is for, and whether this one opens."""

    name: str
    role: Role
    opens: bool


@lru_cache(maxsize=64)
def _tags(grammar: TraceGrammar, any_case: bool) -> tuple[re.Pattern[str], dict[str, _Tag]]:
    """The marks of a grammar and those of the default one; boxes and free text are no marks here."""
    found: dict[str, _Tag] = {}
    for one in (default_grammar(), grammar):
        roles = {mark: spec.role for spec in one.flat for mark in spec.spellings}
        for text, (mark, opens) in trace_parser(one).literals.items():
            if mark != BOX:
                found[text.lower() if any_case else text] = _Tag(mark.open, roles[mark], opens)
    every = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
    return re.compile(every, re.IGNORECASE if any_case else 0), found


class Extracted(NamedTuple):
    """The answer of a completion, stripped, or None with the reason."""

    answer: str | None
    reason: ScoreReason | None


class Offered(NamedTuple):
    """What a completion offers as an answer.

    Attributes:
        answers: contents of the answer segments that count, in order.
        early: contents of those in front of the reasoning.
        late: content of one that ends the text, inside of reasoning that is never closed; "": there is none.
        rest: the text behind the last mark; None if a segment is open there.
    """

    answers: list[str]
    early: list[str]
    late: str
    rest: str | None


def extract_answer(completion: str, policy: Policy = ROBUST) -> Extracted:
    """Take the answer out of a whole completion; total and linear.

    Returns:
        The stripped answer, or None with NO_ANSWER, EMPTY_ANSWER or SEVERAL_ANSWERS (two that differ).

    >>> extract_answer("<think>not <answer>B</answer></think> <answer> A </answer>").answer
    'A'
    >>> extract_answer("A").reason.value
    'no_answer'
    """
    found = offered(completion, policy).answers
    if not found:
        return Extracted(None, ScoreReason.NO_ANSWER)
    if len(found) > 1 and len({fold(answer).casefold() for answer in found}) > 1:
        return Extracted(None, ScoreReason.SEVERAL_ANSWERS)
    answer = found[-1].strip()
    return Extracted(answer, None) if answer else Extracted(None, ScoreReason.EMPTY_ANSWER)


def offered(text: str, policy: Policy, grammar: TraceGrammar | None = None) -> Offered:
    """The answer segments of any text, whether it is a trace or not; total and linear.

    Args:
        text: a completion.
        policy: `uppercase_tags` and `unclosed_answer` say what is a tag.
        grammar: whose marks count beside those of the default one.
    """
    pattern, tags = _tags(grammar or default_grammar(), policy.uppercase_tags)
    opened: _Tag | None = None
    begin = last = 0
    quoted = ""
    found: list[str] = []
    early: list[str] = []
    for match in pattern.finditer(text):
        tag = tags[match.group().lower() if policy.uppercase_tags else match.group()]
        last = match.end()
        if tag.role is Role.REASONING and not tag.opens:
            # If its opening mark stands in the prompt, all that stands in front of it is reasoning.
            early = [*early, *found] if opened is not None and opened.name == tag.name else []
            found, opened = [], None
        elif opened is not None and opened.role is Role.ANSWER and (tag.opens or tag.role is Role.ANSWER):
            if not tag.opens or text[begin : match.start()].strip():
                found.append(text[begin : match.start()])  # opened inside an answer: both were offered
            opened, begin = (tag, last) if tag.opens else (None, last)
        elif opened is None and tag.opens:
            opened, begin = tag, last
        elif opened is not None and opened.name == tag.name and not tag.opens:
            opened = None
        elif tag.role is Role.ANSWER:
            quoted, begin = ("", last) if tag.opens else (text[begin : match.start()], begin)
    if opened is not None and opened.role is Role.ANSWER and policy.unclosed_answer:
        found.append(text[begin:])
    ends = opened is not None and opened.role is Role.REASONING and not tag.opens and not text[last:].strip()
    return Offered(found, early, quoted if ends else "", text[last:] if opened is None else None)


def score(
    problem_type: ProblemType | str,
    *,
    prediction: str,
    reference: str,
    options: Sequence[str] = (),
    policy: Policy = ROBUST,
    metric: str = "grader",
) -> Score:
    """Score an answer; never raises on any string, linear in the prediction.

    Args:
        problem_type: a problem type, or its value.
        prediction: an extracted answer, or a whole completion (any segment tag in it makes it one; then the
            answer is taken by `extract_answer`).
        reference: the reference answer, with or without its `<answer>` tag.
        options: of a multiple-choice question, as in the pool.
        policy: see `Policy`.
        metric: of a benchmark (`schemas.Metric`), in place of that of the problem type.

    Returns:
        A value in [0, 1], or None (unscorable: bad reference), with its reason.

    Raises:
        ValueError: `problem_type` is no problem type.

    >>> score("numerical", prediction="1,000", reference="1000").value
    1.0
    >>> score("multiple choice", prediction="A or B", reference="A", options=["A. x", "B. y"]).reason.value
    'several_answers'
    """
    grader = GRADERS[ProblemType(problem_type).traits.grader if metric == "grader" else metric]
    reference = strip_answer_tag(reference)
    if not reference:
        return bad_reference("the reference is empty")
    # Any segment tag, in any case, makes the prediction a completion.
    found = Extracted(prediction, None)
    if "<" in prediction and _tags(default_grammar(), True)[0].search(prediction):
        found = extract_answer(prediction, policy)
    answer = found.answer or ""
    if policy.profile == "paper":
        result = grader.paper(answer.strip(), reference, tuple(options), policy)
    else:
        result = grader.robust(answer, reference, tuple(options), policy)
    if found.reason is not None and result.value is not None:
        return zero(found.reason)  # a bad reference goes before a missing answer: nothing could be scored
    return result
