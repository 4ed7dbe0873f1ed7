"""SFT and RL with real parts on a CPU: what they learn, and that stopping and sharing change nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.run import small
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.run.runlog import Stop, read_lines
from videop2r_data.trainer.run.train import Trained, train
from videop2r_data.trainer.settings.objectives import OBJECTIVES
from videop2r_data.trainer.settings.parts import DataSpec
from videop2r_data.trainer.settings.recipe import TrainRecipe, load_train_recipe, recipe_yaml

pytestmark = pytest.mark.integration
torch.set_num_threads(1)
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with clips, pictures and text, made by `p2r-data build`."""
    folder = tmp_path_factory.mktemp("world")
    recipe = {
        "recipe": 1,
        "name": "world",
        "synthetic": True,
        "sources": [{"name": "demo", "kind": "demo", "demo": small.WORLD.model_dump(mode="json")}],
        "media": {"frames": 4, "max_pixels": 3136, "min_pixels": 784},
        "generate": {"backend": {"kind": "demo", "model": "demo-world/1"}},
        "judge": {"backend": {"kind": "demo", "model": "demo-world/1"}},
    }
    (folder / "world.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "videop2r_data.cli", "build", "world.yaml", "--out", "world"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "world"


@pytest.fixture(scope="module")
def start(world: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt to keep the template, from the data set on disk."""
    run = tmp_path_factory.mktemp("start") / "sft"
    recipe = small.sft(
        tiny,
        run,
        data={"source": str(world), "prompt": "tiny-v1", "tail": "carry", "media": small.MEDIA, "workers": 1},
        batch={"size": 16, "micro": 16},
        steps=130,
        optim={"lr": 0.006, "warmup": 5, "betas": [0.9, 0.98], "max_grad_norm": 1.0, "schedule": "linear"},
    )
    assert train(recipe).complete
    return run


def stopped_after(recipe: TrainRecipe, step: int) -> Trained:
    """Run until a step is done, as a signal would end it."""
    stop = Stop()

    class AtStep:
        def begin(self, stage: str, step: int, steps: int) -> None:
            pass

        def row(self, row: Any) -> None:
            if row["step"] == step:
                stop.ask()

        def note(self, text: str) -> None:
            pass

    return train(recipe, watchers=[AtStep()], stop=stop)


def assert_same(one: Path, other: Path) -> None:
    """Equal to the last bit: weights, metrics, samples."""
    a, b = small.weights(one), small.weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert small.rows(one) == small.rows(other)
    assert read_lines(one / "samples.jsonl") == read_lines(other / "samples.jsonl")


def assert_close(one: Path, other: Path) -> None:
    """Equal up to the rounding of sums in another order; AdamW makes the most of a gradient that is all rounding."""
    a, b = small.weights(one), small.weights(other)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    for x, y in zip(small.rows(one), small.rows(other), strict=True):
        assert x == pytest.approx(y, rel=1e-3, abs=1e-5)
    first = small.rows(one)[0], small.rows(other)[0]  # before AdamW had a say
    assert first[0] == pytest.approx(first[1], rel=1e-5, abs=1e-7)


def test_sft_learns_and_its_model_loads(start: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    found = small.rows(start)
    assert found[0]["loss"] > 5
    assert found[-1]["loss"] < 0.2
    assert json.loads((start / "run.json").read_text())["complete"] is True
    AutoModelForImageTextToText.from_pretrained(start / "final")
    AutoProcessor.from_pretrained(start / "final")


def test_format_reaches_one_in_rl(start: Path, world: Path, tmp_path: Path) -> None:
    recipe = small.rl(
        start / "final",
        tmp_path / "rl",
        data={
            "source": str(world), "config": "rl", "prompt": "tiny-v1", "media": small.MEDIA, "workers": 1,
        },
        sampling={"max_new_tokens": 112, "temperature": 0.8},
        batch={"size": 8, "micro": 8},
        optim={"lr": 0.0002, "schedule": "constant"},
        steps=6,
    )  # fmt: skip
    assert train(recipe).complete
    forms = [(row["reward/format_p"], row["reward/format_r"]) for row in small.rows(tmp_path / "rl")]
    assert any(p == 1 and r == 1 for p, r in forms), forms


def test_a_resumed_sft_equals_one_that_was_never_stopped(tiny: Path, tmp_path: Path) -> None:
    train(small.sft(tiny, tmp_path / "whole"))
    recipe = small.sft(tiny, tmp_path / "cut")
    assert not stopped_after(recipe, 3).complete
    assert not (tmp_path / "cut" / "final").exists()
    assert train(recipe).complete
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_resumed_rl_equals_one_that_was_never_stopped(start: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"rl__minibatches": 2, "rl__iterations": 2, "alarms__every": 2}
    train(small.rl(start / "final", tmp_path / "whole", **changes))
    assert [row["step"] for row in small.rows(tmp_path / "whole") if "alarm/raised" in row] == [1, 2, 4, 6]
    recipe = small.rl(start / "final", tmp_path / "cut", **changes)
    assert stopped_after(recipe, 3).steps_done == 3
    assert train(recipe).complete
    assert_same(tmp_path / "whole", tmp_path / "cut")
    small.assert_has_advantages(tmp_path / "whole")
    assert small.rows(tmp_path / "whole")[2]["ratio"] != 1.0


def test_alarms_change_no_weight_and_no_other_number(start: Path, tmp_path: Path) -> None:
    # dropout draws from the global generator: a draw of the alarms from it would change the weights
    changes: dict[str, Any] = {"model__lora": {"rank": 4, "dropout": 0.3}, "optim__lr": 0.01, "steps": 3}
    train(small.rl(start / "final", tmp_path / "off", alarms__every=0, **changes))
    train(small.rl(start / "final", tmp_path / "on", alarms__every=1, **changes))
    small.assert_has_advantages(tmp_path / "on")
    a, b = small.weights(tmp_path / "off"), small.weights(tmp_path / "on")
    assert all(torch.equal(a[name], b[name]) for name in a)
    off, on = small.rows(tmp_path / "off"), small.rows(tmp_path / "on")
    names = {f"alarm/{what}{n}" for what in ("own", "empty", "shuffled") for n in ("", "_n")}
    assert names == {name for row in on for name in row if name in names}
    assert not any(names & row.keys() for row in off)
    kept = [{name: row[name] for name in row if name not in names | {"alarm/raised", "alarms"}} for row in on]
    assert kept == off
    assert read_lines(tmp_path / "off" / "samples.jsonl") == read_lines(tmp_path / "on" / "samples.jsonl")


def test_lines_after_the_checkpoint_are_made_again(tiny: Path, tmp_path: Path) -> None:
    train(small.sft(tiny, tmp_path / "whole", save__every=2))
    recipe = small.sft(tiny, tmp_path / "cut", save__every=2)
    stopped_after(recipe, 4)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:  # a crash after step 5
        file.write('{"step":5,"loss":99}\n{"st')
    train(recipe)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_another_recipe_is_refused_unless_told(tiny: Path, tmp_path: Path) -> None:
    stopped_after(small.sft(tiny, tmp_path / "run"), 2)
    other = small.sft(tiny, tmp_path / "run", optim__lr=0.001, seed=5)
    with pytest.raises(ConfigError, match=r"optim.lr: 0.006 -> 0.001\n  seed: 0 -> 5"):
        train(other)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(small.sft(tiny, tmp_path / "run"), fresh=True)
    data = small.sft(tiny, tmp_path / "run", data__start=500)
    with pytest.raises(ConfigError, match="training data"):
        train(data)
    assert train(other, anyway=True).complete


@pytest.mark.parametrize(("micro", "reduction"), [(1, "token"), (4, "segment")])
def test_micro_batches_change_nothing(
    tiny: Path, start: Path, tmp_path: Path, micro: int, reduction: str
) -> None:
    rl = {"loss__reduction": reduction}  # by tokens the loss is divided by a count that differs between rows
    for stage, model, more in ((small.sft, tiny, {}), (small.rl, start / "final", rl)):
        train(stage(model, tmp_path / f"{stage.__name__}-2", steps=2, **more))
        train(stage(model, tmp_path / f"{stage.__name__}-n", steps=2, batch__micro=micro, **more))
        assert_close(tmp_path / f"{stage.__name__}-2", tmp_path / f"{stage.__name__}-n")
    small.assert_has_advantages(tmp_path / "rl-2")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_runs_from_its_name(start: Path, tmp_path: Path, name: str) -> None:
    train(small.rl(start / "final", tmp_path / "run", steps=2, objective__name=name))
    found = small.rows(tmp_path / "run")
    assert [row["step"] for row in found] == [1, 2]
    assert found[0]["grad_norm"] > 0
    apart, of_one = ("pa-grpo", "no-length", "no-reasoning"), ("no-perception",)
    assert ("clip_fraction/p" in found[0]) == (name in apart)
    assert ("clip_fraction/all" in found[0]) == (name not in (*apart, *of_one))


def test_rewards_belong_to_their_rollouts(start: Path, tmp_path: Path) -> None:
    """Every sampled completion, graded here from its text alone, has the rewards that were recorded."""
    from videop2r_data.demo import observation_is_sufficient
    from videop2r_data.schemas import segment_spans
    from videop2r_data.validators import extract_answer, score

    recipe = small.rl(start / "final", tmp_path / "run", steps=2)
    train(recipe)
    questions = {e.sample_id: e for e in (read_examples(recipe.data)[i] for i in range(8))}
    records = read_lines(tmp_path / "run" / "samples.jsonl")
    assert [(r["group"], r["rollout"]) for r in records[:16]] == [(b, g) for b in range(4) for g in range(4)]
    assert len({r["text"] for r in records}) > 8
    for record in records:
        example = questions[record["sample_id"]]
        found = extract_answer(record["text"], recipe.scoring)
        wanted = score(
            example.problem_type,
            prediction="<answer></answer>" if found.answer is None else found.answer,
            reference=example.reference,
            options=example.options,
            policy=recipe.scoring,
        ).value
        assert record["rewards"]["accuracy_r"] == wanted
        span = segment_spans(record["text"]).observation
        if record["rewards"]["format_p"]:
            assert span is not None and example.scene is not None
            words = record["text"][span.start : span.end]
            sufficient = observation_is_sufficient(example.scene.scene, example.scene.question, words)
            assert record["rewards"]["accuracy_p"] == float(sufficient)
        else:
            assert record["rewards"]["accuracy_p"] == 0
    small.assert_has_advantages(tmp_path / "run")
    for at, name in ((at, name) for at in range(0, len(records), 4) for name in "pr"):
        earned = [r["rewards"][f"total_{name}"] for r in records[at : at + 4]]
        middle, spread = statistics.fmean(earned), statistics.pstdev(earned)
        expected = [(x - middle) / (spread + recipe.loss.eps) for x in earned]
        assert [r["advantages"][name] for r in records[at : at + 4]] == pytest.approx(expected, abs=1e-4)


def test_lora_keeps_its_base_as_reference_and_saves_whole_weights(start: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    lora = {"rank": 4, "alpha": 8.0}
    train(small.rl(start / "final", tmp_path / "run", steps=2, model__lora=lora, optim__lr=0.01))
    small.assert_has_advantages(tmp_path / "run")
    found = small.rows(tmp_path / "run")
    assert found[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert found[1]["kl"] > 0
    AutoModelForImageTextToText.from_pretrained(tmp_path / "run" / "final")
    base, merged = small.weights(start), small.weights(tmp_path / "run")
    assert base.keys() == merged.keys()
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert moved and all("language_model" in name or name.startswith("model.layers") for name in moved)


def test_adapters_start_from_the_seed_of_the_recipe(tiny: Path, tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8.0}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        torch.manual_seed(len(name))  # whatever the process has drawn before
        train(small.sft(tiny, tmp_path / name, steps=1, model__lora=lora, seed=seed))
    assert_same(tmp_path / "one", tmp_path / "same")
    a, b = small.weights(tmp_path / "one"), small.weights(tmp_path / "other")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def damaged(world: Path, copy: Path, count: int) -> Path:
    """A copy of the data set whose first rows with media, `count` of all, have files that no decoder reads."""
    shutil.copytree(world.parent, copy)
    data = DataSpec(source=str(copy / "world"), media=MediaSpec(**small.MEDIA))
    for example in list(read_examples(data))[:count]:
        if example.path is not None:
            example.path.write_bytes(b"no media")
    return copy / "world"


def on_disk(world: Path) -> dict[str, Any]:
    """Changes that make a recipe read a data set in the order of its rows."""
    data = {"source": str(world), "prompt": "tiny-v1", "media": small.MEDIA, "workers": 1, "shuffle": False}
    return {"data": data}


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_clips_that_are_all_bad_stop_nothing(tiny: Path, world: Path, tmp_path: Path, stage: str) -> None:
    """Every file of the first step broken: counted, and the run goes on."""
    change = on_disk(damaged(world, tmp_path / "copy", 4))
    change["data"]["config"] = stage
    make = small.sft if stage == "sft" else small.rl
    done = train(make(tiny, tmp_path / "run", steps=2, **change))
    assert done.complete
    assert sum(done.skipped.values()) == small.rows(tmp_path / "run")[0]["skipped"] > 0


def launched(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program in two processes, started as `accelerate launch` does it."""
    from videop2r_data.trainer.settings.recipe import accelerate_configs

    line = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(accelerate_configs()["cpu-2proc"]), "--main_process_port", "0", "-m", *command,
    ]  # fmt: skip
    env = ALONE | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, env=env, timeout=280)


