"""Runs that go on: gradients that are not finite, prompts that do not fit, models that are not there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.test_train_run import assert_same, launched, stopped_after, written
from tests.trainer.run import small
from tests.trainer.run.planted import planted
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.model.load import Policy
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe

pytestmark = pytest.mark.integration
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


class Notes:
    """What a run tells."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, stage: str, step: int, steps: int) -> None:
        pass

    def row(self, row: Any) -> None:
        pass

    def note(self, text: str) -> None:
        self.told.append(text)


def state_of(run: Path, step: int) -> dict[str, Any]:
    """Weights, and moments of AdamW, of a checkpoint."""
    from safetensors.torch import load_file

    folder = run / "checkpoints" / f"step-{step:06d}"
    moments = torch.load(folder / "optimizer.bin", weights_only=True)["state"]
    flat: dict[str, Any] = {f"{n}/{k}": v for n, one in moments.items() for k, v in one.items()}
    return {**load_file(folder / "model.safetensors"), **flat}


@pytest.mark.parametrize("gradient", [False, True])
def test_an_update_with_one_infinite_micro_batch_is_skipped_whole(
    tiny: Path, tmp_path: Path, gradient: bool
) -> None:
    recipe = small.sft(tiny, tmp_path / "run", batch__micro=1, save={"every": 1, "keep": 0})
    notes = Notes()
    with planted(0, 3, piece=2, gradient=gradient):
        done = train(recipe, watchers=[notes])
    assert done.complete and done.skipped_updates == 2
    rows = small.rows(tmp_path / "run")
    assert [row.get("skipped_updates", 0) for row in rows] == [1, 0, 0, 1, 0, 0]
    assert all(("loss" in row) != ("skipped_updates" in row) for row in rows)
    before, after = state_of(tmp_path / "run", 3), state_of(tmp_path / "run", 4)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not all(torch.equal(after[name], later) for name, later in state_of(tmp_path / "run", 5).items())
    assert [note for note in notes.told if note.startswith("no update at step 4")] == [
        "no update at step 4: gradient or loss not finite; its rows: "
        + ", ".join(f"demo-stream/0/{number}" for number in range(12, 16))
    ]
    # the rate of a step is the same whatever was skipped before it
    train(small.sft(tiny, tmp_path / "plain"))
    assert [row["lr"] for row in rows] == [row["lr"] for row in small.rows(tmp_path / "plain")]


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_resumed_run_with_skips_equals_one_that_was_never_stopped(
    tiny: Path, tmp_path: Path, stage: str
) -> None:
    def recipe(name: str) -> TrainRecipe:
        if stage == "sft":
            return small.sft(tiny, tmp_path / name)
        return small.rl(tiny, tmp_path / name, rl__minibatches=2, rl__iterations=2, steps=4)

    bad = (1, 4) if stage == "sft" else (5, 9)
    with planted(*bad, gradient=True):
        train(recipe("whole"))
        assert not stopped_after(recipe("cut"), 2).complete
        done = train(recipe("cut"))
    assert done.complete and done.skipped_updates == 2  # also those before the stop
    assert_same(tmp_path / "whole", tmp_path / "cut")
    if stage == "rl":  # one of four updates of a step is lost: its loss is that of the others
        rows = small.rows(tmp_path / "whole")
        assert [row.get("skipped_updates", 0) for row in rows] == [0, 1, 1, 0]
        assert all("loss" in row for row in rows)


def test_after_too_many_in_a_row_the_run_stops_and_names_the_batch(tiny: Path, tmp_path: Path) -> None:
    recipe = small.sft(tiny, tmp_path / "run", optim__max_skipped=2, save__every=2)
    with planted(1, -3), pytest.raises(ConfigError, match="2 updates in a row") as caught:
        train(recipe)
    assert caught.value.where == "step 5, rows " + ", ".join(f"demo-stream/0/{n}" for n in range(16, 20))
    assert len(small.rows(tmp_path / "run")) == 5
    assert not (tmp_path / "run" / "final").exists()
    assert train(recipe).complete  # from the checkpoint before them


