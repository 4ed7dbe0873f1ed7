"""One step ahead: what is drawn by which weights, beside what, and what a resumed run trains on."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.test_train_run import assert_close, launched, written
from tests.trainer.run import small
from tests.trainer.run.ahead_two import trained
from videop2r_data.demo import write_trace
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import Example, Skip
from videop2r_data.trainer.data.loader import LoadedBatch, MediaLoader
from videop2r_data.trainer.judging.base import DemoJudge, JudgeItem, Ticket
from videop2r_data.trainer.rollout.base import Ended, RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.runlog import Stop
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.step import Engine
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe

WORLD = {**small.STREAM, "tasks": ["colour"]}
BAD = "<observation>Nothing is in it.</observation> <think>Nothing.</think><answer>A</answer>"
LONG_S = 120.0
"""Waited at most for what must come: only a fault lets it pass."""


class Own:
    """An engine with weights of its own, on which what it writes depends; it tells their log-probabilities.

    Args:
        session: of the run.
        log: gets what happens, in order: (`sync`, weights), (`draw`, weights), (`drawn`, weights).
    """

    room: int | None = None

    def __init__(self, session: Session, log: list[tuple[str, int]]) -> None:
        self.tokenizer, self.log = session.policy.tokenizer, log
        self.sync(session.engine.model)

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        self.log.append(("draw", self.weights))
        rows = []
        for row, seed in enumerate(seeds):
            example = prompts.examples[row // group_size]
            assert example.scene is not None
            chosen = (seed + self.weights) % 3
            said = write_trace(example.scene, None, seed=chosen) if chosen else BAD
            rows.append(self.tokenizer(said + "<|im_end|>", add_special_tokens=False).input_ids)
        with torch.no_grad():
            told = self.net(prompts.with_completions(rows, group_size)).logps.tolist()
        done = []
        for row, ids in enumerate(rows):
            done.append(RolledOut(ids, True, told[row][: len(ids)]))
            if ended is not None and row % 2:  # an engine need not tell of all
                ended(row, done[row])
            self.between(row)
        self.log.append(("drawn", self.weights))
        return done

    def between(self, row: int) -> None:
        """After each row."""

    def sync(self, net: Any) -> None:
        self.net = deepcopy(net).eval()
        self.weights = int(sum(float(w.detach().double().sum()) * 1e9 for w in net.parameters()))
        self.log.append(("sync", self.weights))

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return small.model(tmp_path_factory.mktemp("tiny"))


def ahead(tiny: Path, run: Path, **changes: Any) -> TrainRecipe:
    settings = {"rl__ahead": True, "sampling__backend": "vllm-server", "data__demo": WORLD, "steps": 4}
    return small.rl(tiny, run, **{**settings, "alarms__every": 0, "optim__lr": 0.003, **changes})


def test_each_step_trains_on_what_the_weights_before_it_drew(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, int]] = []
    monkeypatch.setattr(rl, "make_drawer", lambda session: Own(session, log))
    assert train(ahead(tiny, tmp_path / "run")).complete
    weights = [told for what, told in log if what == "sync"]
    assert len(set(weights)) == 3  # of the start, and after the first two updates
    drawn_by = [told for what, told in log if what == "draw"]
    assert drawn_by == [weights[0], weights[0], weights[2], weights[3]]
    # the engine gets weights only while nothing is drawn
    assert [what for what, _ in log] == ["sync"] + ["draw", "drawn", "sync"] * 3 + ["draw", "drawn"]
    rows = small.rows(tmp_path / "run")
    assert rows[0]["mismatch/abs_all"] < 1e-5 and rows[0]["ratio"] == pytest.approx(1, abs=1e-4)
    for row in rows[1:]:
        assert row["mismatch/max_all"] >= row["mismatch/abs_p"] > 1e-4 and row["mismatch/k3_r"] > 0
        assert row["ratio"] != pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("correction", ["ratio", "tis"])
def test_a_killed_run_trains_on_the_completions_that_waited(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, correction: str
) -> None:
    log: list[tuple[str, int]] = []
    monkeypatch.setattr(rl, "make_drawer", lambda session: Own(session, log))
    more = {"loss__correction": correction, "save__every": 2}
    train(ahead(tiny, tmp_path / "whole", **more))
    small.assert_has_advantages(tmp_path / "whole")

    class Kill:
        def begin(self, stage: str, step: int, steps: int) -> None: ...
        def note(self, text: str) -> None: ...
        def row(self, row: Any) -> None:
            if row["step"] == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(ahead(tiny, tmp_path / "part", **more), watchers=[Kill()])
    waiting = tmp_path / "part/checkpoints/step-000002/drawn-0000.json"
    assert waiting.exists()
    del log[:]
    assert train(ahead(tiny, tmp_path / "part", **more)).complete
    assert [what for what, _ in log] == ["sync", "sync", "draw", "drawn"]  # step 3 is not drawn again
    assert small.rows(tmp_path / "part") == small.rows(tmp_path / "whole")
    whole, part = small.weights(tmp_path / "whole"), small.weights(tmp_path / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_draws_judge_and_update_go_on_side_by_side(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rollouts wait for the update under way, the update for the rollouts, and both for a verdict."""
    drawing, updating, judged = threading.Event(), threading.Event(), threading.Event()
    update, submit = Engine.update, DemoJudge.submit
    main = threading.current_thread()

    class Meets(Own):
        def between(self, row: int) -> None:
            if threading.current_thread() is main:
                return  # the first step has nothing to go on beside
            drawing.set()
            assert updating.wait(LONG_S), "the update does not begin while rollouts are drawn"
            if row == 1:  # the first one that was told of: others are still to come
                assert judged.wait(LONG_S), "no observation goes to the judge before all rollouts have ended"

    def meeting(self: Engine, *args: Any, **options: Any) -> Any:
        updating.set()
        assert drawing.wait(LONG_S), "no rollout is drawn while the update goes on"
        return update(self, *args, **options)

    def seen(self: DemoJudge, items: Sequence[JudgeItem]) -> Ticket:
        if threading.current_thread() is not main:
            judged.set()
        return submit(self, items)

    monkeypatch.setattr(rl, "make_drawer", lambda session: Meets(session, []))
    monkeypatch.setattr(Engine, "update", meeting)
    monkeypatch.setattr(DemoJudge, "submit", seen)
    assert train(ahead(tiny, tmp_path / "run", steps=2)).complete
    assert drawing.is_set() and updating.is_set() and judged.is_set()


