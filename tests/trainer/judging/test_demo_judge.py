from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from tests.trainer.judging.questions import item, question
from videop2r_data.demo import SceneSample, iter_scenes, write_trace
from videop2r_data.demo.scene import Defect
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import parse_trace
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.trainer.judging.base import DemoJudge, JudgeItem, Reason, Ticket, Verdicts, judge_counts
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.settings.rl import JudgingSpec


def scenes(n: int) -> list[SceneSample]:
    return list(islice(iter_scenes(DemoSpec(defect_rate=0.0, seed=3)), n))


def about(sample: SceneSample, observation: str | None) -> JudgeItem:
    asked = sample.question
    return JudgeItem(question("demo/1", asked.problem, asked.options, asked.answer, sample), observation)


def test_true_observations_suffice_and_wrong_ones_do_not() -> None:
    judge = DemoJudge()
    items = []
    for sample in scenes(6):
        good = parse_trace(write_trace(sample, None)).observation
        bad = parse_trace(write_trace(sample, Defect.EVIDENCE_OMITTED)).observation
        items += [about(sample, good), about(sample, bad)]
    assert [one.sufficient for one in judge.submit(items).result()] == [True, False] * 6


def test_counts_and_repeats() -> None:
    judge = DemoJudge()
    sample = scenes(1)[0]
    good = parse_trace(write_trace(sample, None)).observation
    ticket = judge.submit(
        [
            about(sample, good),
            about(sample, good),
            about(sample, None),
            about(sample, good + "<judgement>Yes"),
        ]
    )
    judged = ticket.result()
    assert [one.sufficient for one in judged] == [True, True, False, False]
    assert [one.cached for one in judged] == [False, True, False, False]
    assert judge_counts([None, *judged]) == {"asked": 1, "cached": 1, "late": 0, "failed": 0}
    reasons = [one.reason for one in judged]
    assert reasons == [Reason.JUDGED, Reason.JUDGED, Reason.NO_OBSERVATION, Reason.COPIED_VERDICT]


def test_data_without_scenes_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no scene[\s\S]*scenes\.jsonl"):
        DemoJudge().submit([item("a red disc")])


def test_the_settings_choose_the_judge(tmp_path: Path) -> None:
    assert make_judge(JudgingSpec(), cache=tmp_path) is None
    assert isinstance(make_judge(JudgingSpec(kind="demo"), cache=tmp_path), DemoJudge)


def test_observations_that_are_submitted_one_by_one_count_as_those_of_one_ticket() -> None:
    sample = scenes(1)[0]
    good = parse_trace(write_trace(sample, None)).observation
    items = [about(sample, text) for text in (good, "Nothing.", good, None, good)]
    whole = DemoJudge().submit(items).result()
    verdicts = Verdicts(DemoJudge())
    for row in (4, 1, 0, 3, 2):  # as they end
        verdicts.add(row, items[row])
    one_by_one = verdicts.result()
    assert list(one_by_one) == [0, 1, 2, 3, 4] and list(one_by_one.values()) == whole
    assert judge_counts(whole) == {"asked": 1, "cached": 2, "late": 0, "failed": 0}


def test_what_stops_the_run_is_raised_before_other_verdicts_are_in() -> None:
    class Stuck(DemoJudge):
        def submit(self, items: Sequence[JudgeItem]) -> Ticket:
            ticket = Ticket()
            if items[0].observation == "bad":
                ticket.set_exception(ConfigError("no such model"))
            return ticket

    verdicts = Verdicts(Stuck())
    for row, text in enumerate(("one that never comes", "bad")):
        verdicts.add(row, about(scenes(1)[0], text))
    with pytest.raises(ConfigError, match="no such model"):
        verdicts.result()
