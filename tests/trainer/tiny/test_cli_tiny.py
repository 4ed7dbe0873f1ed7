"""`p2r-train tiny`, from the command line to weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from videop2r_data.cli.train import app

RUN = CliRunner()
SMALL = ("--hidden", "64", "--layers", "1", "--objects", "1", "--task", "colour", "--chats", "100")


def test_without_steps_a_model_of_random_weights_is_made(tmp_path: Path) -> None:
    found = RUN.invoke(app, ["tiny", str(tmp_path / "m"), *SMALL, "--json"])
    assert found.exit_code == 0, found.output
    made = json.loads(found.stdout)
    assert made["model"] == str(tmp_path / "m") and made["weights"] > 100_000
    assert (tmp_path / "m" / "model.safetensors").is_file() and not (tmp_path / "m-sft").exists()


@pytest.mark.integration
def test_with_steps_it_learns_and_the_run_can_be_drawn_on(tmp_path: Path) -> None:
    command = ["tiny", str(tmp_path / "m"), *SMALL, "--steps", "12", "--batch", "8", "--json"]
    found = RUN.invoke(app, command)
    assert found.exit_code == 0, found.output
    made = json.loads(found.stdout)
    lines = [json.loads(line) for line in (tmp_path / "m-sft" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert made["complete"] and (Path(made["trained"]) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [(("--hidden", "66"), "hidden 66 is not a multiple of heads 4"), (("--task", "poetry"), "poetry")],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(
    flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    found = RUN.invoke(app, ["tiny", str(tmp_path / "m"), *flags, "--json"])
    assert found.exit_code == 1
    assert message in json.loads(found.stdout)["error"]["message"]
    assert not (tmp_path / "m").exists()
