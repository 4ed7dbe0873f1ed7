"""Other tools that ask a model many questions, on the server and with the questions of `throughput.py`.

Each has a client module here, `NAME_client`, which the Python of its own environment runs (`env.sh NAME`);
nothing is imported here that such an environment lacks. What is measured, the same for all of them:

    calls_per_s        calls by the seconds from its first request to its last answer, as the server saw them
    calls_per_s_whole  calls by the seconds of its own run, from the call that starts it to its return, with
                       workers that it starts and tables that it writes
    cpu_ms_per_call    CPU of its processes during that run
    peak_mb            most memory of its own process and of the largest one that it started
    max_in_flight      most requests that waited for their answer at one time, as the server saw them

Each has the settings that are best for it, and one process that makes calls, as the build has (several
processes would share out the questions of either). Importing modules has no part in it: a small run with
other questions comes before the one that counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
CLIENTS = tuple(
    sorted(path.stem.removesuffix("_client") for path in Path(__file__).parent.glob("*_client.py"))
)
"""Names of the rivals."""
TIMEOUT_S = 900


class RivalError(Exception):
    """A rival could not be measured; with the end of what it said."""


def installed(root: Path = ROOT) -> dict[str, Path]:
    """Rivals whose environment is here, `.venv-NAME`, with its Python."""
    found = {name: root / f".venv-{name}" / "bin" / "python" for name in CLIENTS}
    return {name: python for name, python in found.items() if python.exists()}


def parse_rival(text: str) -> tuple[str, Path]:
    """`NAME=PYTHON` of the command line.

    Raises:
        ValueError: it has no `=`, or no client here has that name.

    >>> parse_rival("curator=/opt/curator/bin/python")
    ('curator', PosixPath('/opt/curator/bin/python'))
    """
    name, equals, python = text.partition("=")
    if not equals or name not in CLIENTS:
        raise ValueError(f"expected NAME=PYTHON with a NAME of {', '.join(CLIENTS)}, got {text!r}")
    return name, Path(python)


def measure(
    name: str,
    python: Path,
    *,
    url: str,
    bodies: Path,
    calls: int,
    concurrency: int,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """One run of a rival: the first `calls` questions of `bodies` (JSON lines), so many in flight at most.

    Raises:
        RivalError: it failed, took too long, or did not ask each question exactly once.
    """
    client = ["-m", f"benchmarks.rivals.{name}_client", url, str(bodies), str(calls), str(concurrency)]
    with tempfile.TemporaryDirectory() as folder:
        # Caches, journals and tables of the tools go there, and away with it.
        env = {**os.environ, "TMPDIR": folder}
        try:
            done = subprocess.run(
                [str(python), *client],
                cwd=ROOT,
                env=env,
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RivalError(f"{name}: {error}") from error
    if done.returncode != 0:
        raise RivalError(f"{name}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return parse_line(name, done.stdout)


def parse_line(name: str, printed: str) -> dict[str, Any]:
    """What a client measured: its line of JSON, whatever its tool printed around it.

    Raises:
        RivalError: there is no such line.

    >>> parse_line("curator", 'Done!\\n{"calls": 2, "version": "0.1.31"}\\nbye')
    {'calls': 2, 'version': '0.1.31'}
    """
    lines = [line for line in printed.splitlines() if line.startswith('{"calls":')]
    if not lines:
        raise RivalError(f"{name}: no figures in what it printed:\n{printed[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
