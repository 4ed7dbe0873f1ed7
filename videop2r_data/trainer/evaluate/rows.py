"""One held-out question, answered and graded: a line of the rows file."""

from __future__ import annotations

from collections.abc import Sequence

from videop2r_data.schemas import DataType, Model, Policy, ProblemType, ProcessTrace, Unit
from videop2r_data.trainer.data.examples import Example, Skip
from videop2r_data.trainer.judging.base import Judged, Reason
from videop2r_data.trainer.process.masks import SegmentMasks
from videop2r_data.trainer.process.rewards import grade
from videop2r_data.validators import check_consistency, option_set, read_choice, think_choice, think_number


class EvalRow(Model):
    """What became of one question; None where something could not be said, never 0 instead."""

    index: int
    """Place among the questions of the evaluation."""
    sample_id: str
    problem_type: ProblemType
    data_type: DataType
    skipped: str = ""
    """Why it was never asked (a bad clip, a prompt too long); empty: it was."""
    text: str = ""
    """The completion."""
    finished: bool = True
    """It ended by itself; False: cut at the longest length."""
    answer: str | None = None
    score: Unit | None = None
    """Metric of the problem type; None: the reference cannot be used."""
    score_reason: str = ""
    format: bool = False
    """The whole template of its style."""
    format_p: bool = False
    format_r: bool = False
    fault: str | None = None
    observation: str | None = None
    sufficient: bool | None = None
    """The judge's verdict on the observation."""
    judge_reason: str = ""
    """Why; empty: nobody was asked."""
    judge_words: str = ""
    mismatch: bool | None = None
    """Think settles on another answer than is given; None: not decided by rule."""
    tokens_p: int = 0
    tokens_r: int = 0
    tokens: int = 0
    """Of the whole completion, the closing one included."""

    @property
    def verdict_open(self) -> bool:
        """The judge was asked, and a later run may still get its verdict."""
        return self.judge_reason in (Reason.LATE, Reason.FAILED, Reason.OVER_BUDGET)

    def judged(self, found: Judged) -> EvalRow:
        """With the judge's verdict."""
        return self.model_copy(
            update={
                "sufficient": found.sufficient,
                "judge_reason": str(found.reason),
                "judge_words": found.detail,
            }
        )


def graded_row(
    index: int, example: Example, masks: SegmentMasks, *, finished: bool, policy: Policy
) -> EvalRow:
    """Grade one completion, all but the judge's part."""
    found = grade(
        masks,
        problem_type=example.problem_type,
        reference=example.reference,
        options=example.options,
        finished=finished,
        policy=policy,
    )
    return EvalRow(
        index=index,
        sample_id=example.sample_id,
        problem_type=example.problem_type,
        data_type=example.data_type,
        text=masks.text,
        finished=finished,
        answer=found.answer,
        score=found.acc_r,
        score_reason=found.reason,
        format=found.form,
        format_p=found.form_p,
        format_r=found.form_r,
        fault=found.fault,
        observation=found.observation,
        mismatch=thinks_otherwise(masks, example, policy) if found.form_r else None,
        tokens_p=found.tokens_p,
        tokens_r=found.tokens_r,
        tokens=masks.tokens,
    )


def skipped_row(index: int, example: Example, skip: Skip) -> EvalRow:
    """A question that was never asked."""
    return EvalRow(
        index=index,
        sample_id=example.sample_id,
        problem_type=example.problem_type,
        data_type=example.data_type,
        skipped=skip.reason,
        judge_words=skip.detail[:500],
    )


def thinks_otherwise(masks: SegmentMasks, example: Example, policy: Policy) -> bool | None:
    """Whether the think segment settles on another answer than the one given [method §5].

    By rule, and only where the rule is sure: None for types without options or numbers, and where think
    settles on nothing.
    """
    think, answer = (
        "" if span is None else masks.text[span.start : span.end]
        for span in (masks.spans.think, masks.spans.answer)
    )
    if not _decided(think, answer, example.problem_type, example.options, policy):
        return None
    trace = ProcessTrace.model_construct(observation="-", think=think, answer=answer)
    return not check_consistency(trace, example.problem_type, example.options, policy=policy).passed


def _decided(think: str, answer: str, kind: ProblemType, options: Sequence[str], policy: Policy) -> bool:
    if kind is ProblemType.MULTIPLE_CHOICE:
        label = read_choice(answer.strip(), option_set(tuple(options)), policy).label
        return label is not None and think_choice(think, options) is not None
    if kind in (ProblemType.NUMERICAL, ProblemType.REGRESSION):
        return think_number(think) is not None
    return False
