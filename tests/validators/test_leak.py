"""Observations that state the answer as an answer, or say nothing; and those that only make it plain."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared import samples_dir
from videop2r_data.schemas import DataType, ProblemType, RejectReason, Sample
from videop2r_data.schemas.recipe import VerifySpec
from videop2r_data.validators import check_observation, verify_completion
from videop2r_data.validators.checks import ANSWER_MARKERS

OPTIONS = ("A. a wristwatch", "B. a gold ring", "C. a tattoo", "D. yes")
QUESTION = "What distinctive feature is seen on the hand that places the lid on the pot?"


def reason(observation: str, *, options: tuple[str, ...] = OPTIONS, answer: str = "B", **more: object) -> str:
    check = check_observation(observation, problem=QUESTION, options=options, answer=answer, **more)  # type: ignore[arg-type]
    return check.reason.value if check.reason else ""


@pytest.mark.parametrize(
    "observation",
    [
        "The correct answer is B.",
        "The answer is B",
        "The hand wears a ring. Therefore, the answer is B.",
        "A ring is seen, so the correct option is (B).",
        "So the answer is: **B. a gold ring**",
        "Based on the question, I need to notice the hand. The answer should be a gold ring.",
        "Answer: B",
        "Correct answer: a gold ring",
        "The right choice is option B, a gold ring.",
        "The best option is B since it shines.",
        "The hand wears a ring, which matches option B.",
        "What is seen corresponds to option (B).",
        "This aligns with choice B.",
        "Option B is correct.",
        "Option B is the correct answer",
        "option B seems right",
        "It shines, \\boxed{B}",
        "The final result is $\\boxed{\\text{B}}$.",
        "The answer to the question is a gold ring.",
        "手上有戒指。答案是B。",
        "正确答案为：B",
        "正解はBです。",
        "정답은 B",
        "选项B正确",
        # with words between
        "The correct response is B.",
        "The answer would most likely be B.",
        "The answer must therefore be option B.",
        "The answer, clearly, is B",
        "It shines, so the solution is (B) because of the band.",
        # the answer is all that is said
        "B",
        "(B)",
        "B.",
        "Option B",
        "B. a gold ring",
        "a gold ring",
        "Based on the question, I need to notice a gold ring.",
        # of another option it is no better
        "The answer is C.",
    ],
)
def test_an_answer_that_is_stated_as_an_answer_is_a_leak(observation: str) -> None:
    assert reason(observation) == "leaked_answer"


@pytest.mark.parametrize(
    "observation",
    [
        "There is a gold ring on the ring finger of the hand that places the lid on the pot.",
        "There are no visible wristwatches, tattoos, or silver bracelets on the hand.",
        "Based on the question, I need to notice any distinctive features on the hand.",
        "To find the correct answer, the hand must be looked at. It wears a gold ring.",
        "The question asks which option is correct. The hand wears a ring.",
        "I need to check whether the answer is a wristwatch or a gold ring: the hand shines.",
        "If the answer is B, a ring must be seen. A ring is on the finger.",
        "The answer is not visible in the first frames.",
        "The answer is in the last frame: a gold band around the finger.",
        'A sign on the wall reads "the answer is B" in red letters.',
        "The man says ‘the correct answer is B’ to the class.",
        "The screen shows 'Correct answer: B' in green, and the dogs' bowls are empty.",
        "The correct option cannot be seen at once; a hand comes in from the left.",
        "A woman answers the phone and has no choice but to leave.",
        "The quiz show host shows options A, B, C and D on the screen.",
        "Option A: no watch is visible. Option B: a ring is visible.",
        "The solution is blue and is poured into the flask.",
        "Is the answer B? The hand is too dark to tell.",
        "The screen shows the correct answer highlighted in green.",
        "黑板上写着一道题，学生在回答。",
        "The answer sheet is blank but for the name A. Smith.",
        "The right choice is not clear: the man points at A, then at B.",
        "The solution is poured into flask B.",
        "The student's answer to question A is crossed out.",
        "The ring finger",
    ],
)
def test_what_is_seen_is_no_leak_however_plain(observation: str) -> None:
    assert reason(observation) == ""


@pytest.mark.parametrize(
    "observation",
    [
        "x",
        ".",
        "...",
        "-",
        "N/A",
        "None.",
        "No observation",
        "Based on the question, I need to notice",
        "Based on the question, I need to notice ...",
        "see video above",
        "。",
        QUESTION,
        f"Based on the question, I need to notice {QUESTION[0].lower()}{QUESTION[1:]}",
        "x" + "." * 500,
    ],
)
def test_an_observation_that_says_nothing_is_hollow(observation: str) -> None:
    assert reason(observation) == "hollow_observation"


@pytest.mark.parametrize(
    ("observation", "answer", "kind", "wanted"),
    [
        ("The answer is 7.", "7", ProblemType.NUMERICAL, "leaked_answer"),
        ("The answer is 7 balls.", "7", ProblemType.NUMERICAL, "leaked_answer"),
        ("The answer is 17.", "7", ProblemType.NUMERICAL, ""),
        ("The answer is 7.5 metres", "7.5", ProblemType.REGRESSION, "leaked_answer"),
        ("7", "7", ProblemType.NUMERICAL, "leaked_answer"),
        ("7", "9", ProblemType.NUMERICAL, ""),
        ("Seven balls lie on the table.", "7", ProblemType.NUMERICAL, ""),
        ("7 balls lie on the table.", "7", ProblemType.NUMERICAL, ""),
        ("STOP", "STOP", ProblemType.OCR, ""),
        ("The sign reads STOP.", "STOP", ProblemType.OCR, ""),
        ("The answer is STOP.", "STOP", ProblemType.OCR, "leaked_answer"),
        ("The answer is that the man leaves.", "the man leaves", ProblemType.FREE_FORM, "leaked_answer"),
        ("The man leaves.", "the man leaves", ProblemType.FREE_FORM, "leaked_answer"),
        ("The man leaves through the door.", "the man leaves", ProblemType.FREE_FORM, ""),
    ],
)
def test_answers_that_are_no_options(observation: str, answer: str, kind: ProblemType, wanted: str) -> None:
    assert reason(observation, options=(), answer=answer, problem_type=kind) == wanted


SAMPLE = Sample(
    sample_id="s/0", problem_id="0", problem=QUESTION, problem_type=ProblemType.MULTIPLE_CHOICE,
    data_type=DataType.TEXT, options=OPTIONS, solution="<answer>B</answer>", source="s", row=0,
)  # fmt: skip


def test_the_verify_step_drops_leaks_in_robust_and_keeps_them_in_paper() -> None:
    text = "<observation>The correct answer is B.</observation> <think>So B.</think><answer>B</answer>"
    assert verify_completion(text, SAMPLE, VerifySpec()).check.reason is RejectReason.LEAKED_ANSWER
    paper = VerifySpec.model_validate({"policy": {"profile": "paper"}})
    assert verify_completion(text, SAMPLE, paper).check.reason is None
    assert verify_completion(text, SAMPLE, VerifySpec(observation_leaks=False)).check.reason is None
    wrong = text.replace("<answer>B", "<answer>C")
    assert verify_completion(wrong, SAMPLE, VerifySpec()).check.reason is RejectReason.LOW_SCORE


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=200), st.lists(st.text(max_size=12), max_size=5), st.text(max_size=12))
def test_any_observation_can_be_checked(observation: str, options: list[str], answer: str) -> None:
    check = check_observation(observation, problem=QUESTION, options=options, answer=answer)
    assert check.reason in (None, RejectReason.LEAKED_ANSWER, RejectReason.HOLLOW_OBSERVATION)


@pytest.mark.parametrize(
    "piece", ["answer is ", "option A is ", '"', "the answer is A or ", "答案是", "\\boxed{", "."]
)
def test_long_junk_is_read_to_its_end(piece: str) -> None:
    check = check_observation(piece * (100_000 // len(piece)), problem=QUESTION, options=OPTIONS, answer="B")
    assert check.reason is None or check.detail


def test_no_statement_is_without_a_marker() -> None:
    """`verify` looks for the markers in whole columns, and asks the rule only where one stands."""
    from videop2r_data.validators.conclusions import _BEFORE_CLAIM, _BEHIND_CLAIM, Cue

    for announced in (*_BEFORE_CLAIM, *_BEHIND_CLAIM):
        if announced.cue in (Cue.ANSWER, Cue.OPTION, Cue.BOXED):
            for stem in announced.stems:
                assert re.search(ANSWER_MARKERS, stem, re.IGNORECASE), stem
    for text in (
        "B is correct",
        "matches option B",
        "选项B正确",
        "Bが正しい",
        "答えは",
        "结论是",
        "정답은 B",
    ):
        assert re.search(ANSWER_MARKERS, text, re.IGNORECASE), text


@pytest.mark.skipif(samples_dir() is None, reason="no real rows here")
def test_the_observations_of_real_models_pass() -> None:
    """Captions, descriptions and observations as papers print them: none of them states an answer."""
    import json
    import re

    folder = samples_dir()
    assert folder is not None
    tag = re.compile(r"<(info|caption|description|des|observation)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
    seen = 0
    for path in [*folder.glob("formats/*.jsonl"), folder / "paper_examples_observation.jsonl"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for found in tag.finditer(str(row.get("output") or row.get("output_html") or "")):
                seen += 1
                assert reason(found.group(2), answer=str(row.get("answer", "?"))) == "", found.group(2)
    assert seen >= 40
