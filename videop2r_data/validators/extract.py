"""Where a completion's answer stands: in its answer tag, after the last `</think>`, never in P or think."""

from __future__ import annotations

import re
from typing import NamedTuple

from videop2r_data.schemas import ROBUST, Policy, ScoreReason
from videop2r_data.validators.text import fold

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
