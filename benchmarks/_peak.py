"""Run a command, and know the most memory that it and its children held together."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

EVERY_S = 0.1
"""Between two looks; what lives shorter is missed."""


class Ran(NamedTuple):
    """What a command printed, and its highest memory in MB (2 ** 20 bytes)."""

    printed: str
    peak_mb: float


def watched(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end. Pages that several of its processes share count once (Linux's PSS).

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    peak = 0
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=errors)
        while process.poll() is None:
            peak = max(peak, sum(held(pid) for pid in family(process.pid)))
            time.sleep(EVERY_S)
        output.seek(0)
        errors.seek(0)
        printed, said = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{(printed + said)[-4000:]}")
    return Ran(printed, round(peak / 2**20, 1))


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants that are alive."""
    yield pid
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            for child in listed.read_text().split():
                yield from family(int(child))


def held(pid: int) -> int:
    """Bytes of memory of a process, its part of shared pages; 0 if it has just ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
