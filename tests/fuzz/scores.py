"""Graders: a value in [0, 1] or a stated refusal, for any answer to any reference."""

from __future__ import annotations

import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import SHAPED, WORDS, Target, must, raw, text_of
from videop2r_data.schemas import PAPER, READING, ROBUST, Policy, ProblemType, ScoreReason
from videop2r_data.validators import (
    box_iou,
    check_reference,
    extract_answer,
    interval_iou,
    mean_relative_accuracy,
    option_set,
    parse_interval,
    read_choice,
    read_reply,
    relative_accuracy,
    rouge_mean_f,
    score,
    word_error_rate,
)
from videop2r_data.validators.geometry import parse_box
from videop2r_data.validators.metrics import ocr_units
from videop2r_data.validators.numbers import parse_quantity

KINDS = tuple(ProblemType)
_SWITCHES = [name for name in Policy.model_fields if name not in ("profile", "box_scale")]
EVERY = Policy.model_validate(dict.fromkeys(_SWITCHES, True))
NONE = Policy.model_validate(dict.fromkeys(_SWITCHES, False))
POLICIES = (ROBUST, PAPER, EVERY, NONE, READING)
METRICS = ("grader", "mean_relative_accuracy")
CUT = b"\x1f"


def check(data: bytes) -> None:
    """Two bytes name type and policy; then prediction, reference and options, with 0x1F between them."""
    if len(data) < 2:
        return
    kind, policy = KINDS[data[0] % len(KINDS)], POLICIES[data[1] % len(POLICIES)]
    prediction, reference, *options = [text_of(part) for part in [*data[2:].split(CUT), b""]][:40]
    _score(kind, policy, prediction, reference, tuple(options))


def _score(
    kind: ProblemType, policy: Policy, prediction: str, reference: str, options: tuple[str, ...]
) -> None:
    found = score(kind, prediction=prediction, reference=reference, options=options, policy=policy)
    must(found.value is None or 0.0 <= found.value <= 1.0, "a value in [0, 1]", found)
    must((found.value is None) == (found.reason is ScoreReason.BAD_REFERENCE), "a stated refusal", found)
    must(len(found.detail) <= 1300, "a short detail", found)  # twice 60 characters, escaped at worst
    if kind is ProblemType.REGRESSION:
        _in_range(score(kind, prediction=prediction, reference=reference, metric=METRICS[1]).value)
    fault = check_reference(kind, reference, options)
    if policy is ROBUST:
        must(
            (fault is None) == (found.value is not None),
            "a bad reference is told when it is loaded",
            fault,
            found,
        )
    if fault is None and "<" not in reference and policy.profile != "paper":
        own = score(kind, prediction=reference, reference=reference, options=options, policy=policy)
        must(own.value == 1.0, "a reference is its own right answer", reference, options, own)
    reading = read_reply(prediction, problem_type=kind, options=options, policy=policy)
    must((reading.answer is None) == (reading.reason is not None), "an answer or a reason", reading)
    if reading.answer is not None:
        score(kind, prediction=reading.answer, reference=reference, options=options, policy=policy)
    read_reply(prediction, problem_type=kind, options=options, policy=policy, cut=True)
    extract_answer(prediction, policy)
    _parts(prediction, reference, options, policy)


def _parts(prediction: str, reference: str, options: tuple[str, ...], policy: Policy) -> None:
    read_choice(prediction, option_set(options), policy)
    quantity = parse_quantity(prediction, policy)
    if not isinstance(quantity, ScoreReason):
        must(quantity.value == quantity.value, "a number is a number", prediction)
    one, other = parse_interval(prediction), parse_interval(reference)
    if not isinstance(one, ScoreReason):
        must(all(map(math.isfinite, one)) and one[0] < one[1], "an interval", prediction, one)
        if not isinstance(other, ScoreReason):
            _in_range(interval_iou(one, other))
            must(interval_iou(one, other) == interval_iou(other, one), "the same both ways", one, other)
    box = parse_box(prediction)
    if not isinstance(box, ScoreReason):
        must(all(map(math.isfinite, box)), "a box", prediction, box)
        _in_range(box_iou(box, box))
    if len(prediction) + len(reference) < 600:
        if ocr_units(reference):  # without a word it is refused, as documented
            must(word_error_rate(reference, prediction) >= 0, "an error rate", reference, prediction)
        _in_range(rouge_mean_f(reference, prediction))


