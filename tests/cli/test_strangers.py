"""What goes wrong for a stranger: one message that says what to do, one JSON document if asked."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from videop2r_data.cli import main, train
from videop2r_data.cli.common import errors_as_messages
from videop2r_data.cli.terminal import bar_width, type_table
from videop2r_data.errors import ConfigError


def p2r(*args: str, code: int = 0, app: Any = main.app) -> Result:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def told(raised: BaseException, capsys: pytest.CaptureFixture[str], *, code: int = 1) -> tuple[str, Any]:
    """Message and JSON document of an error."""
    with pytest.raises(typer.Exit) as end, errors_as_messages(as_json=True):
        raise raised
    assert end.value.exit_code == code
    out, err = capsys.readouterr()
    return err, json.loads(out)["error"]


def test_a_full_disk_is_a_message_also_out_of_a_group(capfd: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/journal")
    err, found = told(ExceptionGroup("tasks", [full]), capfd)
    assert err.startswith("error: /data/journal: No space left on device") and "disk has room" in err
    assert found["kind"] == "ConfigError" and found["message"].startswith("/data/journal")


def test_a_bug_keeps_its_traceback_also_in_a_group() -> None:
    with pytest.raises(ExceptionGroup), errors_as_messages():
        raise ExceptionGroup("tasks", [ConfigError("foreseen"), KeyError("a bug")])


def test_a_second_ctrl_c_is_exit_code_3(capfd: pytest.CaptureFixture[str]) -> None:
    err, found = told(KeyboardInterrupt(), capfd, code=3)
    assert "every finished call is kept" in err and found["kind"] == "Interrupted"


def test_a_long_path_is_not_broken_and_markup_in_it_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    path = "/data/[bold]/" + "x" * 200
    err, _ = told(ConfigError("no", where=path, hint="do\nthis"), capfd)
    assert path in err and "\n  do\n  this" in err


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp: ("build", str(tmp)),
        lambda tmp: ("build", "demo", "--max-cost", "0", "--out", str(tmp / "out")),
        lambda tmp: ("build", "demo", "--limit", "3", "--out", str(tmp / "file" / "out")),
        lambda tmp: ("check", "demo", "--work", str(tmp / "file")),
        lambda tmp: ("estimate", str(tmp / "missing.yaml")),
        lambda tmp: ("verify", str(tmp / "file")),
        lambda tmp: ("stats", str(tmp / "no" / "where")),
        lambda tmp: ("show", str(tmp / "nowhere")),
        lambda tmp: ("reproduce", str(tmp / "nowhere")),
        lambda tmp: ("demo-report", str(tmp)),
    ],
)
def test_wrong_input_is_one_message_and_one_json_document(
    make: Callable[[Path], tuple[str, ...]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("recipe: 1\n")
    result = p2r(*make(tmp_path), "--json", code=1)
    assert json.loads(result.stdout)["error"]["message"]
    assert "error: " in result.stderr and "Traceback" not in result.stderr


def test_init_into_a_folder_and_into_one_that_is_not_there(tmp_path: Path) -> None:
    p2r("init", str(tmp_path), "--from", "demo")
    assert (tmp_path / "demo.yaml").is_file()
    text = p2r("init", str(tmp_path / "new one" / "r.yaml")).stdout
    assert f"p2r-data check '{tmp_path}/new one/r.yaml'" in text


def test_bounds_in_the_wrong_order_are_wrong_usage(tmp_path: Path) -> None:
    assert (
        "300 is above 100"
        in p2r("lengths", str(tmp_path), "--perception", "300", "100", code=2, app=train.app).stderr
    )


def test_a_dead_server_is_named_and_the_exit_code_says_that_the_build_is_not_done(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    rows = [
        {
            "problem_id": i,
            "problem": f"What is shape {i}?",
            "data_type": "text",
            "problem_type": "numerical",
            "options": [],
            "solution": "<answer>1</answer>",
            "path": "",
            "data_source": "test",
        }
        for i in range(3)
    ]
    (tmp_path / "pool.json").write_text(json.dumps(rows))
    backend = {"kind": "openai", "base_url": url, "model": "m", "retries": 0, "server_wait_s": 0}
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json"}
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        json.dumps({"recipe": 1, "name": "x", "sources": [source], "generate": {"backend": backend}})
    )
    command = ("build", str(recipe), "--out", str(tmp_path / "my set"))
    text = p2r(*command, code=3).stdout
    assert "3 questions got no answer" in text and url in text and "run the same command again" in text
    assert f"p2r-data show '{tmp_path}/my set'" in text and "load_dataset" not in text
    report = json.loads(p2r(*command, "--json", code=3).stdout)
    assert report["unanswered"] == 3 and url in report["last_error"]


PAPER = {
    "image": {
        "multiple choice": 47091,
        "numerical": 18476,
        "OCR": 4014,
        "free-form": 2501,
        "regression": 693,
    },
    "video": {"multiple choice": 86910, "numerical": 1371, "free-form": 1006},
}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_of_types_is_never_cut(width: int) -> None:
    console = Console(width=width, file=open(os.devnull, "w"), record=True)  # noqa: SIM115, PTH123
    console.print(type_table(PAPER, title="accepted", width=width))
    console.file.close()
    text = console.export_text()
    assert "…" not in text and "162,062" in text and "134,001" in text and "89,287" in text
    assert max(map(len, text.splitlines())) <= width


def test_bars_have_room_on_narrow_terminals() -> None:
    assert (bar_width(80, 20), bar_width(50, 20), bar_width(10, 20)) == (40, 30, 4)


def test_piped_output_has_the_width_that_columns_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "videop2r-demo"
    p2r("build", "--out", str(out), "--limit", "20")
    for columns in ("60", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        for command in ("stats", "verify", "demo-report"):
            lines = p2r(command, str(out)).stdout.splitlines()
            assert "…" not in "".join(lines)
            assert max(len(line) for line in lines if str(out) not in line) <= int(columns)


def test_a_limit_without_a_price_is_told_in_plain_words(tmp_path: Path) -> None:
    error = p2r("build", "videop2r-mini", "--max-cost", "40", "--out", str(tmp_path / "out"), code=1).stderr
    assert "max_cost needs a price in generate.backend or judge.backend" in error
    assert "Value error" not in error


def test_a_full_stdout_is_one_message_with_json_too() -> None:
    """The document that should tell the error cannot be written either."""
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "videop2r_data", "init", "x.yaml", "--json", "--from", "nowhere"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1 and ran.stderr.startswith("error: no packaged recipe")
    assert "Traceback" not in ran.stderr
