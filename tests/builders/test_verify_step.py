"""The recipe's verify step run again, and the shortcuts that spare it for plain rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.release_rows import Row, valid_rows, write_ours
from videop2r_data.builders.verify import VerifyReport, verify_release
from videop2r_data.builders.verify.report import Rules, Tally
from videop2r_data.builders.verify.rows import Say, check_row, rescore
from videop2r_data.schemas import (
    PAPER,
    ROBUST,
    Policy,
    ProblemType,
    VerifySpec,
    load_grammar,
    parse_trace,
    sft_row_of,
)
from videop2r_data.schemas.lock import BuildLock
from videop2r_data.schemas.sample import LETTERS
from videop2r_data.validators import score


def written(folder: Path, row: Row, **verify: Any) -> VerifyReport:
    rows = valid_rows()
    rows["sft"][0] = row

    def settings_of(lock: BuildLock) -> BuildLock:
        recipe = lock.recipe | {"verify": lock.recipe["verify"] | verify}
        return lock.model_copy(update={"recipe": recipe})

    return verify_release(write_ours(folder, rows, change=settings_of), workers=1)


def with_segments(**segments: str) -> Row:
    row = valid_rows()["sft"][0] | segments
    process = f"<think>{row['think']}</think><answer>{row['answer']}</answer>"
    return row | {"process": process, "output": f"<observation>{row['observation']}</observation> {process}"}


def codes(report: VerifyReport) -> set[str]:
    return {found.code.value for found in report.findings}


def test_a_think_segment_that_settles_on_another_option(tmp_path: Path) -> None:
    row = with_segments(think="Based on the observations, it is green. So the answer is C.")
    report = written(tmp_path / "on", row)
    assert codes(report) == {"verify_step"}
    assert report.findings[0].places[0].got.startswith("think_answer_mismatch")
    assert codes(written(tmp_path / "off", row, think_answer_consistency=False)) == set()


def test_a_think_segment_that_settles_on_another_number(tmp_path: Path) -> None:
    rows = valid_rows()
    row = rows["sft"][1]
    think = "Based on the observations, I count again. The answer is 41."
    process = f"<think>{think}</think><answer>{row['answer']}</answer>"
    output = f"<observation>{row['observation']}</observation> {process}"
    rows["sft"][1] = row | {"think": think, "process": process, "output": output}
    report = verify_release(write_ours(tmp_path / "made", rows), workers=1)
    assert codes(report) == {"verify_step"}
    assert report.findings[0].places[0].row == 1


@pytest.mark.parametrize(
    "observation",
    ["I see it. <judgement>Yes</judgement>", "I see it. ＜judgement＞Yes＜/judgement＞"],
)
def test_a_copied_verdict(tmp_path: Path, observation: str) -> None:
    report = written(tmp_path / "made", with_segments(observation=observation))
    assert codes(report) == {"verify_step"}
    assert report.findings[0].places[0].got.startswith("copied_verdict")


LEAKS = ["I need to look. The correct answer is B.", "B", "x"]


@pytest.mark.parametrize("observation", LEAKS)
def test_an_observation_that_states_the_answer_or_says_nothing(tmp_path: Path, observation: str) -> None:
    row = with_segments(observation=observation, answer="B")
    report = written(tmp_path / "on", row)
    assert "verify_step" in codes(report)
    got = next(f for f in report.findings if f.code.value == "verify_step").places[0].got
    assert got.startswith(("leaked_answer", "hollow_observation"))
    report = written(tmp_path / "off", row, observation_leaks=False)
    assert "verify_step" not in codes(report)
    assert [note for note in report.notes if "observation" in note]


def test_a_set_that_is_older_than_the_rule_stays_valid(tmp_path: Path) -> None:
    row = with_segments(observation="The correct answer is B.")
    rows = valid_rows()
    rows["sft"][0] = row

    def older(lock: BuildLock) -> BuildLock:
        verify = {k: v for k, v in lock.recipe["verify"].items() if k != "observation_leaks"}
        return lock.model_copy(update={"recipe": lock.recipe | {"verify": verify}})

    report = verify_release(write_ours(tmp_path / "made", rows, change=older), workers=1)
    assert codes(report) == set() and report.ok


def test_other_angle_brackets_are_text(tmp_path: Path) -> None:
    assert codes(written(tmp_path / "made", with_segments(observation="a < b > c <Think> </b>"))) == set()


def test_a_threshold_of_the_recipe(tmp_path: Path) -> None:
    report = written(tmp_path / "made", valid_rows()["sft"][0] | {"reward": 0.9}, threshold=0.95)
    assert codes(report) == {"below_threshold"}


LABELS = st.sampled_from(LETTERS[:8])


@given(
    st.lists(
        st.tuples(LABELS, st.sampled_from([". ", ".", ") ", ": ", " "]), st.text(max_size=8)), max_size=6
    ),
    st.one_of(LABELS, st.text(max_size=4)),
    st.sampled_from([PAPER, ROBUST]),
)
@settings(deadline=None, max_examples=300)
def test_the_shortcut_for_options_is_what_the_scorer_says(
    parts: list[tuple[str, str, str]], answer: str, policy: Policy
) -> None:
    options = [f"{label}{sign}{text}" for label, sign, text in parts]
    assert_same_score(ProblemType.MULTIPLE_CHOICE, answer, options, policy)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=8), st.data())
@settings(deadline=None, max_examples=200)
def test_the_shortcut_on_plain_options(texts: list[str], data: st.DataObject) -> None:
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    answer = data.draw(st.sampled_from(LETTERS[: len(options)]))
    assert_same_score(
        ProblemType.MULTIPLE_CHOICE, answer, options, data.draw(st.sampled_from([PAPER, ROBUST]))
    )


@given(st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{0,3})?", fullmatch=True), st.sampled_from([PAPER, ROBUST]))
@settings(deadline=None, max_examples=200)
def test_the_shortcut_for_numbers_is_what_the_scorer_says(answer: str, policy: Policy) -> None:
    assert_same_score(ProblemType.NUMERICAL, answer, [], policy)


def assert_same_score(kind: ProblemType, answer: str, options: list[str], policy: Policy) -> None:
    asked = score(kind, prediction=answer, reference=answer, options=tuple(options), policy=policy)
    assert rescore(kind, answer, answer, options, policy).value == asked.value


@pytest.mark.parametrize(
    ("span", "found"),
    [
        ("00:00-00:02", None),  # four frames of 0.4 s: the clip ends after 1.24 s
        ("00:00-00:03", "senseless_value: time, at character 6: end 3 mm:ss is not within 0 to 2"),
        ("00:02-00:01", "senseless_value: time, at character 6: start 2 is not before end 1"),
    ],
)
def test_a_time_behind_the_end_of_the_frames(span: str, found: str | None) -> None:
    grammar = load_grammar("video-thinker")
    output = f"<time>{span}</time> <caption>A dog at the door.</caption> <answer>12.5</answer>"
    row = valid_rows()["sft"][4] | {"output": output}
    row |= parse_trace(output, grammar).columns()
    tally = Tally()
    rules = Rules("ours", VerifySpec(), own=True, grammar=grammar)
    check_row(Say(tally, "sft"), rules, 0, sft_row_of(grammar).model_construct(**row))
    assert [place.got for one in tally.findings.listing() for place in one.places] == (
        [found] if found else []
    )
