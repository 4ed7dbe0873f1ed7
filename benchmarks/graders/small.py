"""math-verify and inspect_ai's scorers over answers in a file; runs in an environment that has them.

    python small.py ANSWERS VERDICTS

Each line of VERDICTS says how one grader took one answer: true, false, or null for no verdict.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
from inspect_ai.scorer import Score, Scorer, Target, answer, choice, exact, match, math, pattern
from inspect_ai.solver import TaskState
from inspect_ai.solver._multiple_choice import parse_answers, set_choices_based_on_generated_response
from math_verify import (
    ExprExtractionConfig,
    LatexExtractionConfig,
    StringExtractionConfig,
    parse,
    verify,
)

_ANSWER_TAG = r"<answer>\s*(.*?)\s*</answer>"


def _state(one: dict[str, Any]) -> TaskState:
    return TaskState(
        model=ModelName("mockllm/model"),
        sample_id=1,
        epoch=1,
        input=one["problem"] or "?",
        messages=[ChatMessageUser(content=one["problem"] or "?")],
        target=Target(one["reference"]),
        choices=[option[3:] for option in one["options"]] or None,
        output=ModelOutput.from_content("mockllm/model", one["completion"]),
    )


def _inspect(one: dict[str, Any], scorer: Scorer, *, marked: bool = False) -> bool | None:
    """Run a scorer as an evaluation would; `choice` wants the choices that the solver marks."""
    state = _state(one)
    reference = one["reference"]
    target = Target(reference.split(", ") if marked else reference)
    if marked:
        several = len(reference) > 1
        set_choices_based_on_generated_response(state, parse_answers(state, several))
    try:
        found: Score | None = asyncio.run(scorer(state, target))
    except ValueError:
        return None  # it cannot read the reference
    return None if found is None else found.value == "C"


def _math_verify(one: dict[str, Any]) -> bool | None:
    """math-verify with the extraction that its documentation names for the kind of answer."""
    if one["kind"] in ("letter", "letters"):
        letters = tuple(option[0] for option in one["options"])
        config: Any = [StringExtractionConfig(strings=letters)]
        gold = parse(one["reference"], extraction_config=config)
    else:
        config = [LatexExtractionConfig(), ExprExtractionConfig()]
        gold = parse(f"${one['reference']}$", extraction_config=config)
    given = parse(one["completion"], extraction_config=config)
    if not gold:
        return None  # it cannot read the reference
    return bool(verify(gold, given))


def verdicts(answers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What each grader says of each answer that it is made for."""
    for one in answers:
        found: dict[str, bool | None] = {}
        if one["kind"] in ("letter", "letters"):
            found["inspect_ai, choice"] = _inspect(one, choice(), marked=True)
        if one["kind"] == "letter":
            found["inspect_ai, answer(letter)"] = _inspect(one, answer("letter"))
        if one["kind"] in ("number", "estimate"):
            found["inspect_ai, match(numeric)"] = _inspect(one, match(numeric=True))
            found["inspect_ai, math"] = _inspect(one, math())
        if one["kind"] == "text":
            found["inspect_ai, match"] = _inspect(one, match())
            found["inspect_ai, exact"] = _inspect(one, exact())
        found["inspect_ai, pattern of the answer tag"] = _inspect(one, pattern(_ANSWER_TAG))
        if one["kind"] in ("letter", "letters", "number", "estimate"):
            found["math-verify"] = _math_verify(one)
        for grader, verdict in found.items():
            yield {"id": one["id"], "grader": grader, "verdict": verdict}


def main() -> None:
    """Read answers, write verdicts."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    found = [json.dumps(verdict) + "\n" for verdict in verdicts(rows)]
    Path(sys.argv[2]).write_text("".join(found), encoding="utf-8")


if __name__ == "__main__":
    main()
