from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends.limiter import AdaptiveLimiter, Outcome, RateLimits
from videop2r_data.errors import AwayError, StoppedError


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_permit_is_given_at_once_and_the_next_waits_its_turn() -> None:
    async def run() -> list[str]:
        limiter = AdaptiveLimiter(1)
        order: list[str] = []

        async def call(name: str) -> None:
            ticket = await limiter.acquire()
            order.append(name)
            await asyncio.sleep(0)
            limiter.release(ticket, "ok")

        await asyncio.gather(*(call(name) for name in "abcd"))
        assert (limiter.in_flight, limiter.waiting) == (0, 0)
        return order

    assert asyncio.run(run()) == ["a", "b", "c", "d"]


def test_a_burst_of_refusals_cuts_once_and_successes_raise_again() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(64)
        tickets = [await limiter.acquire() for _ in range(64)]
        for ticket in tickets:
            limiter.release(ticket, "limited")
        assert (limiter.limit, limiter.cuts) == (32, 1)
        limiter.release(await limiter.acquire(), "limited")
        assert limiter.limit == 16
        # Each success adds step/limit with step = 64/32 = 2: 16 of them add about 2, one round trip.
        for _ in range(16):
            limiter.release(await limiter.acquire(), "ok")
        assert limiter.limit == 17
        for _ in range(2000):
            limiter.release(await limiter.acquire(), "ok")
        assert limiter.limit == 64

    asyncio.run(run())


def test_rare_errors_do_not_cut_frequent_ones_do() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(100)
        for i in range(2000):
            limiter.release(await limiter.acquire(), "strained" if i % 50 == 0 else "ok")
        assert limiter.cuts == 0
        for _ in range(3):
            limiter.release(await limiter.acquire(), "strained")
        assert (limiter.cuts, limiter.limit) == (1, 75)

    asyncio.run(run())


def test_the_limit_never_falls_below_one() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(2)
        for _ in range(10):
            limiter.release(await limiter.acquire(), "limited")
        assert limiter.limit == 1
        await asyncio.wait_for(limiter.acquire(), 1)

    asyncio.run(run())


def test_a_pause_holds_everyone_and_ends() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(4, clock=clock)
        limiter.pause(30.0)
        limiter.pause(10.0)  # a shorter one does not end the longer one
        assert limiter.pause_s == 30.0
        task = asyncio.create_task(limiter.acquire())
        await settle()
        assert limiter.waiting == 1
        clock.now = 29.0
        limiter._wake()
        assert not task.done()
        clock.now = 30.5
        limiter._wake()
        await task
        assert limiter.pause_s == 0.0

    asyncio.run(run())


def test_a_timer_wakes_the_waiters_after_a_pause() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(4)
        limiter.pause(0.02)
        await asyncio.wait_for(asyncio.gather(*(limiter.acquire() for _ in range(4))), 5)
        assert limiter.in_flight == 4

    asyncio.run(run())


def test_an_absurd_pause_is_capped() -> None:
    limiter = AdaptiveLimiter(4, clock=Clock())
    limiter.pause(1e9)
    assert limiter.pause_s == 900.0


def test_requests_per_minute() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(1000, requests_per_minute=60, clock=clock)
        for _ in range(10):  # ten seconds' worth may go at once
            await limiter.acquire()
        task = asyncio.create_task(limiter.acquire())
        await settle()
        assert not task.done()
        clock.now += 0.9
        limiter._wake()
        assert limiter.in_flight == 10
        clock.now += 0.2
        limiter._wake()
        await task
        assert limiter.in_flight == 11

    asyncio.run(run())


def test_tokens_per_minute_are_corrected_by_what_was_used() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(10, tokens_per_minute=6000, clock=clock)  # 100 a second, 1000 at once
        ticket = await limiter.acquire(tokens=1000)
        limiter.release(ticket, "ok", extra_tokens=-600)  # only 400 were used
        await asyncio.wait_for(limiter.acquire(tokens=600), 1)
        task = asyncio.create_task(limiter.acquire(tokens=100))
        await settle()
        assert not task.done()
        clock.now += 1.001
        limiter._wake()
        await task
        # More than the bucket holds: it goes when the bucket is full, and leaves a debt.
        huge = asyncio.create_task(limiter.acquire(tokens=5000))
        await settle()
        clock.now += 10.0
        limiter._wake()
        await huge
        later = asyncio.create_task(limiter.acquire(tokens=1))
        clock.now += 39.0
        await settle()
        limiter._wake()
        assert not later.done()
        clock.now += 2.0
        limiter._wake()
        await later

    asyncio.run(run())


@pytest.mark.parametrize(
    ("limits", "pause"),
    [
        (RateLimits(remaining_requests=3, reset_requests_s=9.0), 0.0),
        (RateLimits(remaining_requests=0, reset_requests_s=9.0), 9.0),
        (RateLimits(remaining_requests=0, reset_requests_s=60.0, limit_requests=600), 6.0),
        (RateLimits(remaining_tokens=0, reset_tokens_s=2.0, remaining_requests=5), 2.0),
        (RateLimits(remaining_tokens=0), 0.0),
    ],
)
def test_an_exhausted_budget_pauses(limits: RateLimits, pause: float) -> None:
    limiter = AdaptiveLimiter(4, clock=Clock())
    limiter.observe(limits)
    assert limiter.pause_s == pytest.approx(pause)


def test_concurrency_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        AdaptiveLimiter(0)


def test_a_permit_given_to_a_cancelled_caller_comes_back() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(1)
        ticket = await limiter.acquire()
        waiting = asyncio.create_task(limiter.acquire())
        behind = asyncio.create_task(limiter.acquire())
        await settle()
        limiter.release(ticket, "ok")  # hands the permit to `waiting`, which is cancelled before it runs
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(behind, 1)
        assert limiter.in_flight == 1

    asyncio.run(run())


