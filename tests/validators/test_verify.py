"""Step 2 on one completion: which reason comes first, and where each bound lies."""

from __future__ import annotations

import pytest

from videop2r_data.schemas import PAPER, ROBUST, DataType, ProblemType, ProcessTrace, Sample
from videop2r_data.schemas.recipe import LengthSpec, VerifySpec, WordBounds
from videop2r_data.validators import check_length, verify_completion

PETS = ("A. cat", "B. dog", "C. bird")
PLAIN = VerifySpec(policy=PAPER)
CAREFUL = VerifySpec(policy=ROBUST)


def _sample(kind: str = "multiple choice", solution: str = "B") -> Sample:
    return Sample(
        sample_id="s/1",
        problem_id="1",
        problem="Which?",
        problem_type=ProblemType(kind),
        data_type=DataType.TEXT,
        options=PETS if kind == "multiple choice" else (),
        solution=f"<answer>{solution}</answer>",
        source="s",
        row=0,
    )


def _text(answer: str = "B", think: str = "so it is", observation: str = "a dog") -> str:
    return f"<observation>{observation}</observation> <think>{think}</think><answer>{answer}</answer>"


def _reason(text: str, sample: Sample, spec: VerifySpec) -> str | None:
    reason = verify_completion(text, sample, spec).check.reason
    return None if reason is None else reason.value


TEMPLATES = (
    ("", "missing_observation"),
    ("B", "missing_observation"),
    ("<think>t</think><answer>B</answer>", "missing_observation"),
    ("<observation>o</observation><answer>B</answer>", "missing_think"),
    ("<observation>o</observation><think>t</think>", "missing_answer"),
    (_text() + _text(), "repeated_tag"),
    ("<observation><think>t</think></observation><answer>B</answer>", "nested_tag"),
    ("<think>t</think><observation>o</observation><answer>B</answer>", "out_of_order"),
    ("<observation>o</observation><think>t</think><answer>B", "unclosed_tag"),
    (_text() + "</think>", "stray_closing_tag"),
    ("Sure! " + _text(), "text_outside"),
    (_text() + " done", "text_outside"),
    (_text(answer=" "), "empty_segment"),
)


@pytest.mark.parametrize(("text", "reason"), TEMPLATES)
@pytest.mark.parametrize("spec", [PLAIN, CAREFUL])
def test_what_leaves_the_template_is_neither_parsed_nor_scored(
    text: str, reason: str, spec: VerifySpec
) -> None:
    found = verify_completion(text, _sample(), spec)
    assert found.check.reason is not None and found.check.reason.value == reason
    assert found.trace is None and found.score is None
    assert "at character" in found.check.detail


def test_a_good_trace_passes_with_its_segments_and_score() -> None:
    found = verify_completion(_text(), _sample(), CAREFUL)
    assert found.check.reason is None and found.check.detail == ""
    assert found.trace == ProcessTrace(observation="a dog", think="so it is", answer="B")
    assert found.score is not None and found.score.value == 1.0


EVERYTHING_WRONG = _text(answer="A", think="<judgement>Yes</judgement> The answer is C.")


def test_the_order_of_reasons() -> None:
    """Template, copied verdict, length, score, consistency: each is told once those before are mended."""
    spec = VerifySpec(policy=ROBUST, length=LengthSpec(observation=WordBounds(min=3)))
    assert _reason("x" + EVERYTHING_WRONG, _sample(), spec) == "text_outside"
    assert _reason(EVERYTHING_WRONG, _sample(), spec) == "copied_verdict"
    without_verdict = EVERYTHING_WRONG.replace("<judgement>Yes</judgement>", "")
    assert _reason(without_verdict, _sample(), spec) == "too_short"
    long_enough = without_verdict.replace("a dog", "a dog barks")
    assert _reason(long_enough, _sample(), spec) == "low_score"
    right = long_enough.replace("<answer>A", "<answer>B")
    assert _reason(right, _sample(), spec) == "think_answer_mismatch"
    assert _reason(right.replace("answer is C", "answer is B"), _sample(), spec) is None


@pytest.mark.parametrize("where", ["observation", "think", "answer"])
def test_a_verdict_tag_is_caught_in_every_segment(where: str) -> None:
    assert _reason(_text(**{where: "B <judgement>Yes</judgement>"}), _sample(), CAREFUL) == "copied_verdict"


LENGTHS = (
    (WordBounds(), None),
    (WordBounds(min=4), None),
    (WordBounds(min=5), "too_short"),
    (WordBounds(max=4), None),
    (WordBounds(max=3), "too_long"),
    (WordBounds(min=4, max=4), None),
)


