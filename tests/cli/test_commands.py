"""The commands, as a person types them: output, JSON, exit codes, help."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from videop2r_data.cli import main, train

COMMANDS = [
    "build",
    "verify",
    "check",
    "doctor",
    "estimate",
    "reproduce",
    "stats",
    "show",
    "schema",
    "init",
    "demo-report",
]


def p2r(*args: str, code: int = 0, app: Any = main.app) -> Result:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo build."""
    out = tmp_path_factory.mktemp("cli") / "videop2r-demo"
    result = p2r("build", "--out", str(out), "--limit", "60", "--json")
    report = json.loads(result.stdout)
    assert report["state"] == "complete" and report["ledger"]["rows_in"] == 60
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    text = p2r(command, "--help").stdout
    assert f"Example: p2r-data {command}" in " ".join(text.split())


def test_help_names_every_command_and_wrong_usage_is_exit_code_2() -> None:
    text = p2r("--help").stdout
    assert all(command in text for command in COMMANDS)
    p2r("build", "--limit", "none", code=2)
    assert p2r("--version").stdout.strip().count(".") == 2


def test_build_ends_with_a_summary_and_the_next_commands(built: Path) -> None:
    text = p2r("build", "--out", str(built), "--limit", "60").stdout
    assert "60 rows in =" in text and "0 calls made" in text
    assert f"p2r-data verify {built}" in text and "load_dataset" in text
    assert max(len(line) for line in text.splitlines() if str(built) not in line) <= 80


@pytest.mark.parametrize("url", [False, True])
def test_the_next_commands_name_a_work_folder_that_is_not_beside_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: bool
) -> None:
    """Each is typed as it is printed; of a store they name its mirror on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = f"file://{tmp_path}/store/set" if url else str(tmp_path / "my work")
    text = p2r("build", "--out", str(tmp_path / "set"), "--limit", "4", "--work", place).stdout
    typed = [
        shlex.split(line.partition("p2r-data ")[2]) for line in text.splitlines() if " p2r-data " in line
    ]
    assert [words[0] for words in typed] == ["verify", "show", "demo-report"]
    for words in typed:
        p2r(*words)


@pytest.mark.parametrize("url", ["s3://bucket/set", "file:///tmp/set"])
def test_a_store_where_a_folder_is_needed_is_named_as_it_was_typed(url: str) -> None:
    text = p2r("estimate", "demo", "--work", url, code=1).stderr
    assert f"{url}: this command works in a folder" in text and f"merge FOLDER {url} brings" in text


@pytest.mark.parametrize("command", ["check", "doctor", "estimate"])
def test_the_next_command_has_the_folders_of_this_one(tmp_path: Path, command: str) -> None:
    """The pilot's answers are in that journal: a build elsewhere would pay for them again."""
    given = ("demo", "--out", str(tmp_path / "my set"), "--work", str(tmp_path / "w"))
    text = p2r(command, *given).stdout
    (typed,) = (line.partition("p2r-data ")[2] for line in text.splitlines() if line.startswith("next: "))
    assert shlex.split(typed)[1:6] == list(given)


def test_a_target_that_is_not_met_is_told(tmp_path: Path) -> None:
    out = ("build", "--out", str(tmp_path / "set"), "--limit", "4", "--target")
    assert "target 50 is not met: the pool has no more rows" in p2r(*out, "50").stdout
    assert "is not met" not in p2r(*out, "1").stdout


def test_a_set_that_is_not_written_yet_is_no_wrong_name(tmp_path: Path) -> None:
    p2r("build", "--out", str(tmp_path / "set"), "--limit", "4", "--shard", "1/1")
    assert "p2r-data status" in p2r("show", str(tmp_path / "set"), code=1).stderr
    assert "p2r-data build wrote" in p2r("show", str(tmp_path / "typo"), code=1).stderr


def test_a_folder_hides_no_packaged_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "other").mkdir()
    p2r("build", "--out", "set", "--limit", "2")
    looks = [p2r("check", "--no-calls", "--json"), p2r("check", "demo/", "--json", code=1)]
    checked = [json.loads(look.stdout)["sources"][0]["kind"] for look in looks]
    assert checked == ["demo", "folder"], "the folder is `demo/`"
    assert "other: a folder, not a recipe" in p2r("build", "other", code=1).stderr
    Path("demo").rmdir()
    Path("demo").write_text("recipe: 1\n")
    assert "demo: 3 error(s)" in p2r("build", "demo", code=1).stderr, "a file wins"


def test_verify_stats_and_reproduce(built: Path) -> None:
    report = json.loads(p2r("verify", str(built), "--json").stdout)
    assert report["ok"]
    assert "ok" in p2r("verify", str(built)).stdout
    assert json.loads(p2r("stats", str(built), "--json").stdout)
    p2r("stats", str(built))
    assert "every file is the same" in p2r("reproduce", str(built)).stdout
    assert json.loads(p2r("reproduce", str(built), "--json").stdout)["same"]


