from __future__ import annotations

from typing import Any

import pytest

from videop2r_data.schemas import ROBUST, ProblemType
from videop2r_data.schemas.sample import DataType
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.evaluate.report import EvalRow, graded_row, summarise
from videop2r_data.trainer.judging.base import Judged, Reason
from videop2r_data.trainer.process.masks import TokenTable, segment_masks
from videop2r_data.trainer.settings.parts import EvalSpec
from videop2r_data.trainer.settings.rl import Style

OPTIONS = ("A. red", "B. blue")
TABLE = TokenTable((*(bytes([b]) for b in range(256)), b""))


def example(kind: ProblemType = ProblemType.MULTIPLE_CHOICE, reference: str = "A") -> Example:
    options = OPTIONS if kind is ProblemType.MULTIPLE_CHOICE else ()
    return Example("s/1", "Which colour?", options, kind, DataType.TEXT, None, reference, None)


def graded(text: str, about: Example | None = None, style: Style = "process") -> EvalRow:
    """Tokens are single bytes, and an end of turn."""
    masks = segment_masks([*text.encode(), 256], TABLE, style=style)
    return graded_row(3, about or example(), masks, finished=True, policy=ROBUST)


def trace(think: str, answer: str) -> str:
    return f"<observation>A red disc.</observation> <think>{think}</think><answer>{answer}</answer>"


def test_a_good_trace() -> None:
    row = graded(trace("So the answer is A.", "A"))
    assert (row.score, row.answer, row.observation) == (1.0, "A", "A red disc.")
    assert row.format and row.format_p and row.format_r and row.fault is None
    assert row.mismatch is False
    assert row.tokens_p == len("<observation>A red disc.</observation>")
    assert row.tokens == len(trace("So the answer is A.", "A")) + 1


def test_thinking_one_thing_and_saying_another() -> None:
    row = graded(trace("So the answer is B.", "A"))
    assert row.mismatch is True and row.score == 1.0
    assert graded(trace("The answer is A or B.", "A")).mismatch is None
    assert graded(trace("So the answer is B.", "no idea")).mismatch is None
    number = example(ProblemType.NUMERICAL, "7")
    assert graded(trace("3 and 4, so the answer is 7.", "8"), number).mismatch is True
    assert graded(trace("3 and 4, so the answer is 7.", "7"), number).mismatch is False
    assert graded(trace("Hm.", "7"), number).mismatch is None
    assert (
        graded(trace("the answer is rain.", "rain"), example(ProblemType.FREE_FORM, "rain")).mismatch is None
    )


def test_a_malformed_completion() -> None:
    row = graded("I think it is A.")
    assert (row.score, row.score_reason) == (0.0, "no_answer")
    assert not (row.format or row.format_p or row.format_r)
    assert row.mismatch is None and row.observation is None and row.fault == "missing_observation"


def test_the_agnostic_template_is_a_format_of_its_own() -> None:
    text = "<think>So the answer is B.</think><answer>A</answer>"
    row = graded(text, style="agnostic")
    assert row.format and row.format_r and row.mismatch is True
    assert not graded(text).format


def test_a_reference_that_cannot_be_used_is_unscored() -> None:
    row = graded(trace("so", "5"), example(ProblemType.NUMERICAL, "many"))
    assert row.score is None and row.score_reason == "bad_reference"


def rows() -> list[EvalRow]:
    """Six questions: five asked, one clip bad."""
    base: dict[str, Any] = {"sample_id": "s", "data_type": DataType.VIDEO}
    mc, number = ProblemType.MULTIPLE_CHOICE, ProblemType.REGRESSION
    asked: dict[str, Any] = {"format": True, "format_p": True, "format_r": True, "judge_reason": "judged"}
    return [
        EvalRow(
            index=0, problem_type=mc, score=1.0, sufficient=True, mismatch=False, tokens=10, **base, **asked
        ),
        EvalRow(
            index=1, problem_type=mc, score=0.0, sufficient=False, mismatch=True, tokens=20, **base, **asked
        ),
        EvalRow(index=2, problem_type=mc, score=1.0, sufficient=False, tokens=30, **base, **asked),
        EvalRow(index=3, problem_type=number, score=0.5, tokens=40, **base, judge_reason="late"),
        EvalRow(index=4, problem_type=number, score=None, tokens=0, finished=False, **base),
        EvalRow(index=5, problem_type=number, skipped="media_missing", **base),
    ]


def test_aggregates_by_hand() -> None:
    report = summarise(reversed(rows()), EvalSpec())
    assert (report.questions, report.asked, report.unscored) == (6, 5, 1)
    assert report.skipped == {"media_missing": 1} and report.unjudged == {"late": 1}
    metrics = report.metrics()
    assert metrics == pytest.approx(
        {
            "eval/questions": 5,
            "eval/accuracy": 0.625,  # (1 + 0 + 1 + 0.5) / 4
            "eval/accuracy/multiple choice": 2 / 3,
            "eval/accuracy/regression": 0.5,
            "eval/accuracy_macro": (2 / 3 + 0.5) / 2,
            "eval/sufficiency": 1 / 3,
            "eval/mismatch": 0.5,
            "eval/format": 0.6,
            "eval/format_p": 0.6,
            "eval/format_r": 0.6,
            "eval/finished": 0.8,
            "eval/length/all": 20.0,
        }
    )
    assert report.accuracy_if_sufficient is not None and report.accuracy_if_sufficient.value == 1.0
    assert report.accuracy_if_not is not None and report.accuracy_if_not.value == 0.5
    assert report.accuracy_macro == pytest.approx((2 / 3 + 0.5) / 2)
    assert report.accuracy is not None and report.accuracy.n == 4


def test_no_rows_at_all() -> None:
    report = summarise([], EvalSpec())
    assert report.accuracy is None and report.accuracy_macro is None
    assert report.metrics() == {"eval/questions": 0}


def test_a_row_takes_the_verdict_on_sufficiency_among_several() -> None:
    late = rows()[0].judged(Judged(None, Reason.LATE, False, "no verdict within 3 s"))
    assert (late.sufficient, late.judge_reason, late.judge_words) == (None, "late", "no verdict within 3 s")
    both = Judged(0.0, Reason.JUDGED, parts={
        "faithfulness": Judged(0.0, Reason.JUDGED), "sufficiency": Judged(1.0, Reason.JUDGED, False, "yes"),
    })  # fmt: skip
    assert (rows()[0].judged(both).sufficient, rows()[0].judged(both).judge_words) == (True, "yes")
