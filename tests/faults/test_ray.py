"""Bad networks and stopped processes under a build on Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import BROKEN, CLEAN, Plan
from tests.faults.world import ROWS, UNDER_WAY, Gate, World, nothing_lost_nor_paid_again
from tests.integration.test_ray import actors, address, on_ray
from videop2r_data.builders import BuildReport

__all__ = ["address"]
ray: Any = pytest.importorskip("ray")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def test_everything_at_random(world: World) -> None:
    """Half of all calls, made by four actors, meet two faults in a row."""
    world.proxy.plan = Plan(seed=1, faults=(*BROKEN, *CLEAN), share=0.5, times=2)
    report = asyncio.run(on_ray(world.recipe(), world.folder / world.out, actors=2))
    assert report.state == "complete" and report.unanswered == 0
    assert len(world.proxy.met) > 10
    nothing_lost_nor_paid_again(world, beyond=world.proxy.met["repeat_late"])


async def stopping(world: World, gate: Gate, recipe: Path, seconds: float) -> BuildReport:
    """A build one of whose actors, with eight calls under way, is stopped for so long."""
    building = asyncio.ensure_future(on_ray(recipe, world.folder / world.out))
    while gate.held < UNDER_WAY:  # noqa: ASYNC110 - another thread counts
        await asyncio.sleep(0.05)
    pid = min(actors("CallerActor"))
    os.kill(pid, signal.SIGSTOP)
    gate.is_open = True
    try:
        await asyncio.wait([building], timeout=seconds)
    finally:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGCONT)
    return await building


def test_an_actor_that_is_stopped_for_a_while_goes_on(world: World, gate: Gate) -> None:
    """The answers that came meanwhile are taken: none is asked for again."""
    report = asyncio.run(stopping(world, gate, world.recipe(), 3.0))
    assert report.state == "complete" and world.server.requests == 2 * ROWS
    nothing_lost_nor_paid_again(world)


def test_an_actor_that_stays_stopped_is_replaced(
    world: World, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the deadline of its calls: they are made again by another one, and no other call is."""
    monkeypatch.setattr("videop2r_data.builders.cluster.GRACE_S", 1.0)
    recipe = world.recipe("quick", timeout_s=25.0)
    report = asyncio.run(stopping(world, gate, recipe, 120.0))
    assert report.state == "complete" and report.unanswered == 0
    assert 2 * ROWS < world.server.requests <= 2 * ROWS + UNDER_WAY // 2
    assert world.digests(world.out)["data/sft-00000.parquet"] == world.clean["data/sft-00000.parquet"]


def test_an_answer_that_came_while_the_driver_was_stopped_is_taken() -> None:
    """The actor answered long ago: the time in which nobody could read it is not held against it."""
    from videop2r_data.builders.crew import Crew

    class Answers:
        async def ready(self) -> None:
            pass

        async def work(self) -> int:
            await asyncio.sleep(0.5)
            return os.getpid()

    async def main() -> None:
        crew = Crew("workers", ray.remote(Answers).options(num_cpus=0).remote, 1, 1, "nothing")
        first = await crew.ask(lambda actor: actor.work.remote(), 60)
        asked = asyncio.ensure_future(crew.ask(lambda actor: actor.work.remote(), 6.0))
        await asyncio.sleep(0.1)
        time.sleep(9.0)  # noqa: ASYNC251 - as SIGSTOP does
        assert await asked == first
        crew.close()

    asyncio.run(main())
