"""What holds for every text: scores are total, in range, monotone where that is meant, blind to dress."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from videop2r_data.schemas import PAPER, ROBUST, Policy, ProblemType
from videop2r_data.validators import (
    box_iou,
    check_reference,
    count_words,
    extract_answer,
    interval_iou,
    mean_relative_accuracy,
    relative_accuracy,
    rouge_mean_f,
    score,
    word_error_rate,
)

KINDS = list(ProblemType)
PETS = ("A. cat", "B. dog", "C. bird")
SWITCHES = [name for name in Policy.model_fields if name not in ("profile", "box_scale")]
EVERY = Policy.model_validate(dict.fromkeys(SWITCHES, True))
NONE = Policy.model_validate(dict.fromkeys(SWITCHES, False))
POLICIES = (PAPER, ROBUST, EVERY, NONE)
_PIECES = (
    "A B C D a b (A) A. A) not or and is the answer option <answer> </answer> <think> </think> "
    "<observation> </observation> 1 2 10 1,000 1e3 -3 \u2212 + . , / % \u00b0 "
    "cm m $ \\boxed{ } \\frac{1}{2} { ( ) [ ] "
    "\u221a \u03c0 ^ * ** nan inf \u221e 00:05 to 0.5 \u00bd \u00b2 \uff21 \uff11 \u7ea2 \u4e09 \u200b \ud83d"
)
PIECES = _PIECES.split(" ")
noisy = st.lists(st.sampled_from([*PIECES, " ", "\n", "\x00"]), max_size=14).map("".join)
spaced = st.lists(st.sampled_from(PIECES), max_size=10).map(" ".join)
texts = st.one_of(st.text(max_size=80), noisy, spaced)
option_sets = st.one_of(
    st.just(()),
    st.just(PETS),
    st.lists(texts, max_size=12).map(tuple),
    st.lists(texts, max_size=5).map(lambda ts: tuple(f"{c}. {t}" for c, t in zip("ABCDE", ts, strict=False))),
)
word = st.text(string.ascii_lowercase, min_size=1, max_size=6)
finite = st.floats(-1e6, 1e6, allow_nan=False)
positive = st.floats(1e-3, 1e6)


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(KINDS), texts, texts, option_sets, st.sampled_from(POLICIES))
def test_no_text_raises_and_every_value_is_in_range(
    kind: ProblemType, prediction: str, reference: str, options: tuple[str, ...], policy: Policy
) -> None:
    found = score(kind, prediction=prediction, reference=reference, options=options, policy=policy)
    assert found.value is None or 0.0 <= found.value <= 1.0
    assert (found.value is None) == (found.reason.value == "bad_reference")
    assert len(found.detail) <= 400
    again = score(kind, prediction=prediction, reference=reference, options=options, policy=policy)
    assert again == found


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.sampled_from(KINDS), texts, option_sets, st.sampled_from((ROBUST, EVERY, NONE)))
def test_a_reference_that_passes_scores_one_against_itself(
    kind: ProblemType, reference: str, options: tuple[str, ...], policy: Policy
) -> None:
    assume("<" not in reference)
    assume(check_reference(kind, reference, options) is None)
    assert score(kind, prediction=reference, reference=reference, options=options, policy=policy).value == 1.0


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(KINDS), texts, texts, option_sets)
def test_a_reference_is_unscorable_exactly_when_its_check_says_so(
    kind: ProblemType, prediction: str, reference: str, options: tuple[str, ...]
) -> None:
    found = score(kind, prediction=prediction, reference=reference, options=options, policy=ROBUST)
    assert (found.value is None) == (check_reference(kind, reference, options) is not None)


# --- monotone


@settings(deadline=None)
@given(finite, finite, finite)
def test_relative_accuracy_falls_with_the_error(reference: float, a: float, b: float) -> None:
    near, far = sorted((a, b), key=lambda p: abs(p - reference))
    assert relative_accuracy(near, reference) >= relative_accuracy(far, reference)
    assert mean_relative_accuracy(near, reference) >= mean_relative_accuracy(far, reference)


@settings(deadline=None)
@given(st.lists(word, min_size=1, max_size=8), st.data())
def test_text_similarity_falls_with_each_word_that_is_lost(words: list[str], data: st.DataObject) -> None:
    reference, last = " ".join(words), 0.0
    assert word_error_rate(reference, reference) == 0.0
    while words:
        words.pop(data.draw(st.integers(0, len(words) - 1)))
        rate = word_error_rate(reference, " ".join(words))
        assert rate > last
        last = rate
    assert last == 1.0


@settings(deadline=None)
@given(st.lists(word, min_size=2, max_size=8, unique=True), st.integers(1, 5))
def test_padding_never_helps_rouge(words: list[str], n: int) -> None:
    reference = " ".join(words)
    padded = " ".join([reference, *["9"] * n])
    assert rouge_mean_f(reference, padded) < rouge_mean_f(reference, reference) == pytest.approx(1.0)
    assert rouge_mean_f(reference, padded + " 9") < rouge_mean_f(reference, padded)


@settings(deadline=None)
@given(positive, positive, st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_overlap_falls_as_the_answer_shrinks_inside(start: float, size: float, a: float, b: float) -> None:
    large, small = max(a, b), min(a, b)
    truth = (start, start + size)
    assume(small * size > 1e-6 * start)
    inside = [interval_iou((start, start + size * share), truth) for share in (large, small)]
    assert inside[0] >= inside[1]
    boxes = [box_iou((start, start, start + size * s, start + size), (start, start, *[start + size] * 2))
             for s in (large, small)]  # fmt: skip
    assert boxes[0] >= boxes[1]


intervals = st.tuples(finite, positive).map(lambda t: (t[0], t[0] + t[1]))


@settings(deadline=None)
@given(intervals, intervals, intervals, intervals)
def test_overlap_is_symmetric(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float], d: tuple[float, float]
) -> None:
    assert interval_iou(a, b) == interval_iou(b, a)
    one, two = (a[0], c[0], a[1], c[1]), (b[0], d[0], b[1], d[1])
    assert box_iou(one, two) == pytest.approx(box_iou(two, one))
    assert interval_iou(a, a) == 1.0
    assert 0.0 <= box_iou(one, two) <= min(1.0, interval_iou(a, b) + 1e-9)


# --- dress

WIDE = {ord(c): ord(c) + 0xFEE0 for c in string.ascii_letters + string.digits + "()[].,:-+/"}
ANSWERS = (
    (ProblemType.MULTIPLE_CHOICE, "B", ("A. cat", "B. dog")),
    (ProblemType.MULTIPLE_CHOICE, "B. dog", ("A. cat", "B. dog")),
    (ProblemType.MULTIPLE_CHOICE, "dog", ("A. cat", "B. dog")),
    (ProblemType.NUMERICAL, "1,234.5", ()),
    (ProblemType.NUMERICAL, "-3/4", ()),
    (ProblemType.REGRESSION, "12.5 meters", ()),
    (ProblemType.OCR, "Exit here", ()),
    (ProblemType.FREE_FORM, "A red ball rolls away", ()),
    (ProblemType.TEMPORAL_GROUNDING, "[3.5, 7]", ()),
    (ProblemType.SPATIAL_GROUNDING, "[1, 2, 30, 40]", ()),
)
margins = st.text(" \t\n\u00a0\u3000\u200b", max_size=4)


@pytest.mark.parametrize(("kind", "answer", "options"), ANSWERS)
@settings(deadline=None, max_examples=25)
@given(left=margins, right=margins, wide=st.booleans(), case=st.sampled_from([str, str.upper, str.lower]))
def test_space_case_and_width_change_nothing(
    kind: ProblemType,
    answer: str,
    options: tuple[str, ...],
    left: str,
    right: str,
    wide: bool,
    case: type[str],
) -> None:
    text = case(answer)
    text = left + (text.translate(WIDE) if wide else text) + right
    assert score(kind, prediction=text, reference=answer, options=options).value == 1.0, text


# --- where an answer is found

untagged = st.text(max_size=30).filter(lambda t: "<" not in t and t.strip() != "")


@settings(deadline=None)
@given(st.sampled_from(["think", "observation"]), untagged, untagged, untagged)
def test_an_answer_inside_another_segment_never_counts(
    where: str, quoted: str, around: str, real: str
) -> None:
    inside = f"<{where}>{around}<answer>{quoted}</answer></{where}>"
    assert extract_answer(inside).answer is None
    assert extract_answer(f"{inside} <answer>{real}</answer>").answer == real.strip()


@settings(deadline=None, max_examples=300)
@given(noisy, st.sampled_from(POLICIES))
def test_extraction_gives_an_answer_or_a_reason(text: str, policy: Policy) -> None:
    found = extract_answer(text, policy)
    assert (found.answer is None) == (found.reason is not None)
    assert found.answer is None or (found.answer == found.answer.strip() and found.answer in text)


# --- one megabyte of junk: a scorer that is not linear does not come back

MEGABYTE = 1_000_000
JUNK = [
    "A", "9", " ", "(", "{", "\\boxed{", "<answer>", "</answer>", "<think>", "<answer></answer>", "A or B ",
    "the answer is ", "1/", "1,", "\\frac{", "\u221a", "\u7ea2", "\uff21", "a b ", "\u00bd", "not ",
    "&lt;", "\n", "-",
]  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", JUNK, ids=repr)
def test_a_megabyte_of_junk_is_scored(piece: str) -> None:
    junk = piece * (MEGABYTE // len(piece))
    by_form = {"option": "A", "number": "1", "interval": "[0, 1]", "box": "[0, 0, 1, 1]"}
    for kind in KINDS:
        reference = by_form.get(kind.traits.form, "A x")
        for policy, text in ((PAPER, junk), (EVERY, f"<answer>{junk}</answer>")):
            found = score(kind, prediction=text, reference=reference, options=PETS, policy=policy)
            assert found.value is not None and found.value < 1.0
        assert check_reference(kind, junk, PETS) is not None
    assert count_words(junk) <= MEGABYTE
