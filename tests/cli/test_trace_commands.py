"""`verify --trace` on other people's rows, and `init --trace`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from videop2r_data.cli.main import app
from videop2r_data.schemas import load_recipe

ROOT = Path(__file__).resolve().parents[2]
GOOD = "<info>two dogs</info> <think>so two</think> <answer>2</answer>"


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(args))
    return result.exit_code, result.output


def test_rows_are_counted_and_faults_have_their_places(tmp_path: Path) -> None:
    rows = [
        {"output": GOOD},
        {"output": GOOD.replace("<think>so two</think>", "")},
        {"other": 1},
        {"output": 3},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    code, told = run("verify", str(tmp_path / "rows.jsonl"), "--trace", "visionary-r1", "--json")
    report = json.loads(told)
    assert code == 1
    assert (report["rows"], report["traces"]) == (5, 1)
    assert sum(report["unread"].values()) == 3
    (fault,) = report["findings"]
    assert (fault["what"], fault["rows"]) == ("missing_think think", 1)
    assert fault["places"][0][0] == "rows.jsonl, line 2"


def test_a_good_set_is_good_and_a_column_can_be_named(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": GOOD}]
    (tmp_path / "rows.json").write_text(json.dumps([{"mine": talk, "output": "no"}]))
    code, told = run("verify", str(tmp_path / "rows.json"), "--trace", "visionary-r1", "--column", "mine")
    assert code == 0, told
    assert "1 of 1 row" in " ".join(told.split())


def test_values_that_cannot_be_are_told(tmp_path: Path) -> None:
    text = "<time>00:09-00:05</time><caption>c</caption><think>t</think><answer>A</answer>"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"output": text}) + "\n")
    code, told = run("verify", str(tmp_path / "rows.jsonl"), "--trace", "video-thinker", "--json")
    report = json.loads(told)
    assert (code, report["traces"]) == (1, 1)
    assert report["findings"][0]["means"] == "start 9 is not before end 5"


def test_what_a_row_holds_does_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"output": "\x1b]8;;http://x\x07[red]" + GOOD}) + "\n")
    _, told = run("verify", str(tmp_path / "rows.jsonl"), "--trace", "visionary-r1")
    assert "\x1b]8" not in told and "\x07" not in told


@pytest.mark.parametrize("trace", ["video-thinker", "open-o3", "own.yaml"])
def test_init_writes_a_recipe_of_that_grammar(tmp_path: Path, trace: str) -> None:
    own = (ROOT / "docs" / "traces.md").read_text().split("```yaml\ntrace: 1")[1].split("```")[0]
    (tmp_path / "own.yaml").write_text(f"trace: 1{own}")
    code, told = run("init", str(tmp_path / "r.yaml"), "--from", "demo", "--trace", trace)
    assert code == 0, told
    recipe = load_recipe(tmp_path / "r.yaml")
    assert (recipe.judge is None) == (trace == "open-o3")  # a judge has no perception to read there
    assert recipe.trace.name == {"own.yaml": "look-plan-check"}.get(trace, trace)


def test_a_grammar_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, told = run("init", str(tmp_path / "r.yaml"), "--trace", "nope")
    assert code == 1 and "no trace grammar 'nope'" in told and not (tmp_path / "r.yaml").exists()
