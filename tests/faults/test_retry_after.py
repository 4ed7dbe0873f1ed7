"""Servers that say when to come back: at once, in seconds, at a date, in days, in nonsense; and clocks that jump."""

from __future__ import annotations

import signal
import sys
import time
from email.utils import formatdate

import pytest

from tests.faults.proxy import Exchange, Plan, answer, refusing
from tests.faults.world import World, finish, nothing_lost_nor_paid_again, start

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
A_DAY_S = 86_400
SHORT = ("0", "1", "0.5", "-3", "soon", "", "1e400", "NaN", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Foo")


@pytest.mark.parametrize("status", [429, 503, 529])
def test_what_asks_for_no_long_wait_costs_none(world: World, status: int) -> None:
    """Zero, a second, a date that has passed and nonsense: the calls go out again after the usual waits."""
    world.proxy.extra = {f"after {text}": refusing(status, retry_after=text) for text in SHORT}
    ended = world.build(world.out, plan=Plan(seed=2, faults=tuple(world.proxy.extra), share=0.6))
    assert ended.code == 0, ended.text
    assert len(world.proxy.met) > 5 and "as its last answer asked" not in ended.stderr
    nothing_lost_nor_paid_again(world)


async def a_second_later(exchange: Exchange) -> bool:
    """Status 429 until a date a second ahead, by the server's clock."""
    now = time.time()
    dates = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 1, usegmt=True)}
    await exchange.send(answer(429, b"{}", dates))
    return False


async def in_three_days(exchange: Exchange) -> bool:
    """Status 429 until a date in three days."""
    now = time.time()
    dates = {"date": formatdate(now, usegmt=True), "retry-after": formatdate(now + 3 * A_DAY_S, usegmt=True)}
    await exchange.send(answer(429, b"{}", dates))
    return False


JUMPING = """
import itertools, sys, time
real, jumps = time.time, itertools.cycle((0.0, 1e5, -1e5, 3e8, -3e8))
time.time = lambda: real() + next(jumps)
from videop2r_data.cli.entry import data
data()
"""


def test_a_clock_that_jumps_changes_no_wait_and_no_byte(world: World) -> None:
    """Waits are measured by the monotonic clock, and dates of a server count from the server's own."""
    world.proxy.extra["dated"] = a_second_later
    world.proxy.plan = Plan(seed=2, faults=("dated",), share=0.3)
    ended = finish(start([sys.executable, "-c", JUMPING, *world.command(world.out)[3:]]))
    assert ended.code == 0, ended.text
    assert world.proxy.met["dated"] > 5 and "as its last answer asked" not in ended.stderr
    nothing_lost_nor_paid_again(world)


def test_days_are_told_waited_for_in_parts_and_end_with_a_signal(world: World) -> None:
    """No more than 15 minutes are waited for at once; whoever does not want to, stops and comes back."""
    world.proxy.extra["days"] = in_three_days
    world.proxy.plan = Plan(faults=("days",), share=1.0, after=20)
    with world.start() as process:
        assert process.stderr is not None
        said = next(line for line in process.stderr if "as its last answer asked" in line)
        assert "which asked for 259," in said
        process.send_signal(signal.SIGTERM)
        ended = finish(process)
    assert ended.code == 3 and "Stopped" in ended.stdout, ended.text
    assert "to go on, run the same command again" in ended.text
    assert world.kept_calls(world.out) == world.proxy.given.total() >= 20
    assert world.build(world.out).code == 0
    nothing_lost_nor_paid_again(world)
