"""Score one answer against one reference by the metric of its problem type [paper §7.2]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ProblemType, Score, ScoreReason, strip_answer_tag
from videop2r_data.validators.metrics import zero
from videop2r_data.validators.profiles import GRADERS
from videop2r_data.validators.text import fold

# The answer of a completion is its answer segment after the last `</think>`: a tag that the model only talks
# about, inside observation or think, does not count.

_TAG = re.compile(r"<(/?)(observation|think|answer)>")
_TAG_ANY_CASE = re.compile(_TAG.pattern, re.IGNORECASE)


class Extracted(NamedTuple):
    """The answer of a completion, stripped, or None with the reason."""

    answer: str | None
    reason: ScoreReason | None


def looks_tagged(text: str) -> bool:
    """Whether a text holds any segment tag (in any case), so that it is a completion and no bare answer."""
    return "<" in text and _TAG_ANY_CASE.search(text) is not None


def extract_answer(completion: str, policy: Policy = ROBUST) -> Extracted:
    """Take the answer out of a whole completion; total and linear.

    Returns:
        The stripped answer, or None with NO_ANSWER, EMPTY_ANSWER or SEVERAL_ANSWERS (two that differ).

    >>> extract_answer("<think>not <answer>B</answer></think> <answer> A </answer>").answer
    'A'
    >>> extract_answer("A").reason.value
    'no_answer'
    """
    found = _answers(completion, policy)
    if not found:
        return Extracted(None, ScoreReason.NO_ANSWER)
    if len(found) > 1 and len({fold(answer).casefold() for answer in found}) > 1:
        return Extracted(None, ScoreReason.SEVERAL_ANSWERS)
    answer = found[-1].strip()
    return Extracted(answer, None) if answer else Extracted(None, ScoreReason.EMPTY_ANSWER)


def _answers(text: str, policy: Policy) -> list[str]:
    """Contents of the answer tags that count, in order."""
    pattern = _TAG_ANY_CASE if policy.uppercase_tags else _TAG
    tags = [(m.group(1) == "", m.group(2).lower(), m.start(), m.end()) for m in pattern.finditer(text)]
    ends = [i for i, tag in enumerate(tags) if not tag[0] and tag[1] == "think"]
    opened: str | None = None
    begin = 0
    found: list[str] = []
    for opens, name, start, end in tags[ends[-1] + 1 if ends else 0 :]:
        if opened == "answer" and (opens or name == "answer"):
            if not opens or text[begin:start].strip():
                found.append(text[begin:start])  # an answer opened inside an answer: both were offered
            opened, begin = (name, end) if opens else (None, end)
        elif opened is None and opens:
            opened, begin = name, end
        elif opened == name and not opens:
            opened = None
    if opened == "answer" and policy.unclosed_answer:
        found.append(text[begin:])
    return found


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
        problem_type: a problem type, or its value.
        prediction: an extracted answer, or a whole completion (any segment tag in it makes it one; then the
            answer is taken by `extract_answer`).
        reference: the reference answer, with or without its `<answer>` tag.
        options: of a multiple-choice question, as in the pool.
        policy: see `Policy`.

    Returns:
        A value in [0, 1], or None (unscorable: bad reference), with its reason.

    Raises:
        ValueError: `problem_type` is no problem type.

    >>> score("numerical", prediction="1,000", reference="1000").value
    1.0
    >>> score("multiple choice", prediction="A or B", reference="A", options=["A. x", "B. y"]).reason.value
    'several_answers'
    """
    grader = GRADERS[ProblemType(problem_type).traits.grader]
    grade = grader.paper if policy.profile == "paper" else grader.robust
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
