"""Deadlines of many calls with one timer: a timer for each costs a tenth of the CPU of a short call."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

TICKS = 20
"""A deadline is met within this part of its length."""
MAX_TICK_S = 1.0


class Deadlines:
    """Ends calls of one event loop that take longer than they may.

    Args:
        seconds: what each call may take; it ends at most a twentieth of that, or a second, later.

    >>> async def main():
    ...     with Deadlines(0.02).call():
    ...         await asyncio.sleep(5)
    >>> asyncio.run(main())
    Traceback (most recent call last):
    ...
    TimeoutError
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.under_way: dict[_Call, float] = {}
        """Calls with their deadlines, oldest first."""
        self._tick_s = min(seconds / TICKS, MAX_TICK_S)
        self._timer: asyncio.TimerHandle | None = None

    def call(self) -> _Call:
        """A context for one call: raises TimeoutError in it when its time is over."""
        return _Call(self)

    def watch(self, call: _Call) -> None:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        self.under_way[call] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        over = []
        for call, due in self.under_way.items():
            if due > now:
                break
            over.append(call)
        for call in over:
            del self.under_way[call]
            call.expire()
        self._timer = loop.call_later(self._tick_s, self._tick, loop) if self.under_way else None


class _Call:
    """One call; cancels its task when time is over, and turns that cancellation alone into TimeoutError."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def expire(self) -> None:
        """The time is over."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = self._task.cancelling()
        self._deadlines.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.under_way.pop(self, None)
        if not self._expired or self._task is None:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
