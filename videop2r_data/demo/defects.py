"""The kinds of defect that are planted in traces, and where a build must catch each."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from videop2r_data.schemas.reasons import RejectReason, Stage
from videop2r_data.schemas.sample import ProblemType, Sample

Profile = Literal["paper", "robust"]


class Defect(StrEnum):
    """What is wrong with a planted trace; everything else in it is right."""

    WRONG_ANSWER = "wrong_answer"
    """Think and answer agree on a wrong answer; the observation is right."""
    LOW_QUALITY = "low_quality"
    """OCR and free-form: an answer in the right direction whose score is below 0.6."""
    NEAR_MISS = "near_miss"
    """Free-form: one wrong word in a right sentence. ROUGE cannot see it: a documented limit, not a catch."""
    MISSING_OBSERVATION = "missing_observation"
    MISSING_THINK = "missing_think"
    MISSING_ANSWER = "missing_answer"
    REPEATED_TAG = "repeated_tag"
    NESTED_TAG = "nested_tag"
    OUT_OF_ORDER = "out_of_order"
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_CLOSING_TAG = "stray_closing_tag"
    TEXT_OUTSIDE = "text_outside"
    EMPTY_SEGMENT = "empty_segment"
    COMPLETION_CUT = "completion_cut"
    """The completion stops at its token limit (finish reason `length`)."""
    EVIDENCE_OMITTED = "evidence_omitted"
    """A fact that the answer needs is not in the observation; think and answer are right."""
    EVIDENCE_CONTRADICTED = "evidence_contradicted"
    """The observation states such a fact wrongly; think and answer are right."""
    THINK_ANSWER_MISMATCH = "think_answer_mismatch"
    """Multiple choice: the think segment settles on another option than the (right) answer."""
    COPIED_VERDICT = "copied_verdict"
    """The observation omits its evidence and speaks for the judge: verdict tags, instructions."""


TEMPLATE_DEFECTS = (
    Defect.MISSING_OBSERVATION,
    Defect.MISSING_THINK,
    Defect.MISSING_ANSWER,
    Defect.REPEATED_TAG,
    Defect.NESTED_TAG,
    Defect.OUT_OF_ORDER,
    Defect.UNCLOSED_TAG,
    Defect.STRAY_CLOSING_TAG,
    Defect.TEXT_OUTSIDE,
    Defect.EMPTY_SEGMENT,
)
"""Broken templates: rejected under the reason of the same name."""

_CAUGHT = {
    Defect.WRONG_ANSWER: (Stage.VERIFY, RejectReason.LOW_SCORE),
    Defect.LOW_QUALITY: (Stage.VERIFY, RejectReason.LOW_SCORE),
    Defect.COMPLETION_CUT: (Stage.GENERATE, RejectReason.COMPLETION_CUT),
    Defect.EVIDENCE_OMITTED: (Stage.JUDGE, RejectReason.INSUFFICIENT),
    Defect.EVIDENCE_CONTRADICTED: (Stage.JUDGE, RejectReason.INSUFFICIENT),
}
"""Defects that are rejected under another reason than their own name, or not in the verify step."""
_OPEN_TEXT = (ProblemType.OCR, ProblemType.FREE_FORM)


def applicable(problem_type: ProblemType) -> tuple[Defect, ...]:
    """The defects that can be planted in a trace for this type, templates counted as one kind each."""
    left_out: set[Defect] = set()
    if problem_type is not ProblemType.MULTIPLE_CHOICE:
        left_out.add(Defect.THINK_ANSWER_MISMATCH)
    if problem_type not in _OPEN_TEXT:
        left_out.add(Defect.LOW_QUALITY)
    if problem_type is not ProblemType.FREE_FORM:
        left_out.add(Defect.NEAR_MISS)
    return tuple(d for d in Defect if d not in left_out)


def expected_rejection(
    defect: Defect | None, sample: Sample, profile: Profile
) -> tuple[Stage, frozenset[RejectReason]] | None:
    """Where a build must reject the trace, and under which of these reasons.

    Args:
        defect: the planted one; None for a good trace.
        sample: its question (the type decides what can be seen).
        profile: `paper` does not check that think and answer agree.

    Returns:
        None if the row must be kept: a good trace, or a defect that this profile does not look for.
    """
    if defect is None or defect is Defect.NEAR_MISS:
        return None
    if defect is Defect.THINK_ANSWER_MISMATCH and (
        profile == "paper" or sample.problem_type is not ProblemType.MULTIPLE_CHOICE
    ):
        return None
    stage, reason = _CAUGHT.get(defect) or (Stage.VERIFY, RejectReason(defect.value))
    return stage, frozenset({reason})