def _in_range(value: float | None) -> None:
    must(value is None or 0.0 <= value <= 1.0 + 1e-12, "a value in [0, 1]", value)


_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
_FOUR = st.tuples(_FLOAT, _FLOAT, _FLOAT, _FLOAT)


@settings(database=None, deadline=None)
@given(_FLOAT, _FLOAT, _FOUR, _FOUR, st.sampled_from(KINDS), st.sampled_from(POLICIES), st.text(max_size=20))
def shaped(
    p: float,
    r: float,
    a: tuple[float, ...],
    b: tuple[float, ...],
    kind: ProblemType,
    policy: Policy,
    more: str,
) -> None:
    """Numbers of any size, as themselves and as they are written."""
    assume(r)
    for value in (
        relative_accuracy(p, r),
        mean_relative_accuracy(p, r),
        box_iou(a, b),
        interval_iou(a[:2], b[:2]),
    ):
        _in_range(value)
    for given_text, right in (
        (f"{p}", f"{r}"),
        (f"{p:.3f} {more}", f"{r:.3f}"),
        (f"{a}", f"{b}"),
        (more, f"{p}"),
    ):
        _score(kind, policy, given_text, right, (f"A. {p}", f"B. {r}", more))


_TEXT = (
    "A|B|C|D|(A)|A.|not |or|and|is|the answer is |option |<answer>|</answer>|<think>|</think>|<observation>|1|2|10|"
    "1,000|1e3|1e400|-3|\u2212|+|.|,|/|%|\u00b0|cm|km/h|m^2|$|\\boxed{|}|\\frac{1}{2}|\\sqrt{|{|(|)|[|]|\u221a|\u03c0|"
    "^|*|**|nan|inf|\u221e|00:05|to|0.5|\u00bd|\u00b2|\uff21|\uff11|\u7ea2|\u4e09|\u200b|\ud83d|two|hundred|million| |"
    '\n|"|\'|cat|dog|A. cat|{"start": |"bbox_2d": [|null|true|\u202e|e\u0301|\u00e9|\u00df|SS|\u0130'
)
WORDS_ = (CUT, *(bytes([n]) for n in range(max(len(KINDS), len(POLICIES)))))
WORDS_ += tuple(word.encode("utf-8", "surrogatepass") for word in _TEXT.split("|"))


def seeds() -> list[bytes]:
    """A right and a wrong answer of each type under each policy."""
    cases = {
        "multiple choice": ("The answer is B.", "B", "A. cat", "B. dog"),
        "numerical": ("\\frac{1}{2} cm", "0.5 cm"),
        "OCR": ("STOP sign", "STOP"),
        "free-form": ("a red ball rolls", "the ball rolls"),
        "regression": ("1,000.5", "1000"),
    }
    found = []
    for k, kind in enumerate(KINDS):
        parts = cases.get(kind.value, ('{"start": 1, "end": 00:05}', "[1, 5]"))
        for p in range(len(POLICIES)):
            found.append(raw(bytes([k, p]) + CUT.join(part.encode() for part in parts)))
    found.append(raw(bytes([len(KINDS) - 1, 0]) + b'{"bbox_2d": [1, 2, 3, 4]}\x1f[1, 2, 3, 5]'))
    found += [bytes([WORDS, 1, 1, *range(60)]), bytes([SHAPED, *range(120)])]
    return found


TARGET = Target("scores", check, seeds, words=WORDS_, shaped=shaped)
