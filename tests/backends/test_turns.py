"""Answers that come together are taken up a few at a time."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from videop2r_data.backends.turns import Turns


async def passing(callers: int, a_turn: int, cancelled: frozenset[int] = frozenset()) -> list[list[int]]:
    """Who passed in each turn of the loop, all of them having come in the first."""
    turns, passed = Turns(a_turn), list[int]()

    async def one(number: int) -> None:
        await turns.take()
        passed.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(callers)]
    seen: list[list[int]] = []
    await asyncio.sleep(0)
    for number in cancelled:
        tasks[number].cancel()
    while not all(task.done() for task in tasks):
        seen.append(passed[sum(map(len, seen)) :])
        await asyncio.sleep(0)
    seen.append(passed[sum(map(len, seen)) :])
    return [turn for turn in seen if turn]


@given(st.integers(0, 60), st.integers(1, 9))
def test_a_few_pass_in_each_turn_in_the_order_in_which_they_came(callers: int, a_turn: int) -> None:
    seen = asyncio.run(passing(callers, a_turn))
    assert [number for turn in seen for number in turn] == list(range(callers))
    assert all(len(turn) <= a_turn for turn in seen) and len(seen) == -(-callers // a_turn)


@given(st.sets(st.integers(0, 29)))
def test_whoever_is_cancelled_in_line_takes_no_place(cancelled: set[int]) -> None:
    """The first turn has passed when they are cancelled."""
    seen = asyncio.run(passing(30, 4, frozenset(cancelled)))
    first, rest = [*range(4)], [number for number in range(4, 30) if number not in cancelled]
    assert seen == [first, *(rest[start : start + 4] for start in range(0, len(rest), 4))]


def test_a_line_that_ended_can_begin_again() -> None:
    async def twice() -> None:
        turns = Turns(1)
        for _ in range(3):
            await asyncio.wait_for(asyncio.gather(*(turns.take() for _ in range(5))), timeout=60)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(twice())
