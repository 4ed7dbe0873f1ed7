"""How trainers are compared in `benchmarks.train_step`: memory of a family of processes, ratios of pairs."""

from __future__ import annotations

import sys

import pytest

from benchmarks._peak import watched
from benchmarks.train_step import Round, compared

HOLDS = """
import subprocess, sys, time
child = "import time; kept = bytearray(150 << 20); print('held', flush=True); time.sleep(1.5)"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_children_counts() -> None:
    ran = watched([sys.executable, "-c", HOLDS])
    assert "held" in ran.printed
    assert 150 < ran.peak_mb < 300
    assert watched([sys.executable, "-c", "import time; time.sleep(0.5)"]).peak_mb < 50


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        watched([sys.executable, "-c", "1 / 0"])


def test_ratios_are_taken_within_rounds() -> None:
    found = compared(
        {
            "ours": [Round(1.0, 100.0), Round(10.0, 100.0), Round(2.0, 200.0)],
            "trl": [Round(3.0, 300.0), Round(20.0, 100.0), Round(8.0, 300.0)],
        }
    )
    assert found["ours"] == {"step_s": 2.0, "peak_mb": 100.0}
    # in the rounds 3, 2 and 4 times the time; 3, 1 and 1.5 times the memory
    assert found["trl"] == {
        "step_s": 8.0,
        "peak_mb": 300.0,
        "times_our_step": 3.0,
        "times_our_memory": 1.5,
    }
