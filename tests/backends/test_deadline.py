"""One timer for all calls: late ones end with TimeoutError, a cancellation from outside stays one."""

from __future__ import annotations

import asyncio
import time

import pytest

from videop2r_data.backends.http import Deadlines


def test_late_calls_end_and_quick_ones_do_not() -> None:
    async def call(deadlines: Deadlines, seconds: float) -> str:
        try:
            with deadlines.call():
                await asyncio.sleep(seconds)
        except TimeoutError:
            return "late"
        return "done"

    async def main() -> list[str]:
        deadlines = Deadlines(0.2)
        ended = await asyncio.gather(*(call(deadlines, s) for s in (0.0, 30.0, 0.01, 30.0)))
        assert not deadlines.under_way
        return [*ended, await call(deadlines, 0.0), await call(deadlines, 30.0)]

    assert asyncio.run(main()) == ["done", "late", "done", "late", "done", "late"]


def test_a_cancellation_from_outside_is_no_timeout() -> None:
    async def main() -> None:
        deadlines = Deadlines(30.0)

        async def call() -> None:
            with deadlines.call():
                await asyncio.sleep(30)

        task = asyncio.create_task(call())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not deadlines.under_way

    asyncio.run(main())


def test_an_error_inside_is_that_error_and_the_task_lives_on() -> None:
    async def main() -> int:
        deadlines = Deadlines(0.05)
        with pytest.raises(KeyError), deadlines.call():
            raise KeyError("x")
        with pytest.raises(TimeoutError), deadlines.call():
            await asyncio.sleep(30)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)
        return 1

    assert asyncio.run(main()) == 1


def test_an_outer_timeout_wins_over_a_later_deadline() -> None:
    async def main() -> str:
        deadlines = Deadlines(20.0)
        try:
            async with asyncio.timeout(0.02):
                with deadlines.call():
                    await asyncio.sleep(30)
        except TimeoutError:
            return "outer"
        return "none"

    assert asyncio.run(main()) == "outer"


def test_time_in_which_the_process_was_stopped_does_not_count() -> None:
    """An answer that came meanwhile is taken, and who still waits has as long as before."""

    async def call(deadlines: Deadlines, answer: asyncio.Future[str]) -> str:
        try:
            with deadlines.call():
                return await answer
        except TimeoutError:
            return "late"

    async def main() -> list[str]:
        loop, deadlines = asyncio.get_running_loop(), Deadlines(0.3)
        came, never = loop.create_future(), loop.create_future()
        calls = asyncio.gather(call(deadlines, came), call(deadlines, never))
        await asyncio.sleep(0)
        time.sleep(1.0)  # noqa: ASYNC251 - as SIGSTOP does
        loop.call_soon(came.set_result, "answer")  # as what lay in a socket: read before any timer fires
        return list(await calls)

    assert asyncio.run(main()) == ["answer", "late"]
