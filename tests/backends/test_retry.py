from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends.caller import backoff_s, call_with_retries
from videop2r_data.backends.limiter import AdaptiveLimiter
from videop2r_data.errors import AuthError, BudgetError, P2RError, RefusedError, TransientError


def script(*events: object) -> tuple[Callable[[], Awaitable[object]], list[object]]:
    """A call that raises or returns one event after the other, and the list of those that happened."""
    left = list(events)
    happened: list[object] = []

    async def call() -> object:
        event = left.pop(0)
        happened.append(event)
        if isinstance(event, BaseException):
            raise event
        return event

    return call, happened


class Sleeps(list[float]):
    """Records the waits, and takes no time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def run(
    call: Callable[[], Awaitable[object]], *, retries: int = 6, limiter: AdaptiveLimiter | None = None
) -> tuple[object, Sleeps]:
    sleeps = Sleeps()

    async def go() -> object:
        return await call_with_retries(
            call,
            retries=retries,
            limiter=limiter or AdaptiveLimiter(4),
            rng=random.Random(0),
            sleep=sleeps,
        )

    return asyncio.run(go()), sleeps


def test_an_answer_needs_no_wait() -> None:
    call, _ = script("answer")
    assert run(call) == ("answer", [])


def test_transient_errors_are_tried_again_and_the_permit_returns() -> None:
    call, happened = script(TransientError("status 500: x"), TransientError("cut"), "answer")
    limiter = AdaptiveLimiter(4)
    answer, sleeps = run(call, limiter=limiter)
    assert (answer, len(happened), len(sleeps), limiter.in_flight) == ("answer", 3, 2, 0)


def test_it_gives_up_with_the_history() -> None:
    call, happened = script(
        TransientError("timeout"),
        TransientError("timeout"),
        TransientError("status 503: busy", rate_limited=True),
    )
    with pytest.raises(TransientError) as caught:
        run(call, retries=2)
    assert str(caught.value) == "gave up after 3 tries: timeout (2x); status 503: busy"
    assert caught.value.rate_limited
    assert len(happened) == 3


def test_without_retries_the_error_comes_as_it_is() -> None:
    error = TransientError("timeout")
    call, _ = script(error)
    with pytest.raises(TransientError) as caught:
        run(call, retries=0)
    assert caught.value is error


@pytest.mark.parametrize("error", [RefusedError("no"), AuthError("no"), BudgetError("no")])
def test_errors_for_good_are_not_tried_again(error: P2RError) -> None:
    call, happened = script(error, "never")
    limiter = AdaptiveLimiter(4)
    with pytest.raises(type(error)) as caught:
        run(call, limiter=limiter)
    assert caught.value is error
    assert (len(happened), limiter.in_flight, limiter.cuts) == (1, 0, 0)


def test_retry_after_is_waited_for_and_pauses_everyone() -> None:
    now = [100.0]
    limiter = AdaptiveLimiter(8, clock=lambda: now[0])
    seen: list[float] = []

    async def sleep(seconds: float) -> None:
        seen.append(limiter.pause_s)
        assert 7.0 <= seconds <= 7.5
        now[0] += seconds

    call, _ = script(TransientError("429", retry_after_s=7.0, rate_limited=True), "answer")

    async def go() -> object:
        return await call_with_retries(call, retries=1, limiter=limiter, rng=random.Random(1), sleep=sleep)

    assert asyncio.run(go()) == "answer"
    assert seen == [7.0]
    assert (limiter.limit, limiter.cuts) == (4, 1)


def test_no_permit_is_held_while_waiting() -> None:
    limiter = AdaptiveLimiter(1)

    async def sleep(seconds: float) -> None:
        assert limiter.in_flight == 0

    call, _ = script(TransientError("x"), "answer")

    async def go() -> object:
        return await call_with_retries(call, retries=1, limiter=limiter, rng=random.Random(1), sleep=sleep)

    assert asyncio.run(go()) == "answer"


def test_cancellation_in_a_try_or_a_wait_returns_the_permit() -> None:
    async def go() -> None:
        limiter = AdaptiveLimiter(2)

        async def hang() -> None:
            await asyncio.Event().wait()

        async def fail() -> None:
            raise TransientError("x", retry_after_s=60.0)

        for call in (hang, fail):
            task = asyncio.create_task(
                call_with_retries(call, retries=3, limiter=limiter, rng=random.Random(0))
            )
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert limiter.in_flight == 0

    asyncio.run(go())


def test_used_tokens_reach_the_limiter_and_waits_are_reported() -> None:
    now = [0.0]
    limiter = AdaptiveLimiter(4, tokens_per_minute=6000, clock=lambda: now[0])  # holds 1000
    reports: list[tuple[str, int]] = []
    sleeps = Sleeps()

    def used(answer: object) -> int:
        return answer if isinstance(answer, int) else 0

    async def go() -> None:
        call, _ = script(TransientError("x"), 250)
        await call_with_retries(
            call,
            retries=1,
            limiter=limiter,
            rng=random.Random(0),
            tokens=400,
            tokens_used=used,
            on_retry=lambda error, tries, wait: reports.append((error.message, tries)),
            sleep=sleeps,
        )
        # 400 for the failed try, 250 for the answer: 350 are left.
        await asyncio.wait_for(limiter.acquire(tokens=350), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(limiter.acquire(tokens=1), 0.01)

    asyncio.run(go())
    assert reports == [("x", 1)]


@settings(deadline=None)
@given(attempt=st.integers(1, 200), seed=st.integers())
def test_backoff_stays_within_its_bounds(attempt: int, seed: int) -> None:
    wait = backoff_s(attempt, rng=random.Random(seed), base_s=0.5, cap_s=60.0)
    assert 0.0 <= wait <= min(60.0, 0.5 * 2 ** (attempt - 1))