def test_two_processes_skip_together(tiny: Path, tmp_path: Path) -> None:
    """Only the second process has an infinite gradient, and only one of its micro-batches."""
    one, two = (small.sft(tiny, tmp_path / name, batch__micro=1, steps=4) for name in ("one", "two"))
    with planted(0, 2):
        train(one)
    done = launched(tmp_path, "tests.trainer.run.planted", "1", "0,2", written(two, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = small.rows(tmp_path / "two")
    assert [row.get("skipped_updates", 0) for row in rows] == [1, 0, 1, 0]
    a, b = small.weights(tmp_path / "one"), small.weights(tmp_path / "two")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)


def test_prompts_that_the_engine_does_not_take_cost_their_rows(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    call = Collator.__call__

    def counted(self: Collator, *args: Any) -> Any:
        found = call(self, *args)
        lengths.extend(map(len, found.ids))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Collator, "__call__", counted)
        train(small.rl(tiny, tmp_path / "all", steps=2, alarms__every=0))
    monkeypatch.setattr(HfEngine, "room", max(lengths) - 1 + 64)
    notes = Notes()
    done = train(small.rl(tiny, tmp_path / "less", steps=2, alarms__every=1), watchers=[notes])
    lost = lengths.count(max(lengths))
    assert len(lengths) == 8 and done.complete and done.skipped == {"prompt_too_long": lost}
    assert sum(row["skipped"] for row in small.rows(tmp_path / "less")) == lost
    told = [note for note in notes.told if "prompt_too_long" in note]
    assert len(told) == lost and "demo-stream/0/" in told[0] and "sampling.max_new_tokens" in told[0]


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_a_run_without_a_row_that_fits_is_no_success(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(Policy, "positions", 8)
    make = small.sft if stage == "sft" else small.rl
    with pytest.raises(ConfigError, match=r"every row was left out .*prompt_too_long"):
        train(make(tiny, tmp_path / "run", steps=2))
    assert not (tmp_path / "run" / "final").exists()


def test_a_target_that_does_not_fit_costs_its_row(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[int] = []
    call = PromptBatch.with_completions

    def counted(self: PromptBatch, targets: Any, repeat: int) -> Any:
        ends.extend(len(ids) + len(target) for ids, target in zip(self.ids, targets, strict=True))
        return call(self, targets, repeat)

    with monkeypatch.context() as patched:
        patched.setattr(PromptBatch, "with_completions", counted)
        train(small.sft(tiny, tmp_path / "all", steps=2))
    room = max(ends) - 1
    monkeypatch.setattr(Policy, "positions", room)
    notes = Notes()
    done = train(small.sft(tiny, tmp_path / "run", steps=2), watchers=[notes])
    lost = ends.count(max(ends))
    assert done.complete and done.skipped == {"prompt_too_long": lost} and 0 < lost < 8
    assert sum(row["skipped"] for row in small.rows(tmp_path / "run")) == lost
    assert f"to learn, the model has {room} positions" in notes.told[0]


@pytest.mark.parametrize("setting", ["model", "reference", "judge"])
def test_a_missing_folder_is_said_before_anything_is_loaded(tiny: Path, tmp_path: Path, setting: str) -> None:
    gone = "runs/no-such-run/final"
    backend = {"kind": "backend", "backend": {"kind": "transformers", "model": gone}}
    recipe = {
        "model": lambda: small.sft(Path(gone), tmp_path / "run"),
        "reference": lambda: small.rl(tiny, tmp_path / "run", reference=gone),
        "judge": lambda: small.rl(tiny, tmp_path / "run", judging=backend),
    }[setting]()
    began = time.process_time()
    with pytest.raises(ConfigError, match="no such folder: runs/no-such-run/final"):
        train(recipe)
    assert time.process_time() - began < 5 and not (tmp_path / "run").exists()
