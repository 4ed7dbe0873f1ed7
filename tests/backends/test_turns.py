"""Answers that come together are taken up a few at a time."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from videop2r_data.backends.caller import Turns


async def passing(callers: int, share: int, cancelled: frozenset[int] = frozenset()) -> list[list[int]]:
    """Who passed in each turn of the loop, all of them having come in the first."""
    turns, passed = Turns(share), list[int]()

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


def dealt(line: list[int], share: int) -> list[list[int]]:
    """The first alone, then in each turn a part of those left, at least one."""
    seen, line = [line[:1]], line[1:]
    while line:
        most = max(1, len(line) // share)
        seen.append(line[:most])
        line = line[most:]
    return [turn for turn in seen if turn]


@given(st.integers(0, 90), st.integers(1, 9))
def test_a_few_pass_in_each_turn_in_the_order_in_which_they_came(callers: int, share: int) -> None:
    assert asyncio.run(passing(callers, share)) == dealt(list(range(callers)), share)


@given(st.sets(st.integers(1, 29)))
def test_whoever_is_cancelled_in_line_takes_no_place(cancelled: set[int]) -> None:
    seen = asyncio.run(passing(30, 100, frozenset(cancelled)))  # a share so small that each passes alone
    assert seen == [[number] for number in range(30) if number not in cancelled]


def test_a_line_that_ended_can_begin_again() -> None:
    async def again() -> list[int]:
        turns, passed = Turns(), list[int]()

        async def one(number: int) -> None:
            await turns.take()
            passed.append(number)

        for start in (0, 5, 10):
            await asyncio.wait_for(asyncio.gather(*map(one, range(start, start + 5))), timeout=60)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return passed

    assert asyncio.run(again()) == list(range(15))
