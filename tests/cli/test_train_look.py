from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.trainer.judging.questions import question
from videop2r_data.cli.train import app
from videop2r_data.trainer.look.samples import sample_record


def run(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, args)
    return done.exit_code, done.stdout, done.stderr


def write_run(folder: Path) -> Path:
    folder.mkdir()
    rows = [{"step": i, "loss": 1 / i, "lr": 0.1} for i in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_plot_writes_beside_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = write_run(tmp_path / "run")
    code, out, _ = run("plot", str(folder))
    assert code == 0 and "curves.png" in out
    assert (folder / "figures" / "curves.png").exists() and (folder / "figures" / "curves.json").exists()
    code, out, _ = run("plot", f"one={folder}", f"two={folder}", "--out", str(tmp_path / "c.png"), "--json")
    assert code == 0 and orjson.loads(out)["panels"] == ["Loss", "Learning rate"]
    names = [r["name"] for r in orjson.loads((tmp_path / "c.json").read_bytes())["runs"]]
    assert names == ["one", "two"]


def test_plot_of_nothing_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    code, out, err = run("plot", str(tmp_path), "--json")
    assert code == 1 and "p2r-train sft or rl" in err
    assert orjson.loads(out)["error"]["kind"] == "SourceError"


def test_a_run_that_draws_no_samples_is_told_as_such(tmp_path: Path) -> None:
    code, _, err = run("samples", str(write_run(tmp_path / "run")))
    assert code == 1 and "a run of p2r-train rl that has" in err


def test_samples(tmp_path: Path) -> None:
    rows = [
        sample_record(step=step, example=question(), group=0, rollout=0, text=f"step {step}", finished=True, rewards={})
        for step in (1, 2)
    ]  # fmt: skip
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, _ = run("samples", str(tmp_path))
    assert code == 0 and "Which disc moves?" in out and "step 2, test/1" in out
    code, out, _ = run("samples", str(tmp_path), "--step", "1", "--json")
    assert [row["text"] for row in orjson.loads(out)] == ["step 1"]
    assert run("samples", str(tmp_path), "--step", "9")[0] == 1


def test_eval_of_nothing_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    code, _, err = run("eval", str(tmp_path))
    assert code == 1 and "no model in this folder" in err
    code, _, err = run("eval", "--rescore", str(tmp_path))
    assert code == 1 and "p2r-train eval wrote" in err


def test_a_card_needs_a_finished_run(tmp_path: Path) -> None:
    code, _, err = run("card", str(write_run(tmp_path / "run")))
    assert code == 1 and "recipe.yaml" in err
