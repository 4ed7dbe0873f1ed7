"""`p2r-train eval` on a run's folder, from the flags to the report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch
import yaml
from typer.testing import CliRunner

import videop2r_data
from videop2r_data.cli.train import app
from videop2r_data.trainer.run.between import held_out
from videop2r_data.trainer.run.session import open_session
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.tiny.model import make_tiny
from videop2r_data.trainer.tiny.recipe import TinySpec, TinyWorld

pytestmark = pytest.mark.integration

TINY = TinySpec(
    hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, vision_hidden=16, vision_layers=1,
    vision_intermediate=32, vocab=400, corpus=60,
)  # fmt: skip


def test_a_run_is_evaluated_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = tmp_path / "tiny-run"
    make_tiny(run / "final", TINY, world=TinyWorld())
    media = {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    recipe = {
        "stage": "rl",
        "data": {"source": "demo", "demo": TinyWorld().model_dump(mode="json"), "media": media},
        "judging": {"kind": "demo"},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["eval", str(run), "--data", "demo", "--limit", "5", "--max-new-tokens", "8", "--device", "cpu"]
    first = CliRunner().invoke(app, [*command, "--json"])
    assert first.exit_code == 0, first.stderr
    told = orjson.loads(first.stdout)
    assert told["questions"] == told["asked"] == 5 and told["sufficiency"]["n"] == 5
    folder = Path(told["folder"])
    assert folder.parent == run / "eval"
    rows = (folder / "rows-0000.jsonl").read_bytes()
    assert rows.count(b"\n") == 5
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 0 and "answer accuracy, all questions" in second.stdout
    assert (folder / "rows-0000.jsonl").read_bytes() == rows
    settings = orjson.loads((folder / "settings.json").read_bytes())
    assert settings["data"]["start"] == 10_000_000 and settings["judging"]["kind"] == "demo"
    assert "no card" in second.stderr and not (run / "README.md").exists()  # there is no run.json


def test_an_evaluation_is_told_on_the_card_of_its_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = tmp_path / "run"
    make_tiny(run / "final", TINY, world=TinyWorld())
    media = {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    data = {"source": "demo", "demo": TinyWorld().model_dump(mode="json"), "media": media}
    (run / "recipe.yaml").write_text(yaml.safe_dump({"stage": "sft", "data": data, "model": {"model": "x"}}))
    (run / "run.json").write_text('{"steps": 1, "steps_done": 1, "data": {}, "versions": {}}')
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "grad_norm": 1.0}')
    flags = ["--data", "demo", "--limit", "2", "--max-new-tokens", "4", "--device", "cpu", "--no-judge"]
    done = CliRunner().invoke(app, ["eval", str(run), *flags])
    assert done.exit_code == 0 and "no card" not in done.stderr, done.stderr
    card = (run / "README.md").read_text()
    assert "| valid format | 0.000 |" in card and "figures/curves.png" in card
    assert "| observation suffices for the answer | no question can tell |" in card


def test_a_run_evaluates_between_its_steps(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    make_tiny(tmp_path / "tiny", TINY, world=TinyWorld())
    media = {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    data = {
        "source": "demo",
        "demo": TinyWorld().model_dump(mode="json"),
        "media": media,
        "prompt": "tiny-v1",
    }
    recipe = TrainRecipe.model_validate(
        {
            "name": "t", "stage": "sft", "data": data, "steps": 1, "output": str(tmp_path / "run"),
            "evaluation": data | {"start": 900, "limit": 3}, "eval_every": 1, "precision": "fp32",
            "model": {"model": str(tmp_path / "tiny"), "dtype": "float32", "gradient_checkpointing": False},
            "batch": {"size": 2, "micro": 2},
        }
    )  # fmt: skip
    session = open_session(recipe)
    evaluate = held_out(session)
    assert evaluate is not None
    found = evaluate(1)
    assert found["eval/questions"] == 3 and 0 <= found["eval/sufficiency"] <= 1
    assert (tmp_path / "run" / "eval" / "step-000001" / "rows-0000.jsonl").exists()
    session.recipe = recipe.model_copy(update={"evaluation": None})
    assert held_out(session) is None


def test_two_processes_share_the_questions(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_tiny(run / "final", TINY, world=TinyWorld())
    media = {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    data = {"source": "demo", "demo": TinyWorld().model_dump(mode="json"), "media": media}
    (run / "recipe.yaml").write_text(yaml.safe_dump({"stage": "sft", "data": data}))
    config = Path(videop2r_data.__file__).parent / "trainer" / "accelerate" / "cpu-2proc.yaml"
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.accelerate_cli",
        "launch",
        "--config_file",
        str(config),
    ]
    launch += [
        "--main_process_port",
        "0",
        "-m",
        "videop2r_data.cli.train",
        "eval",
        str(run),
        "--data",
        "demo",
    ]
    flags = ["--limit", "5", "--max-new-tokens", "4", "--device", "cpu", "--json"]
    done = subprocess.run([*launch, *flags], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    told = orjson.loads(done.stdout)
    lines = [p.read_text().count("\n") for p in sorted(Path(told["folder"]).glob("rows-*.jsonl"))]
    assert told["asked"] == 5 and lines == [3, 2]