@pytest.mark.parametrize(("bounds", "reason"), LENGTHS)
@pytest.mark.parametrize("where", ["observation", "think", "answer"])
def test_length_bounds_are_inclusive(bounds: WordBounds, reason: str | None, where: str) -> None:
    segments = {"observation": "o", "think": "t", "answer": "a"} | {where: "one two three four"}
    found = check_length(ProcessTrace(**segments), LengthSpec.model_validate({where: bounds}))
    assert (found.reason and found.reason.value) == reason
    if reason:
        assert found.detail.startswith(f"{where} has 4 words")


def test_length_counts_chinese_by_character() -> None:
    trace = ProcessTrace(observation="\u7ea2\u8272\u7684\u7403", think="t", answer="a")
    assert check_length(trace, LengthSpec(observation=WordBounds(min=4, max=4))).reason is None


THRESHOLDS = (
    ("OCR", "A B C D E", "A B C", 0.6, None),  # 1 - 2/5, exactly at the threshold
    ("OCR", "A B C D E", "A B", 0.6, "low_score"),  # 0.4
    ("OCR", "A B C D E", "A B", 0.4, None),
    ("regression", "10", "6.01", 0.6, None),
    ("regression", "10", "13.99", 0.6, None),
    ("regression", "10", "5.99", 0.6, "low_score"),
    ("regression", "10", "14.01", 0.6, "low_score"),
    ("temporal grounding", "[2, 10]", "[0, 8]", 0.6, None),  # 6 of 10
    ("temporal grounding", "[2, 10]", "[0, 7.9]", 0.6, "low_score"),
    ("spatial grounding", "[0, 0, 10, 10]", "[0, 0, 10, 6]", 0.6, None),  # 60 of 100
    ("numerical", "4", "5", 0.0, None),
    ("numerical", "4", "4", 1.0, None),
    ("OCR", "A B C D E", "A B C D", 1.0, "low_score"),
)


@pytest.mark.parametrize(("kind", "solution", "answer", "threshold", "reason"), THRESHOLDS)
@pytest.mark.parametrize("policy", [PAPER, ROBUST], ids=lambda p: p.profile)
def test_a_score_at_the_threshold_is_kept(
    kind: str, solution: str, answer: str, threshold: float, reason: str | None, policy: object
) -> None:
    spec = VerifySpec.model_validate({"policy": policy, "threshold": threshold})
    assert _reason(_text(answer=answer), _sample(kind, solution), spec) == reason


def test_the_predecessors_regression_lies_a_hair_below_the_threshold() -> None:
    """1 - 4/10 is 0.6 for `robust`; `paper` adds 1e-9 above and below the line: 0.59999999994."""
    sample = _sample("regression", "10")
    for answer in ("6", "14"):
        assert _reason(_text(answer=answer), sample, CAREFUL) is None
        assert _reason(_text(answer=answer), sample, PLAIN) == "low_score"


@pytest.mark.parametrize(
    ("policy", "setting", "reason"),
    [
        (PAPER, None, None),
        (PAPER, True, "think_answer_mismatch"),
        (PAPER, False, None),
        (ROBUST, None, "think_answer_mismatch"),
        (ROBUST, True, "think_answer_mismatch"),
        (ROBUST, False, None),
    ],
)
def test_consistency_is_on_for_robust_only_unless_set(
    policy: object, setting: bool | None, reason: str | None
) -> None:
    spec = VerifySpec.model_validate({"policy": policy, "think_answer_consistency": setting})
    assert _reason(_text(think="So the answer is C."), _sample(), spec) == reason
    assert _reason(_text(answer="4", think="So the answer is 5."), _sample("numerical", "4"), spec) == reason


@pytest.mark.parametrize(
    ("kind", "solution", "spec"),
    [
        ("multiple choice", "D", CAREFUL),
        ("multiple choice", " ", PLAIN),
        ("numerical", "many", CAREFUL),
        ("numerical", "5 cm", PLAIN),
        ("regression", "nan", PLAIN),
        ("OCR", " ", PLAIN),
        ("free-form", "?!", CAREFUL),
        ("temporal grounding", "[9, 1]", PLAIN),
    ],
)
def test_a_bad_reference_is_unscorable_never_zero(kind: str, solution: str, spec: VerifySpec) -> None:
    found = verify_completion(_text(), _sample(kind, solution), spec)
    assert found.check.reason is not None and found.check.reason.value == "unscorable"
    assert found.score is not None and found.score.value is None and found.check.detail


def test_the_detail_of_a_low_score_says_what_was_compared() -> None:
    check = verify_completion(_text(answer="A"), _sample(), CAREFUL).check
    assert check.detail == "0.000 < 0.6: mismatch 'A' for 'B'"
