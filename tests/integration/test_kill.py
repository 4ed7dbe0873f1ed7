"""SIGKILL at random moments: the same bytes, and no more repeats than calls in flight."""

from __future__ import annotations

import pytest

from benchmarks.kill_resume import run

pytestmark = pytest.mark.integration


@pytest.mark.timeout(600)
def test_a_build_killed_again_and_again_ends_in_the_same_bytes() -> None:
    found = run(samples=150, kills=5, latency=0.1, seed=7, image=True)
    assert found["same_bytes"]
    assert found["kills_that_hit"] >= 3
    assert found["repeats"] <= found["in_flight_at_kills_at_most"]
    assert found["damaged_records"] == 0
