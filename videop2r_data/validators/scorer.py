"""One answer against one reference: the metric of the problem type, under a policy [paper §7.2]."""

from __future__ import annotations

from collections.abc import Sequence

from videop2r_data.schemas import ROBUST, Policy, ProblemType, Score, ScoreReason
from videop2r_data.schemas.sample import strip_answer_tag
from videop2r_data.validators import paper, robust
from videop2r_data.validators.extract import extract_answer, looks_tagged
from videop2r_data.validators.grading import zero


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
    grade = (paper if policy.profile == "paper" else robust).BY_TYPE[kind]
    reference = strip_answer_tag(reference)
    answer: str | None = prediction
    missing = ScoreReason.NO_ANSWER
    if looks_tagged(prediction):
        answer, why = extract_answer(prediction, policy)
        missing = why or missing
    if policy.profile == "paper" and answer is not None:
        answer = answer.strip()
    result: Score = grade(answer or "", reference, tuple(options), policy)
    if answer is None and result.value is not None:
        return zero(missing)  # a bad reference goes before a missing answer: nothing could be scored
    return result
