"""Every switch of the policy, on and off: what it accepts, what it must not touch."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from videop2r_data.schemas import PAPER, ROBUST, Policy, ProblemType
from videop2r_data.validators import extract_answer, score

PETS = ("A. cat", "B. dog", "C. bird")
CHOICE, NUMBER, REAL, OCR = "multiple choice", "numerical", "regression", "OCR"


class Switch(NamedTuple):
    name: str
    kind: str
    prediction: str
    reference: str
    on: float
    off: float


SWITCHES = (
    Switch("option_text_alone", CHOICE, "dog", "B", 1, 0),
    Switch("option_text_alone", CHOICE, "The answer is dog.", "B", 1, 0),
    Switch("option_text_alone", CHOICE, "B. dog", "B", 1, 1),
    Switch("option_text_alone", CHOICE, "cat", "B", 0, 0),
    Switch("lowercase_letter", CHOICE, "b", "B", 1, 0),
    Switch("lowercase_letter", CHOICE, "(b) dog", "B", 1, 0),
    Switch("lowercase_letter", CHOICE, "B", "B", 1, 1),
    Switch("lowercase_letter", CHOICE, "a", "B", 0, 0),
    Switch("answer_phrase", CHOICE, "The answer is B", "B", 1, 0),
    Switch("answer_phrase", CHOICE, "B is correct", "B", 1, 0),
    Switch("answer_phrase", CHOICE, "The answer is A", "B", 0, 0),
    Switch("answer_phrase", NUMBER, "The answer is 42", "42", 1, 0),
    Switch("answer_phrase", NUMBER, "x = 42", "42", 1, 0),
    Switch("answer_phrase", REAL, "Answer: 9", "10", 0.9, 0),
    Switch("answer_phrase", NUMBER, "42", "42", 1, 1),
    Switch("ignore_case", OCR, "stop", "STOP", 1, 0),
    Switch("ignore_case", OCR, "Stop here now", "STOP here now", 1, 2 / 3),
    Switch("ignore_case", OCR, "STOP", "STOP", 1, 1),
    Switch("ignore_case", "free-form", "A RED BALL", "a red ball", 1, 1),
    Switch("ignore_case", CHOICE, "DOG", "B", 1, 1),
    Switch("percent_as_fraction", NUMBER, "50%", "0.5", 1, 0),
    Switch("percent_as_fraction", NUMBER, "0.5", "50%", 1, 0),
    Switch("percent_as_fraction", NUMBER, "1/2", "50%", 1, 0),
    Switch("percent_as_fraction", NUMBER, "50%", "50%", 1, 1),
    Switch("percent_as_fraction", NUMBER, "50", "50%", 1, 1),
    Switch("percent_as_fraction", NUMBER, "5%", "0.5", 0, 0),
    Switch("percent_as_fraction", NUMBER, "0.5 m", "50%", 0, 0),
    Switch("percent_as_fraction", REAL, "45%", "0.5", 0.9, 0),
    Switch("number_words", NUMBER, "three", "3", 1, 0),
    Switch("number_words", NUMBER, "twenty-one balls", "21", 1, 0),
    Switch("number_words", NUMBER, "2 million", "2000000", 1, 0),
    Switch("number_words", NUMBER, "one hundred and five", "105", 1, 0),
    Switch("number_words", NUMBER, "minus seven", "-7", 1, 0),
    Switch("number_words", NUMBER, "\u4e09\u4e2a", "3", 1, 0),
    Switch("number_words", NUMBER, "two or three", "3", 0, 0),
    Switch("number_words", NUMBER, "two three", "23", 0, 0),
    Switch("number_words", NUMBER, "four", "3", 0, 0),
    Switch("number_words", REAL, "nine", "10", 0.9, 0),
    Switch("missing_unit", NUMBER, "5", "5 cm", 1, 0),
    Switch("missing_unit", REAL, "9", "10 m", 0.9, 0),
    Switch("missing_unit", NUMBER, "5 cm", "5", 1, 1),
    Switch("missing_unit", NUMBER, "5 m", "5 cm", 0, 0),
    Switch("missing_unit", NUMBER, "5 cm", "5 cm", 1, 1),
    Switch("uppercase_tags", CHOICE, "<ANSWER>B</ANSWER>", "B", 1, 0),
    Switch("uppercase_tags", CHOICE, "<THINK><answer>A</answer></THINK><Answer>B</Answer>", "B", 1, 0),
    Switch("uppercase_tags", CHOICE, "<answer>B</answer>", "B", 1, 1),
    Switch("unclosed_answer", CHOICE, "<think>so</think><answer>B", "B", 1, 0),
    Switch("unclosed_answer", NUMBER, "<answer>42\n", "42", 1, 0),
    Switch("unclosed_answer", CHOICE, "<answer>B</answer>", "B", 1, 1),
    Switch("unclosed_answer", CHOICE, "<think><answer>B", "B", 0, 0),
)


@pytest.mark.parametrize("case", SWITCHES, ids=lambda c: f"{c.name}: {c.prediction!r} for {c.reference!r}")
def test_switch(case: Switch) -> None:
    for value, expected in ((True, case.on), (False, case.off)):
        policy = Policy.model_validate({case.name: value})
        options = PETS if case.kind == CHOICE else ()
        found = score(
            case.kind, prediction=case.prediction, reference=case.reference, options=options, policy=policy
        )
        assert found.value == pytest.approx(expected), (value, found)


def test_every_switch_has_two_cases_that_it_decides() -> None:
    deciding = [case.name for case in SWITCHES if case.on != case.off]
    for name in Policy.model_fields.keys() - {"profile", "box_scale"}:
        assert deciding.count(name) >= 2, name


def test_switches_of_answers_leave_paper_alone() -> None:
    every = dict.fromkeys(Policy.model_fields.keys() - {"profile", "box_scale"}, True)
    policy = PAPER.model_copy(update=every)
    for case in SWITCHES:
        if "<" in case.prediction:
            continue
        values = [
            score(
                case.kind, prediction=case.prediction, reference=case.reference, options=PETS, policy=p
            ).value
            for p in (PAPER, policy)
        ]
        assert values[0] == values[1], case


@pytest.mark.parametrize("name", ["uppercase_tags", "unclosed_answer"])
def test_switches_of_tags_act_on_paper(name: str) -> None:
    text = {"uppercase_tags": "<ANSWER>B</ANSWER>", "unclosed_answer": "<answer>B"}[name]
    assert extract_answer(text, PAPER).answer is None
    assert extract_answer(text, PAPER.model_copy(update={name: True})).answer == "B"


@pytest.mark.parametrize("kind", list(ProblemType))
def test_an_unknown_type_is_a_fault_of_the_caller(kind: ProblemType) -> None:
    with pytest.raises(ValueError, match="not a valid ProblemType"):
        score(kind.value + "?", prediction="A", reference="A")


def test_boxes_are_converted_only_where_the_policy_says_so() -> None:
    box, reference = '{"bbox_2d": [100, 200, 300, 400]}', "[0.1, 0.2, 0.3, 0.4]"
    assert score("spatial grounding", prediction=box, reference=reference).value == 0.0
    for profile in (PAPER, ROBUST):
        scaled = profile.model_copy(update={"box_scale": 0.001})
        found = score("spatial grounding", prediction=box, reference=reference, policy=scaled)
        assert found.value == pytest.approx(1.0)
