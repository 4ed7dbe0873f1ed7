"""Ctrl-C while a program is still being imported: one line, the documented exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

BUILD = ("data", "build", "--limit", "5", "--out", "set")
SFT = ("train", "sft", "tiny-sft", "--data", "demo", "--output", "run")


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (BUILD, "typer"),
        (BUILD, "videop2r_data.errors"),
        (BUILD, "pydantic"),
        (SFT, "typer"),
        (SFT, "pydantic"),
        (SFT, "numpy.exceptions"),  # numpy reports an interrupted import as an error of its own
        (SFT, "torch.torch_version"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_ctrl_c_in_an_import_is_one_line_and_exit_code_3(
    tmp_path: Path, command: tuple[str, ...], module: str
) -> None:
    """Python tells on stderr when it has imported a module: the signal comes right behind the one named."""
    program, *arguments = command
    code = f"from videop2r_data.cli.entry import {program} as go; import sys; sys.argv = {['p', *arguments]!r}; go()"
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.split("|")[-1].strip() == module:
                os.kill(process.pid, signal.SIGINT)
                break
        rest = process.stderr.read()
        told = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 3, rest[-2000:]
    assert told == ["error: stopped", "  what was finished is kept: the same command goes on"]
    assert not list(tmp_path.iterdir())


def test_a_program_started_with_ctrl_c_switched_off_keeps_it_so(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from videop2r_data.cli import entry\nimport sys; sys.argv = ['p', '--version']\n"
        "try: entry.data()\nexcept SystemExit: pass\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