def test_an_engine_that_tells_no_log_probabilities_is_refused(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mute(Own):
        def generate(self, *args: Any, **more: Any) -> list[RolledOut]:
            return [RolledOut(one.ids, one.finished) for one in super().generate(*args, **more)]

    monkeypatch.setattr(rl, "make_drawer", lambda session: Mute(session, []))
    with pytest.raises(ConfigError, match="tells none") as caught:
        train(ahead(tiny, tmp_path / "run"))
    assert "--logprobs-mode raw_logprobs" in str(caught.value.hint)


def test_a_failure_of_the_draws_ends_the_run_at_the_step_that_needs_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Own):
        def between(self, row: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                raise ConfigError("the engine is gone")

    monkeypatch.setattr(rl, "make_drawer", lambda session: Fails(session, []))
    with pytest.raises(ConfigError, match="the engine is gone"):
        train(ahead(tiny, tmp_path / "run", save__every=1))
    assert len(small.rows(tmp_path / "run")) == 1
    saved = tmp_path / "run/checkpoints/step-000001"
    assert (saved / "state.json").exists() and not list(saved.glob("drawn-*"))


def test_rows_are_told_at_the_step_that_counts_them(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their clips are found bad while the step before is under way."""
    load = MediaLoader._load

    async def planted(self: MediaLoader, examples: Sequence[Example]) -> LoadedBatch:
        found = await load(self, examples)
        kept = [at for at, one in enumerate(found.examples) if one.sample_id not in bad]
        lost = [one.sample_id for one in found.examples if one.sample_id in bad]
        return LoadedBatch(
            examples=tuple(found.examples[at] for at in kept),
            frames=tuple(found.frames[at] for at in kept),
            skipped=tuple(Skip(name, "planted", "cannot be read") for name in lost),
            kept=tuple(found.kept[at] for at in kept),
        )

    bad = {f"demo-stream/0/{number}" for number in (5, 9, 10, 15)}
    told: list[str] = []

    class Notes:
        def begin(self, stage: str, step: int, steps: int) -> None: ...
        def row(self, row: Any) -> None:
            if row["step"] == 3:
                stop.ask()

        def note(self, text: str) -> None:
            told.append(text.partition(": planted")[0])

    monkeypatch.setattr(MediaLoader, "_load", planted)
    monkeypatch.setattr(rl, "make_drawer", lambda session: Own(session, []))
    stop = Stop()
    done = train(ahead(tiny, tmp_path / "run"), watchers=[Notes()], stop=stop)
    assert [row["skipped"] for row in small.rows(tmp_path / "run")] == [0, 1, 2]
    assert told == [f"left out at step {step}: demo-stream/0/{n}" for step, n in ((2, 5), (3, 9), (3, 10))]
    assert done.skipped == {"planted": 3}  # the fourth step was not made


def test_two_processes_agree_with_one(tiny: Path, tmp_path: Path) -> None:
    """Rollouts in threads beside updates and readings that all processes make together; both go on from a
    checkpoint with the completions that waited in each."""
    change = {"alarms__every": 2, "alarms__rollouts": 2, "save": {"every": 2, "keep": 0}, "batch__micro": 1}
    one, two = (ahead(tiny, tmp_path / name, **change) for name in ("one", "two"))
    trained(one)
    done = launched(tmp_path, "tests.trainer.run.ahead_two", written(two, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    small.assert_has_advantages(tmp_path / "two")
    assert_close(tmp_path / "one", tmp_path / "two")
    waiting = [tmp_path / name / "checkpoints/step-000002" for name in ("one", "two")]
    drawn = [
        sorted(
            (row[0], row[1]) for path in folder.glob("drawn-*.json") for row in json.loads(path.read_text())
        )
        for folder in waiting
    ]
    assert drawn[0] == drawn[1] and len(list(waiting[1].glob("drawn-*.json"))) == 2
