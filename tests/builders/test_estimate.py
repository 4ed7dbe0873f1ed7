"""Estimates cover the pool, the target and the steps, and look without touching."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import FakeServer
from tests.integration.test_build import Silent, question, recipe, run, write_pool
from videop2r_data.builders.estimate import PAPER_KEPT, Estimate, estimate
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace

pytestmark = pytest.mark.integration
PRICE = {"input": 1.0, "output": 10.0}


def guess(folder: Path, *, pilot: int = 0, stop: Stop | None = None, **changes: Any) -> tuple[Estimate, int]:
    async def main() -> tuple[Estimate, int]:
        async with FakeServer() as server:
            place = Workspace.at(folder / "set", base=folder)
            made = recipe(server, **changes)
            return await estimate(made, place, pilot=pilot, observer=Silent(), stop=stop), server.requests

    return asyncio.run(main())


def test_a_look_at_the_pool_makes_no_call_and_leaves_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(20)] + [question(99, options=[])])
    found, requests = guess(tmp_path, generate__backend__price=PRICE)
    assert requests == 0 and (found.rows, found.bad_rows) == (21, 1)
    assert [s.calls for s in found.steps] == [20, 16] and found.usd > 0
    assert not (tmp_path / "set.build").exists()


def test_a_target_is_priced_not_the_pool(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(200)])
    found, _ = guess(tmp_path, target=10)
    # the paper keeps 62 % of its pool: 10 kept rows need 17 questions
    assert round(10 / PAPER_KEPT) == 16 and found.steps[0].calls == 17
    assert any("target of 10" in note for note in found.notes)
    found, _ = guess(tmp_path, target=10_000)
    assert found.steps[0].calls == 200


@pytest.mark.parametrize("judged", [True, False])
def test_a_pilot_beyond_the_pool_builds_it_and_its_calls_are_kept(tmp_path: Path, judged: bool) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])
    changes: dict[str, Any] = {} if judged else {"judge": None}
    found, requests = guess(tmp_path, pilot=100, generate__backend__price=PRICE, **changes)
    assert found.pilot_rows == 9 and [s.step for s in found.steps] == ["generate", "judge"][: 1 + judged]
    assert requests == 9 * (1 + judged) and found.steps[0].calls == 9
    assert found.pilot_usd == pytest.approx(found.steps[0].usd, rel=0.05)
    report, server = run(tmp_path, lambda s: recipe(s, **changes))
    assert report.state == "complete" and server.requests == 0


def test_a_pool_without_a_good_row_costs_nothing(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i, options=[]) for i in range(3)])
    for pilot in (0, 5):
        found, requests = guess(tmp_path, pilot=pilot, target=4)
        assert (found.rows, found.bad_rows, found.usd, requests) == (3, 3, 0.0, 0)


def test_a_pilot_that_was_stopped_says_so(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(i) for i in range(9)])
    stop = Stop()
    stop.ask()
    found, requests = guess(tmp_path, pilot=5, stop=stop)
    assert requests == 0 and found.pilot_rows == 0 and "stopped early" in found.notes[0]