def test_verify_and_reproduce_fail_on_a_changed_file(built: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "videop2r-demo"
    shutil.copytree(built, copy)
    shutil.copytree(built.with_name("videop2r-demo.build"), tmp_path / "videop2r-demo.build")
    card = copy / "README.md"
    own = card.read_text() + "\n## Thanks\n\nTo everybody.\n"
    card.write_text(own)
    assert "every file is the same" in p2r("reproduce", str(copy)).stdout, "words of one's own are no change"
    card.write_text(own.replace(" questions in = ", "0 questions in = "))
    assert "DIFFERS" in p2r("reproduce", str(copy), code=1).stdout
    shard = next((copy / "data").glob("sft-*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    p2r("verify", str(copy), code=1)


def test_show_prints_the_sample_and_its_calls(built: Path) -> None:
    text = p2r("show", str(built)).stdout
    assert "<observation>" in text and "generate by demo-world/1" in text
    view = json.loads(p2r("show", str(built), "--json").stdout)
    assert view["calls"][0]["purpose"] == "generate"
    assert "no sample" in p2r("show", str(built), "nobody", code=1).stderr


def test_demo_report(built: Path) -> None:
    report = json.loads(p2r("demo-report", str(built), "--json").stdout)
    assert {s["step"] for s in report["steps"]} >= {"verify", "judge"}
    text = " ".join(p2r("demo-report", str(built)).stdout.split())
    assert "precision" in text and "judge of the demo world reads the text alone" in text
    assert report["judge_note"].startswith("The judge of the demo world")


def test_check_and_estimate_the_demo(tmp_path: Path, built: Path) -> None:
    assert json.loads(p2r("check", "demo", "--out", str(built), "--json").stdout)["ok"]
    assert "nothing wrong" in p2r("check", "demo", "--out", str(built)).stdout
    found = json.loads(p2r("estimate", "demo", "--out", str(built), "--json").stdout)
    assert found["rows"] == 240 and [s["step"] for s in found["steps"]] == ["generate", "judge"]
    piloted = json.loads(p2r("estimate", "demo", "--out", str(built), "--pilot", "20", "--json").stdout)
    assert piloted["pilot_rows"] == 20
    assert "next: p2r-data build demo" in p2r("estimate", "demo", "--out", str(built)).stdout


@pytest.mark.parametrize(
    "name",
    [
        "recipe",
        "lock",
        "trace",
        "sample",
        "sft",
        "rl",
        "rejected",
        "report",
        "check",
        "file",
        "doctor",
        "estimate",
    ],
)
def test_schemas_are_valid_json_schema(name: str, built: Path) -> None:
    schema = json.loads(p2r("schema", name).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    if name == "lock":
        jsonschema.validate(json.loads((built / "build.lock.json").read_text()), schema)
    assert name in p2r("schema").stdout.split()


def test_an_unknown_schema_says_what_there_is() -> None:
    assert "one of: recipe" in p2r("schema", "nothing", code=1).stderr


def test_init_writes_a_recipe_that_loads_and_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    assert "p2r-data check" in p2r("init", str(path)).stdout
    assert "#" in path.read_text()
    assert "--force" in p2r("init", str(path), code=1).stderr
    p2r("init", str(path), "--from", "demo", "--force")
    p2r("build", str(path), "--out", str(tmp_path / "out"), "--limit", "5")


def test_errors_are_messages_without_a_traceback(tmp_path: Path) -> None:
    result = p2r("build", "no-such-recipe", code=1)
    assert result.stderr.startswith("error: no recipe 'no-such-recipe'") and "Traceback" not in result.stderr
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "recipe: 1\nname: x\nsources: []\ngenerate: {backend: {kind: openai, model: m}}\ncolour: red\n"
    )
    text = p2r("build", str(bad), code=1).stderr
    assert "sources" in text and "base_url" in text and "colour" in text, "all errors at once"


def test_an_interrupted_build_says_how_to_go_on(tmp_path: Path) -> None:
    import os
    import signal
    import time

    out = tmp_path / "demo"
    recipe = tmp_path / "slow.yaml"
    from benchmarks.throughput import server

    with server(0.3) as url:
        (tmp_path / "pool.json").write_text(json.dumps([_question(i) for i in range(400)]))
        recipe.write_text(json.dumps(_recipe(url)))
        command = [sys.executable, "-m", "videop2r_data.cli", "build", str(recipe), "--out", str(out)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("demo.build/journal/*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1.0)
            os.kill(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 3, stderr
        assert "Stopped" in stdout and "run the same command again" in " ".join(stdout.split())
        assert "finishing the calls under way" in stderr
        assert not out.exists()


def _question(i: int) -> dict[str, Any]:
    return {
        "problem_id": i,
        "problem": f"What is shape {i}?",
        "data_type": "text",
        "problem_type": "multiple choice",
        "options": ["A. round", "B. square"],
        "solution": "<answer>A</answer>",
        "path": "",
        "data_source": "test",
    }


def _recipe(url: str) -> dict[str, Any]:
    return {
        "recipe": 1,
        "name": "slow",
        "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
        "generate": {"backend": {"kind": "openai", "base_url": url, "model": "m", "concurrency": 4}},
    }


def test_train_lengths(built: Path) -> None:
    report = json.loads(p2r("lengths", str(built), "--json", app=train.app).stdout)
    assert [p["process"] for p in report["processes"]] == ["perception", "reasoning"]
    assert "words" in p2r("lengths", str(built), app=train.app).stdout
    assert "no such file or folder" in p2r("lengths", "nowhere", code=1, app=train.app).stderr


def test_train_lengths_of_a_part_of_the_official_release(tmp_path: Path) -> None:
    trace = "<observation>one two three</observation> <think>four five</think><answer>B</answer>"
    rows = [{"problem": "?", "output": trace}, {"problem": "?", "output": "no trace"}, 7]
    part = tmp_path / "x.part1of1.json"
    part.write_text(json.dumps(rows))
    report = json.loads(p2r("lengths", str(part), "--json", app=train.app).stdout)
    assert report["rows"] == 1
    assert [p["percentiles"]["50"] for p in report["processes"]] == [3, 2]  # words and tags
