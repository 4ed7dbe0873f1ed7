"""Dynamic sampling with a policy of a few lines: which groups give way, to what, and that a resumed run agrees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from tests.fakes.scripted import Scripted
from tests.integration.test_train_run import assert_same, stopped_after
from tests.trainer.run import small
from videop2r_data.demo import write_trace
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.judging.base import Judged, Reason
from videop2r_data.trainer.look.samples import read_samples
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.rollouts import Roller
from videop2r_data.trainer.run.step import Engine
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe

torch.set_num_threads(1)
QUIET = {"alarms__every": 0, "judging": {"kind": "none"}, "batch": {"size": 2, "micro": 2}}
FALSE = "<observation>Nothing.</observation> <think>Nothing is seen.</think><answer>Z</answer>"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


class Script(Scripted):
    """Answers planned questions alike in the whole group, and others with one rollout false: after
    `stubborn` calls that were still alike."""

    stubborn = 0
    asked: ClassVar[list[list[str]]] = []

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Any = None
    ) -> list[RolledOut]:
        planned = {e.sample_id for step in range(4) for e in self.session.planned(step)}
        type(self).asked.append([e.sample_id for e in prompts.examples])
        alike = type(self).stubborn > 0 and not planned.intersection(type(self).asked[-1])
        type(self).stubborn -= alike
        found = []
        for number, example in enumerate(prompts.examples):
            assert example.scene is not None
            # the second planned question of a step teaches from the start
            teaches = number == 1 if example.sample_id in planned else not alike
            for g in range(group_size):
                true = write_trace(example.scene, None, seed=0)
                found.append(self.said(FALSE if g == 0 and teaches else true))
        return found


def recipe_of(tiny: Path, out: Path, **changes: Any) -> TrainRecipe:
    return small.rl(tiny, out, **{"objective__name": "grpo", "steps": 2, **QUIET, **changes})


def run(tiny: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> list[dict[str, Any]]:
    monkeypatch.setattr(rl, "make_drawer", Script)
    monkeypatch.setattr(Script, "asked", [])
    monkeypatch.setattr(Script, "stubborn", changes.pop("stubborn", 0))
    train(recipe_of(tiny, out, **changes))
    return small.rows(out)


def test_a_group_that_teaches_nothing_gives_way(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run(tiny, tmp_path / "plain", monkeypatch)
    assert [row["collapsed/plain"] for row in plain] == [1, 1] and "redrawn" not in plain[0]
    rows = run(tiny, tmp_path / "run", monkeypatch, rl__redraws=3)
    assert [(row["collapsed/plain"], row["redrawn"], row["replaced"]) for row in rows] == [(0, 1, 1)] * 2
    assert [len(asked) for asked in Script.asked] == [2, 1, 2, 1]
    # the group that taught stays; the other is of the new question, and what is recorded is what was learnt
    records = read_samples(tmp_path / "run", step=1)
    names = [record["sample_id"] for record in records]
    assert names == [*Script.asked[1] * 4, *[Script.asked[0][1]] * 4]
    assert all(record["advantages"]["all"] != 0 for record in records)


def test_the_rounds_are_bounded(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tiny, tmp_path / "a", monkeypatch, rl__redraws=2, stubborn=9, steps=1)
    assert (rows[0]["collapsed/plain"], rows[0]["redrawn"], rows[0]["replaced"]) == (1, 2, 0)
    first = [asked[0] for asked in Script.asked]
    assert len(set(first)) == 3  # every round asks another question
    rows = run(tiny, tmp_path / "b", monkeypatch, rl__redraws=2, stubborn=1, steps=1)
    assert (rows[0]["collapsed/plain"], rows[0]["redrawn"], rows[0]["replaced"]) == (0, 2, 1)
    assert [asked[0] for asked in Script.asked] == first


def test_a_resumed_run_draws_the_same(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tiny, tmp_path / "whole", monkeypatch, rl__redraws=2)
    asked = list(Script.asked)
    monkeypatch.setattr(Script, "asked", [])
    recipe = recipe_of(tiny, tmp_path / "parts", rl__redraws=2)
    stopped_after(recipe, 1)
    train(recipe)
    assert small.rows(tmp_path / "parts") == whole and Script.asked == asked
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_judged_objective_waits_for_its_verdicts(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = {"judging": {"kind": "demo"}, "objective__name": "pa-grpo"}
    rows = run(tiny, tmp_path / "run", monkeypatch, rl__redraws=1, **judged, steps=1)
    assert (rows[0]["collapsed/p"], rows[0]["collapsed/r"], rows[0]["replaced"]) == (0, 0, 1)
    # two of the eight observations say nothing: the rules decide them
    assert rows[0]["unscored/p"] == 0 and rows[0]["judge/asked"] + rows[0]["judge/cached"] == 6


def test_a_group_that_teaches_in_one_stream_stays(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of the planned questions' observations none is judged: perception is flat, and the answers of one differ
    part = {"objective__name": "pa-grpo", "judging": {"kind": "none", "reward": "self"}, "steps": 1}
    monkeypatch.setattr(
        Roller, "answered", lambda self, items, seeds: [Judged(None, Reason.LATE)] * len(items)
    )
    form = {"rewards": {"form": 0.0, "length": "off"}}
    rows = run(tiny, tmp_path / "run", monkeypatch, rl__redraws=1, **part, **form)
    assert (rows[0]["collapsed/p"], rows[0]["collapsed/r"], rows[0]["replaced"]) == (2, 0, 1)


def test_a_process_whose_groups_all_teach_takes_part_in_every_round(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # another process asks for more; the exact judge is asked about nothing, without harm
    monkeypatch.setattr(Engine, "agreed", lambda self, asked: True)
    judged = {"objective__name": "pa-grpo", "judging": {"kind": "demo"}, "steps": 1}
    rows = run(tiny, tmp_path / "run", monkeypatch, rl__redraws=3, **judged)
    assert (rows[0]["redrawn"], rows[0]["replaced"], len(Script.asked)) == (1, 1, 2)


@pytest.mark.parametrize("name", ["gdpo-published", "dapo", "dr-grpo", "gspo", "papo"])
def test_every_published_objective_trains(
    name: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # two updates of each batch, so that ratios move; a judge, because one of them pays observations
    judged = {"judging": {"kind": "demo"}, "objective__name": name, "rl__iterations": 2, "steps": 1}
    rows = run(tiny, tmp_path / name, monkeypatch, **judged)
    assert rows[0]["grad_norm"] > 0 and rows[0]["nonfinite"] == 0
    assert ("kl_blind" in rows[0]) == (name == "papo") and ("redrawn" in rows[0]) == (name == "dapo")
    assert name != "papo" or rows[0]["kl_blind"] > 0
