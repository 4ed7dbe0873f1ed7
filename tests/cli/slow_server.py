"""The scripted server in a process of its own, for tests that start commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_server(*, latency: float) -> Iterator[str]:
    """Gives the base URL."""
    command = [sys.executable, "-m", "tests.fakes.openai_server", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
