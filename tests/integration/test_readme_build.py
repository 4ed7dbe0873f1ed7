"""The commands of README's "A real build", as they are printed, against a server on loopback."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_pools_of_ones_own import video_r1

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fakes.openai_server", "--port", "0", "--latency", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_each_command_works_as_printed(tmp_path: Path, server: str) -> None:
    text = (ROOT / "README.md").read_text().partition("## A real build")[2]
    block = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert [words[1] for words in commands][:2] == ["init", "check"] and len(commands) >= 6
    source = video_r1(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    for words in commands:
        assert words[0] == "p2r-data"
        done = subprocess.run(
            [sys.executable, "-m", "videop2r_data", *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, (words, done.stdout[-3000:], done.stderr[-3000:])
        if words[1] == "init":  # what the comment beside it tells to edit
            recipe = tmp_path / words[2]
            edited = re.sub(
                r"sources:\n.*?\nmedia:", f"sources:\n{source}\n\nmedia:", recipe.read_text(), flags=re.S
            )
            recipe.write_text(re.sub(r"http://localhost:800\d/v1", server, edited))