outcomes: st.SearchStrategy[Outcome] = st.sampled_from(["ok", "limited", "strained", "neutral"])


@settings(deadline=None, max_examples=60)
@given(
    maximum=st.integers(1, 12),
    calls=st.lists(st.tuples(outcomes, st.booleans(), st.integers(0, 4)), max_size=60),
    seed=st.integers(0, 2**16),
)
def test_never_above_the_maximum_and_no_permit_is_lost(
    maximum: int, calls: list[tuple[Outcome, bool, int]], seed: int
) -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(maximum)
        rng = random.Random(seed)
        inside = highest = 0

        async def call(outcome: Outcome, ticks: int) -> None:
            nonlocal inside, highest
            ticket = await limiter.acquire()
            inside += 1
            highest = max(highest, inside, limiter.in_flight)
            try:
                for _ in range(ticks):
                    await asyncio.sleep(0)
            finally:
                inside -= 1
                limiter.release(ticket, outcome)
                assert 1 <= limiter.limit <= maximum

        tasks = [asyncio.create_task(call(outcome, ticks)) for outcome, _, ticks in calls]
        for task, (_, cancel, _) in zip(tasks, calls, strict=True):
            if cancel:
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)
        assert highest <= maximum
        assert (limiter.in_flight, limiter.waiting, inside) == (0, 0, 0)
        # Everything that was taken came back: the whole limit can be taken again.
        for _ in range(limiter.limit):
            await asyncio.wait_for(limiter.acquire(), 1)

    asyncio.run(run())


def test_a_stop_ends_every_wait_and_gives_no_further_permit() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(1)
        ticket = await limiter.acquire()
        waiting = asyncio.ensure_future(limiter.acquire())
        resting = asyncio.ensure_future(limiter.rest(900.0))
        await settle()
        limiter.stop()
        for task in (waiting, resting, asyncio.ensure_future(limiter.acquire())):
            with pytest.raises(StoppedError):
                await task
        limiter.release(ticket, "ok")
        assert limiter.in_flight == limiter.waiting == 0

    asyncio.run(run())


def test_a_permit_that_came_just_before_the_stop_is_not_used() -> None:
    """The call that ends the run frees its permit first, and a waiting call is handed it."""

    async def run() -> None:
        limiter = AdaptiveLimiter(1)
        ticket = await limiter.acquire()
        waiting = asyncio.ensure_future(limiter.acquire())
        await settle()
        limiter.release(ticket)
        limiter.stop()
        with pytest.raises(StoppedError):
            await waiting
        assert limiter.in_flight == limiter.waiting == 0

    asyncio.run(run())


def test_a_pause_is_told_with_what_the_server_asked_for() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(4, name="the judge server", clock=clock)
        limiter.pause(86_400.0)
        task = asyncio.ensure_future(limiter.acquire())
        await settle()
        clock.now = 10.0
        words = limiter.waiting_for()
        assert "the next call goes to the judge server in 890 s" in words and "86,400 s" in words
        limiter.stop()
        with pytest.raises(StoppedError):
            await task
        assert limiter.waiting_for() == ""

    asyncio.run(run())


def test_an_outage_lets_one_call_look_and_ends_all_waits_when_it_lasts() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(8, server_wait_s=60.0, name="the server", clock=clock)
        first = await limiter.acquire()
        assert limiter.lost("connection refused", since=0.0)
        limiter.release(first, "neutral")
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await settle()
        assert limiter.in_flight == 0 and "connection refused" in limiter.waiting_for()
        clock.now = 1.0
        probe = asyncio.ensure_future(limiter.acquire())
        await settle()
        assert limiter.in_flight == 1, "one looks, the others wait"
        clock.now = 61.0
        assert limiter.lost("connection refused", since=1.0)
        await settle()
        ended = [task for task in [*waiting, probe] if task.done() and task.exception() is not None]
        assert len(ended) == 5 and all(isinstance(task.exception(), AwayError) for task in ended)

    asyncio.run(run())


def test_a_server_that_is_back_serves_everyone_at_once() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(8, server_wait_s=60.0, clock=clock)
        assert limiter.lost("refused", since=0.0)
        waiting = [asyncio.ensure_future(limiter.acquire()) for _ in range(5)]
        await settle()
        clock.now = 0.6
        waiting.append(asyncio.ensure_future(limiter.acquire()))
        await settle()
        assert [task.done() for task in waiting] == [True, *[False] * 5]
        limiter.release(waiting[0].result(), "ok")
        await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert limiter.in_flight == 5 and limiter.waiting_for() == ""

    asyncio.run(run())


def test_a_call_that_alone_cannot_connect_has_its_own_fault() -> None:
    clock = Clock()
    limiter = AdaptiveLimiter(8, server_wait_s=60.0, clock=clock)
    clock.now = 5.0
    limiter.reach.answered()
    assert not limiter.lost("refused", since=4.0), "somebody was answered while this call was tried"
    assert limiter.lost("refused", since=6.0)


def test_silence_is_told_early_at_first_and_later_only_when_it_lasts() -> None:
    async def run() -> None:
        clock = Clock()
        limiter = AdaptiveLimiter(8, name="the server", clock=clock)
        ticket = await limiter.acquire()
        clock.now = 2.5
        assert limiter.waiting_for() == ""
        clock.now = 4.5
        assert limiter.waiting_for() == "no answer from the server for 4 s, 1 call under way"
        limiter.release(ticket, "ok")
        await limiter.acquire()
        clock.now = 40.0
        assert limiter.waiting_for() == ""
        clock.now = 70.0
        assert "for 66 s" in limiter.waiting_for()

    asyncio.run(run())
