"""What a think segment settles on: sure or silent, never a guess."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared import samples_dir
from tests.validators import cases_think
from videop2r_data.schemas import ProcessTrace
from videop2r_data.validators import check_consistency, option_set, think_choice, think_number
from videop2r_data.validators import checks as consistency
from videop2r_data.validators import conclusions as reader

PETS = ("A. cat", "B. dog", "C. bird")
RINGS = ("A. a wristwatch", "B. a gold ring", "C. a ring")
TWINS = ("A. left", "B. right", "C. left")

CHOICES: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
    # settled
    ("So the answer is B.", "B", PETS),
    ("So the answer is (B).", "B", PETS),
    ("Therefore, the correct answer should be B.", "B", PETS),
    ("The answer is **B**.", "B", PETS),
    ("The answer is option B.", "B", PETS),
    ("The answer is B. dog.", "B", PETS),
    ("The answer is dog.", "B", PETS),
    ("The answer is the dog.", "B", PETS),
    ("It barks. The correct option is: B", "B", PETS),
    ("Answer: B", "B", PETS),
    ("The final answer is \\boxed{B}.", "B", PETS),
    ("\\boxed{B}", "B", PETS),
    ("The answer is a gold ring.", "B", RINGS),
    ("The answer should be the one that matches the gold ring.", "B", RINGS),
    ("First the answer is A, no. On the whole, the answer is B.", "B", PETS),
    ("The answer is A. Wait, it barks. So the answer is B.", "B", PETS),
    ("The answer is B because it barks.", "B", PETS),
    ("It barks, which matches option B.", "B", PETS),
    ("So the answer is B, not A.", "B", PETS),
    ("The answer is left.", "A", TWINS),
    # undecided
    ("", None, PETS),
    ("It barks and runs.", None, PETS),
    ("The answer is A or B.", None, PETS),
    ("The answer is not A.", None, PETS),
    ("The answer isn't B.", None, PETS),
    ("Is the answer B?", None, PETS),
    ("If it barks, the answer is B.", None, PETS),
    ("The answer might be B.", None, PETS),
    ("The answer could be B.", None, PETS),
    ("The answer is D.", None, PETS),
    ("The answer is A. dog.", None, PETS),
    ("The answer is B. However, it has feathers.", None, PETS),
    ("The answer is B. Wait, it has feathers.", None, PETS),
    ("The answer is B. But the bird fits as well.", None, PETS),
    ("The answer is a matter of taste.", None, PETS),
    ("A dog is an animal. I see it.", None, PETS),
    ("The options are A, B and C.", None, PETS),
    ("Suppose the answer is B.", None, PETS),
    ("I wonder whether the answer is B.", None, PETS),
)


@pytest.mark.parametrize(("think", "label", "options"), (*CHOICES, *cases_think.CHOICES))
def test_the_option_a_think_segment_settles_on(
    think: str, label: str | None, options: tuple[str, ...]
) -> None:
    assert think_choice(think, options) == label


NUMBERS: tuple[tuple[str, float | None], ...] = (
    ("3 and 4, so the answer is 7.", 7),
    ("So the answer is 1,000.", 1000),
    ("The answer is -3.", -3),
    ("The answer is 3.5 m.", 3.5),
    ("The answer is \\frac{1}{2}.", 0.5),
    ("Therefore \\boxed{7}", 7),
    ("The answer is 6. Wait, one more. So the answer is 7.", 7),
    ("There are 3 red and 4 blue.", None),
    ("The answer is 6 or 7.", None),
    ("The answer is not 7.", None),
    ("If none is hidden, the answer is 7.", None),
    ("The answer is 7. But one may be hidden.", None),
    ("Is the answer 7?", None),
    ("The answer is large.", None),
    ("", None),
)


@pytest.mark.parametrize(("think", "value"), (*NUMBERS, *cases_think.NUMBERS))
def test_the_number_a_think_segment_settles_on(think: str, value: float | None) -> None:
    found = think_number(think)
    assert (None if found is None else float(found.value)) == value


CHECKS = (
    ("multiple choice", "So the answer is B.", "B", True),
    ("multiple choice", "So the answer is B.", "(B)", True),
    ("multiple choice", "So the answer is B.", "dog", True),
    ("multiple choice", "So the answer is B.", "A", False),
    ("multiple choice", "So the answer is dog.", "C", False),
    ("multiple choice", "It barks.", "A", True),
    ("multiple choice", "So the answer is B.", "A or B", True),
    ("numerical", "So the answer is 7.", "7", True),
    ("numerical", "So the answer is 7.", "7.0", True),
    ("numerical", "So the answer is 7.", "8", False),
    ("numerical", "So the answer is 3.14159.", "3.14", True),
    ("numerical", "So the answer is 3.2.", "3.14", False),
    ("numerical", "So the answer is 7 m.", "700 cm", True),
    ("regression", "So the answer is 7.", "9", False),
    ("OCR", "So the answer is EXIT.", "ENTRY", True),
    ("free-form", "So the answer is a cat.", "a dog", True),
)


@pytest.mark.parametrize(("kind", "think", "answer", "passes"), CHECKS)
def test_think_and_answer(kind: str, think: str, answer: str, passes: bool) -> None:
    trace = ProcessTrace(observation="o", think=think, answer=answer)
    check = check_consistency(trace, kind, PETS if kind == "multiple choice" else ())
    assert (check.reason is None) is passes, check
    if not passes:
        assert check.reason is not None and check.reason.value == "think_answer_mismatch"
        assert "think settles on" in check.detail


@settings(deadline=None)
@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=6))
def test_no_text_raises(think: str, options: list[str]) -> None:
    for text in (think, f"So the answer is {think}", f"{think} the answer is B. {think}"):
        assert think_choice(text, options) in {None, *option_set(tuple(options)).labels}
        number = think_number(text)
        assert number is None or number.value == number.value


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["the answer is ", "A", "answer: (", "\\boxed{", " ", "1. ", "option B, "])
def test_a_megabyte_of_thinking_comes_back(piece: str) -> None:
    think = piece * (1_000_000 // len(piece))
    assert think_choice(think, PETS) is None
    assert think_number(think) is None


# --- real outputs


def _samples() -> Path:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no folder of real rows")
    return folder


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _segment(text: str, name: str) -> str:
    return text.partition(f"<{name}>")[2].partition(f"</{name}>")[0].strip()


def test_the_papers_own_examples_settle_on_their_answers() -> None:
    rows = _rows(_samples() / "paper_examples_observation.jsonl")
    settled = []
    for row in rows:
        options = re.split(r"[\s,.]+(?=[A-D]\.)", row["question"].partition("Options:")[2])[1:]
        settled.append(think_choice(_segment(row["output"], "think"), options))
    assert settled == [row["answer"] for row in rows] == ["A", "B", "C"]


def test_real_outputs_are_read_without_a_fault_and_few_mismatch() -> None:
    """The paper finds 5 to 21 % mismatch in such models; what is undecided passes, so that less is found."""
    seen = mismatched = decided = 0
    for path in sorted(_samples().glob("out_*.jsonl")):
        for row in _rows(path):
            question = row.get("question", row)
            text = row.get("model_output") or row.get("output") or ""
            text = text if isinstance(text, str) else json.dumps(text)
            options = tuple(question.get("options") or ()) if isinstance(question, dict) else ()
            think, answer = _segment(text, "think"), _segment(text, "answer")
            decided += think_choice(think or text, options) is not None
            think_number(think or text)
            if not (think and answer and len(options) > 1):
                continue
            seen += 1
            trace = ProcessTrace.model_construct(observation="o", think=think, answer=answer)
            mismatched += check_consistency(trace, "multiple choice", options).reason is not None
    assert seen >= 100 and decided >= 20
    assert mismatched <= 0.2 * seen


@given(
    st.text(max_size=80),
    st.sampled_from(["answer is", "answer should be", "answer must be", "answer is not", "answers is"]),
    st.sampled_from("ABCDZ"),
    st.sampled_from(["", ".", ". ", "\n", "?", " or B.", ".)"]),
    st.sampled_from("ABCD"),
)
@settings(deadline=None)
def test_the_short_cut_for_last_words_agrees_with_the_full_rule(
    before: str, phrase: str, letter: str, end: str, answer: str
) -> None:
    think = f"{before}. So the {phrase} {letter}{end}"
    options = ["A. red", "B. blue", "C. green", "D. grey"]
    trace = ProcessTrace.model_construct(observation="o", think=think, answer=answer)
    thought = think_choice(think, options)
    assert (check_consistency(trace, "multiple choice", options).reason is None) == (
        thought in (None, answer)
    )


_WORDS = [
    "the",
    "answer",
    "Answer",
    "OPTION",
    "option",
    "choice",
    "conclusion",
    "anſwer",
    "ıs",
    "is",
    "should be",
    "I choose",
    "we go with",
    "is correct",
    "the right",
    "there are",
    "total of",
    "we see",
]
_MORE = [":", "=", "A", "B.", "C,", "(D)", "red", "matches", "which is", ".", "?", "\\boxed{A}", "not", "\n"]


@given(st.lists(st.sampled_from(_WORDS + _MORE), max_size=14))
@settings(deadline=None, max_examples=400)
def test_the_words_looked_for_first_stand_in_every_conclusion(words: list[str]) -> None:
    text = " ".join(words)
    found = [(match.span(), cue) for cue, match in reader._matches(text, reader._BEFORE_CLAIM)]
    slow = [
        (match.span(), words.cue) for words in reader._BEFORE_CLAIM for match in words.wide.finditer(text)
    ]
    assert found == sorted(slow, key=lambda one: one[0][0])
    sentence = reader.last_sentence(text)
    if sentence.isascii() and consistency._MATCHES.search(sentence):
        assert any(word in sentence.lower() for word in consistency._CHOICE_STEMS)


def test_the_last_sentence_is_read_the_same_with_a_long_s() -> None:
    options = ["A. red", "B. blue"]
    assert consistency.think_choice("It is blue. This matches anſwer B.", options) == "B"
    assert consistency.think_choice("It is blue. This matches answer B.", options) == "B"
