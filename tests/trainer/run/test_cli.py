from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.run import small
from videop2r_data.cli.train import app
from videop2r_data.trainer.settings.recipe import list_train_recipes, load_train_recipe, recipe_yaml

RUN = CliRunner()


def test_the_packaged_recipes_are_listed_with_their_files() -> None:
    done = RUN.invoke(app, ["recipes", "--json"])
    found = json.loads(done.stdout)
    assert sorted(found["recipes"]) == list_train_recipes()
    assert found["recipes"]["paper-7b-rl"]["stage"] == "rl"
    assert all(Path(path).is_file() for path in found["accelerate"].values())
    assert "tiny-sft" in RUN.invoke(app, ["recipes"]).stdout


def test_a_recipe_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert RUN.invoke(app, ["init", "tiny-rl", str(path)]).exit_code == 0
    assert load_train_recipe(path).name == "tiny-rl"
    assert RUN.invoke(app, ["init", "tiny-rl", str(path)]).exit_code == 1
    assert RUN.invoke(app, ["init", "tiny-sft", str(path), "--force"]).exit_code == 0
    assert RUN.invoke(app, ["init", "nope", str(path)]).exit_code == 1


def test_a_dry_run_prints_the_effective_recipe(tmp_path: Path) -> None:
    done = RUN.invoke(
        app,
        ["rl", "paper-7b-rl", "--objective", "grpo", "--lr", "2e-6", "--set", "loss.beta=0", "--dry-run"],
    )
    path = tmp_path / "r.yaml"
    path.write_text(done.stdout)
    recipe = load_train_recipe(path)
    assert (recipe.objective.name, recipe.optim.lr, recipe.loss.beta) == ("grpo", 2e-6, 0)
    assert recipe.batch.size == 7


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["sft"], 2, "name one recipe"),
        (["sft", "tiny-sft", "--recipe", "tiny-rl"], 2, "two recipes"),
        (["sft", "tiny-rl"], 1, "a recipe of stage rl"),
        (["sft", "nope"], 1, "no training recipe"),
        (["rl", "tiny-rl", "--set", "rl.group_size=1"], 1, "rl.group_size"),
        (["sft", "tiny-sft", "--batch", "0"], 2, "batch"),
        (
            ["sft", "tiny-sft", "--model", "{tmp}", "--data", "nowhere", "--output", "{tmp}/run"],
            1,
            "nowhere",
        ),
        (["sft", "tiny-sft", "--model", "{tmp}/tiny"], 1, "no such folder"),
    ],
)
def test_wrong_usage_is_told(command: list[str], code: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    done = RUN.invoke(app, [part.format(tmp=tmp_path) for part in command])
    assert done.exit_code == code, done.output
    assert words in done.output


def test_the_schema_is_json() -> None:
    found = json.loads(RUN.invoke(app, ["schema"]).stdout)
    assert "objective" in found["properties"]


def test_a_run_from_the_command_line_ends_with_the_next_command(tmp_path: Path) -> None:
    model = small.model(tmp_path / "tiny")
    path = tmp_path / "r.yaml"
    path.write_text(recipe_yaml(small.sft(model, tmp_path / "run", steps=2)))
    done = RUN.invoke(app, ["sft", str(path)])
    assert done.exit_code == 0, done.output
    assert "p2r-train plot" in done.stdout
    assert "p2r-train rl" in done.stdout
    assert (tmp_path / "run" / "README.md").is_file()
    again = RUN.invoke(app, ["sft", str(path), "--json"])
    assert json.loads(again.stdout)["steps_done"] == 2
    refused = RUN.invoke(app, ["sft", str(path), "--fresh", "--json"])
    assert refused.exit_code == 1
    assert "holds a run" in json.loads(refused.stdout)["error"]["message"]


_WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from videop2r_data.cli.train import app
sys.modules["torch"] = None
for command in (["sft", "tiny-sft"], ["eval", sys.argv[2], "--data", "demo"], ["tiny", sys.argv[1]]):
    done = CliRunner().invoke(app, command)
    told = "torch is not installed", "torch and transformers is not installed"
    assert done.exit_code == 1 and any(words in done.output for words in told), (command, done.output)
    assert "[train]" in done.output
"""


def test_without_torch_the_install_line_is_told(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "config.json").write_text("{}")
    command = [sys.executable, "-c", _WITHOUT_TORCH, str(tmp_path / "model"), str(there)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
