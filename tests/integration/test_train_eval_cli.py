"""`p2r-train eval` on a run's folder, from the flags to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
import yaml
from typer.testing import CliRunner

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


def demo_run(run: Path, **more: Any) -> Path:
    make_tiny(run / "final", TINY, world=TinyWorld())
    media = {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    world = TinyWorld().model_dump(mode="json")
    data = {"source": "demo", "demo": world, "media": media, "prompt": "tiny-v1"}
    recipe = {"stage": "sft", "data": data, "model": {"model": "x"}, **more}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


def test_a_run_is_evaluated_on_its_own_questions_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    run = demo_run(tmp_path / "tiny-run", evaluation={"source": "demo", "start": 900, "limit": 5})
    command = ["eval", str(run), "--max-new-tokens", "8", "--device", "cpu", "--json"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.stderr
    told = orjson.loads(first.stdout)
    found = told["result"]["benchmarks"][0]
    assert (found["questions"], found["answered"]) == (5, 5) and found["told"]["cut"] == 5
    figures = {one["protocol"]: one["n"] for one in found["figures"] if not one["by"]}
    assert figures == {"demo_micro": 5, "demo_macro": 5}
    told_of = {one["protocol"]: (one["value"], one["n"]) for one in found["faithful"]["figures"]}
    assert told_of == {"sufficient_of_all": (0.0, 5)}, "random weights write no segment that could be judged"
    assert found["faithful"]["not_asked"]["conclusion"] == {"no reasoning": 5}
    plan = told["result"]["plan"]
    assert plan["benchmarks"][0]["demo"]["start"] == 900 and plan["backend"]["revision"]
    folder = Path(told["folder"])
    assert folder.parent == run / "eval" and (folder / "rows" / "demo.parquet").exists()
    second = orjson.loads(CliRunner().invoke(app, command).stdout)
    assert second["run"]["calls_made"] == 0 and second["result"] == told["result"]
    monkeypatch.chdir(tmp_path)
    third = orjson.loads(CliRunner().invoke(app, ["eval", "./tiny-run/", *command[2:]]).stdout)
    assert third["run"]["calls_made"] == 0, "the same weights, wherever they are looked at from"
    assert third["folder"] == told["folder"] and third["result"]["benchmarks"] == told["result"]["benchmarks"]
    assert "no card" in first.stderr and not (run / "README.md").exists()  # there is no run.json


def test_an_evaluation_is_told_on_the_card_of_its_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = demo_run(tmp_path / "run")
    (run / "run.json").write_text('{"steps": 1, "steps_done": 1, "data": {}, "versions": {}}')
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5, "grad_norm": 1.0}')
    flags = ["--data", "demo", "--limit", "2", "--max-new-tokens", "4", "--device", "cpu", "--no-judge"]
    done = CliRunner().invoke(app, ["eval", str(run), *flags])
    assert done.exit_code == 0 and "no card" not in done.stderr, done.stderr
    card = (run / "README.md").read_text()
    assert "| demo\\_micro | 0.0 |" in card and "figures/curves.png" in card and "suffices" not in card


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
