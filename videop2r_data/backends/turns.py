"""Answers that come together are taken up a few at a time."""

from __future__ import annotations

import asyncio
from collections import deque

SHARE = 8
"""In one turn of the loop passes this part of the line."""


class Turns:
    """Lets one of those in line pass in each turn of the event loop, or an eighth of a long line.

    What every call does between its answer and the next request takes several turns of the loop. A hundred
    answers that come at once would go through them side by side, and a hundred requests would leave together
    at the end: the server idles until they come, the client until they are answered, and again. A few at a
    time, the first requests are out while later answers are still being read.

    One belongs to one event loop and is not thread-safe.

    >>> async def passed():
    ...     turns, done = Turns(), []
    ...     async def one(name):
    ...         await turns.take()
    ...         done.append(name)
    ...     tasks = [asyncio.create_task(one(name)) for name in "abc"]
    ...     await asyncio.sleep(0)
    ...     first = "".join(done)
    ...     await asyncio.gather(*tasks)
    ...     return first, "".join(done)
    >>> asyncio.run(passed())
    ('a', 'abc')
    """

    def __init__(self, share: int = SHARE) -> None:
        self._share = share
        self._busy = False
        """Somebody passed in this turn of the loop."""
        self._line: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Go on, in this turn or a later one, first come first served."""
        if self._busy:
            future = asyncio.get_running_loop().create_future()
            self._line.append(future)
            await future
        else:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Another turn of the loop: those in front may go on."""
        passes = 0
        most = max(1, len(self._line) // self._share)
        while self._line and passes < most:
            future = self._line.popleft()
            if not future.done():  # else it was cancelled while it waited
                future.set_result(None)
                passes += 1
        self._busy = passes > 0
        if passes:
            asyncio.get_running_loop().call_soon(self._next)
