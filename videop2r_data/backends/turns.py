"""Answers that come together are taken up a few at a time."""

from __future__ import annotations

import asyncio
from collections import deque

A_TURN = 8
"""Answers taken up in one turn of the loop."""


class Turns:
    """Lets a few callers pass in each turn of the event loop, the others wait in line.

    What every call does between its answer and the next request takes several turns of the loop. A hundred
    answers that come at once would go through them side by side, and a hundred requests would leave together
    at the end: the server idles until they come, the client until they are answered, and again. A few at a
    time, the first requests are out while later answers are still being read.

    One belongs to one event loop and is not thread-safe.

    >>> async def passed():
    ...     turns, done = Turns(2), []
    ...     async def one(name):
    ...         await turns.take()
    ...         done.append(name)
    ...     tasks = [asyncio.create_task(one(name)) for name in "abc"]
    ...     await asyncio.sleep(0)
    ...     first = "".join(done)
    ...     await asyncio.gather(*tasks)
    ...     return first, "".join(done)
    >>> asyncio.run(passed())
    ('ab', 'abc')
    """

    def __init__(self, a_turn: int = A_TURN) -> None:
        self._a_turn = a_turn
        self._taken = 0
        self._line: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Go on, in this turn or a later one, first come first served."""
        if self._line or self._taken >= self._a_turn:
            future = asyncio.get_running_loop().create_future()
            self._line.append(future)
            await future
        else:
            if not self._taken:
                asyncio.get_running_loop().call_soon(self._next)
            self._taken += 1

    def _next(self) -> None:
        """Another turn of the loop: those in front may go on."""
        self._taken = 0
        while self._line and self._taken < self._a_turn:
            future = self._line.popleft()
            if not future.done():  # else it was cancelled while it waited
                future.set_result(None)
                self._taken += 1
        if self._taken:
            asyncio.get_running_loop().call_soon(self._next)
