"""Ctrl-C and SIGTERM: the first drains, the second stops at once; finished calls are kept either way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from videop2r_data.builders.run import Stop


T = TypeVar("T")


def run_draining(main: Coroutine[Any, Any, T], stop: Stop, tell: Callable[[str], None]) -> T:
    """Run a coroutine; the first signal asks `stop`, the second cancels.

    Raises:
        KeyboardInterrupt: after the second signal.
    """
    import asyncio

    heard = 0

    async def guarded() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main)

        def on_signal() -> None:
            nonlocal heard
            heard += 1
            if heard > 1:
                task.cancel()
            else:  # also when an error has asked already: what is under way then is as dear
                stop.ask()
                tell("finishing the calls under way; again to stop at once (those calls are then lost)")

        if heard:
            stop.ask()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def early(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1

    before = {number: signal.signal(number, early) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _run(guarded())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(main: Coroutine[Any, Any, T]) -> T:
    import asyncio
    import gc

    # what was imported lives as long as the process: the collector need not walk it every few thousand calls
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
