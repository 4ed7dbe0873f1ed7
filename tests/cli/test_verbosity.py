"""`-q`, `-v`, `--version`, `python -m` and shell completion, for both programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import videop2r_data
from videop2r_data.cli import main, train
from videop2r_data.cli.common import Level, level

BOTH = pytest.mark.parametrize("app", [main.app, train.app], ids=["p2r-data", "p2r-train"])


def module(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *args]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})})


@BOTH
def test_the_version(app: Any) -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{videop2r_data.__version__}\n")


@BOTH
def test_every_command_takes_both_flags(app: Any) -> None:
    import typer

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        flags = {flag for option in command.params for flag in option.opts}
        assert {"-q", "--quiet", "-v", "--verbose"} <= flags, name


def test_quiet_says_errors_alone_at_either_place(tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "set"), "--limit", "6")
    loud = CliRunner().invoke(main.app, ["build", "demo", *out])
    assert loud.exit_code == 0 and "questions" in loud.stderr
    for command in (["-q", "build", "demo", *out], ["build", "demo", "-q", *out]):
        quiet = CliRunner().invoke(main.app, command)
        assert quiet.exit_code == 0 and quiet.stderr == "" and "Built" in quiet.stdout
    wrong = CliRunner().invoke(main.app, ["-q", "build", "nothere"])
    assert wrong.exit_code == 1 and "no recipe 'nothere'" in wrong.stderr
    CliRunner().invoke(main.app, ["schema"])
    assert level() is Level.NORMAL


def test_quiet_holds_for_the_libraries_of_training_too(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = module("videop2r_data.cli.train", "-q", "tiny", str(tmp_path / "tiny"))
    assert (done.returncode, done.stderr) == (0, "") and "weights" in done.stdout


def test_verbose_shows_the_version_and_the_traceback_of_an_error() -> None:
    for flags in (["-v", "check", "nothere"], ["check", "-v", "nothere"]):
        done = module("videop2r_data", *flags)
        assert done.returncode == 1 and done.stdout == ""
        assert f"videop2r-data {videop2r_data.__version__} in " in done.stderr
        assert "Traceback" in done.stderr and done.stderr.count("error: no recipe") == 1
    assert "Traceback" not in module("videop2r_data", "check", "nothere").stderr
    assert "Traceback" in module("videop2r_data.cli.train", "-v", "lengths", "nothere").stderr


def test_both_programs_are_reached_by_python_m() -> None:
    version = f"{videop2r_data.__version__}\n"
    assert module("videop2r_data", "--version").stdout == version
    assert module("videop2r_data.cli.train", "--version").stdout == version


@pytest.mark.parametrize(
    ("program", "typed", "wanted"), [("main", "est", "estimate"), ("train", "len", "lengths")]
)
def test_a_shell_completes_commands_and_flags(program: str, typed: str, wanted: str) -> None:
    name = "p2r-data" if program == "main" else "p2r-train"
    code = f"import sys; sys.argv = [{name!r}]; from videop2r_data.cli.{program} import app; app(prog_name={name!r})"
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    for words, at, found in ((f"{name} {typed}", "1", wanted), (f"{name} {wanted} --js", "2", "--json")):
        env = {**os.environ, variable: "complete_bash", "COMP_WORDS": words, "COMP_CWORD": at}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert found in done.stdout.splitlines(), (done.stdout, done.stderr)
