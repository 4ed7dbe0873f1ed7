"""This project's graders over labelled answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.graders.answers import Answer

_THRESHOLD = 0.6  # what data keep
_GRAMMARS = {"llava_cot": "llava-cot", "vision_sr1": "vision-sr1", "visionary_r1": "visionary-r1"}
_GRAMMARS |= {"video_thinker": "video-thinker"}
"""Part of a file's name -> the packaged grammar of what its model was asked for, as a plan names it."""


def verdicts(answers: list[Answer]) -> Iterator[dict[str, Any]]:
    """What the scorer of data and rewards says, in both profiles, and the reader of evaluations."""
    from videop2r_data.schemas import Policy, load_grammar
    from videop2r_data.validators import read_reply, score

    paper = Policy(profile="paper")
    for one in answers:
        asked: dict[str, Any] = {"reference": one.reference, "options": one.options}
        name = next((name for part, name in _GRAMMARS.items() if part in one.form), "")
        grammar = load_grammar(name) if name else None
        reading = read_reply(
            one.completion, problem_type=one.problem_type, options=one.options, grammar=grammar
        )
        found = {
            "ours, evaluation": score(one.problem_type, prediction=reading.answer or "", **asked),
            "ours, data and rewards": score(one.problem_type, prediction=one.completion, **asked),
            "ours, profile paper": score(one.problem_type, prediction=one.completion, policy=paper, **asked),
        }
        for grader, given in found.items():
            verdict = None if given.value is None else given.value >= _THRESHOLD
            yield {"id": one.id, "grader": grader, "verdict": verdict, "reason": str(given.reason.value)}