def written(recipe: TrainRecipe, folder: Path) -> str:
    """The recipe in a file."""
    path = folder / f"{Path(recipe.output).name}.yaml"
    path.write_text(recipe_yaml(recipe))
    return str(path)


@pytest.fixture(scope="module")
def pairs(tiny: Path, start: Path, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two processes and of one, by name; the processes are started once, which takes longer than training."""
    folder = tmp_path_factory.mktemp("pairs")
    change = on_disk(damaged(world, folder / "copy", 2))
    made = {
        "sft": (
            small.sft(start / "final", folder / "sft-one", steps=3, batch__micro=4),
            small.sft(start / "final", folder / "sft-two", steps=3, batch__micro=1),
        ),
        "clips": (
            small.sft(tiny, folder / "clips-one", steps=2, **change),
            small.sft(tiny, folder / "clips-two", steps=2, **change),
        ),
    }
    # dynamic sampling, and a normalisation over the batch of all processes
    batch = {"objective__name": "gdpo-published", "rl__redraws": 2, "alarms__every": 0, "steps": 2}
    made["redrawn"] = (
        small.rl(start / "final", folder / "redrawn-one", **batch),
        small.rl(start / "final", folder / "redrawn-two", **batch),
    )
    for one, _ in made.values():
        train(one)
    done = launched(
        folder, "tests.trainer.run.train_all", *(written(two, folder) for _, two in made.values())
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_process_without_clips_makes_nobody_wait(pairs: Path) -> None:
    """The first process loses what it had of the first step; the numbers are those of one process."""
    assert_close(pairs / "clips-one", pairs / "clips-two")


def test_two_processes_agree_with_one_in_what_the_whole_batch_decides(pairs: Path) -> None:
    assert_close(pairs / "redrawn-one", pairs / "redrawn-two")


def test_two_processes_agree_with_one_in_sft(pairs: Path) -> None:
    """Same global batch, another cut into passes."""
    assert json.loads((pairs / "sft-two" / "run.json").read_text())["processes"] == 2
    assert_close(pairs / "sft-one", pairs / "sft-two")


def test_two_processes_of_the_command_agree_with_one_in_rl(start: Path, tmp_path: Path) -> None:
    """Same global batch, two minibatches, another cut into passes."""
    one = small.rl(start / "final", tmp_path / "one", steps=3, batch__micro=4, rl__minibatches=2)
    two = small.rl(start / "final", tmp_path / "two", steps=3, batch__micro=1, rl__minibatches=2)
    train(one)
    done = launched(tmp_path, "videop2r_data.cli.train", "rl", written(two, tmp_path), "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["complete"] is True  # one document: the other process says nothing
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2
    small.assert_has_advantages(tmp_path / "one")
    assert_close(tmp_path / "one", tmp_path / "two")


def test_a_terminated_command_goes_on_where_it_stopped(start: Path, tmp_path: Path) -> None:
    whole, cut = (small.rl(start / "final", tmp_path / name, steps=8) for name in ("whole", "cut"))
    train(whole)
    path = tmp_path / "cut.yaml"
    path.write_text(recipe_yaml(cut))
    command = [sys.executable, "-m", "videop2r_data.cli.train", "rl", str(path)]
    log = tmp_path / "cut" / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ALONE) as process:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 2):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, words = process.communicate(timeout=120)
    assert process.returncode == 3, words
    assert "finishing this step" in words
    assert train(load_train_recipe(path)).complete
    assert_same(tmp_path / "whole", tmp_path / "cut")
