"""Decoded frames in memory: each file once, for as long as a question needs it, within a budget of bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from videop2r_data.errors import StoppedError
from videop2r_data.schemas.calls import Frames

RECENT_FRAMES = 32
"""Frame sets that nobody needs any more but that stay, for the next question about their file."""


@dataclass(slots=True, eq=False)
class _Entry:
    """One file's frames, on their way or there."""

    task: asyncio.Task[Frames]
    holders: int = 0
    size: int | None = None
    """Bytes that the frames take; None until they are there."""


class FrameStore:
    """Shares frame sets between the questions that hold them, and starts no decode that has no room.

    A question that holds frames waits for its call, never for room, so that the room is always given back. A
    decode that would not fit even into an empty store is started when the store is empty. Room is handed out
    first come, first served: decoding keeps to the order of the pool.

    Args:
        budget: bytes of all frame sets that are held or on their way.
        recent: sets without a holder that are kept while there is room.
    """

    def __init__(self, budget: int, *, recent: int = RECENT_FRAMES) -> None:
        self.budget = budget
        self.used = 0
        """Bytes held, and reserved for what is being decoded."""
        self._recent_limit = recent
        self._entries: dict[str, _Entry] = {}
        self._recent: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._stopped = False

    async def take(self, key: str, reserve: int, decode: Callable[[], Awaitable[Frames]]) -> Frames:
        """The frames of `key`, decoded unless they are there; hand them back with `release`, exactly once.

        Args:
            key: of the file.
            reserve: bytes that the frames will take, as far as that is known before.
            decode: makes them.

        Raises:
            Exception: what `decode` raised, to everyone who waits for it; nothing is held then.
            StoppedError: the run was asked to stop before the frames were there.
        """
        if self._stopped:
            raise StoppedError("asked to stop before a file was decoded")
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.ensure_future(self._make(reserve, decode)))
            entry.task.add_done_callback(lambda _: self._ended(key, entry))
        entry.holders += 1
        self._recent.pop(key, None)
        try:
            return await asyncio.shield(entry.task)
        except BaseException as error:
            self._let_go(key, entry)
            if isinstance(error, asyncio.CancelledError) and entry.task.cancelled() and self._was_stopped():
                raise StoppedError("asked to stop while a file was decoded") from None
            raise

    def _was_stopped(self) -> bool:
        return self._stopped

    def stop(self) -> None:
        """Begin no further decode and give up those under way; frames that are there stay."""
        self._stopped = True
        for entry in self._entries.values():
            entry.task.cancel()

    def release(self, key: str) -> None:
        """The frames of `key` are needed once less."""
        entry = self._entries.get(key)
        if entry is not None:  # closed before
            self._let_go(key, entry)

    async def close(self) -> None:
        """Cancel what is under way and drop what is held."""
        tasks = [entry.task for entry in self._entries.values() if not entry.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        self._recent.clear()

    async def _make(self, reserve: int, decode: Callable[[], Awaitable[Frames]]) -> Frames:
        await self._room(reserve)
        try:
            frames = await decode()
        except BaseException:
            self.used -= reserve
            raise
        self.used += frames.nbytes - reserve
        return frames

    def _ended(self, key: str, entry: _Entry) -> None:
        """A decode is over; runs before anyone who waits for it."""
        if entry.task.cancelled() or entry.task.exception() is not None:
            # who waits is told; who comes later tries anew
            if self._entries.get(key) is entry:
                del self._entries[key]
        else:
            entry.size = entry.task.result().nbytes
            if not entry.holders:
                self._rest(key, entry)
        self._wake()

    def _let_go(self, key: str, entry: _Entry) -> None:
        entry.holders -= 1
        if not entry.holders and entry.size is not None and self._entries.get(key) is entry:
            self._rest(key, entry)
            self._wake()

    def _rest(self, key: str, entry: _Entry) -> None:
        """Nobody needs it now: keep it for the next question about the file, or drop what is older."""
        self._recent[key] = entry
        while len(self._recent) > self._recent_limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        key, entry = self._recent.popitem(last=False)
        del self._entries[key]
        self.used -= entry.size or 0

    async def _room(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.used -= size
            self._wake()
            raise

    def _fits(self, size: int) -> bool:
        while self._recent and self.used + size > self.budget:
            self._drop_oldest()
        return self.used == 0 or self.used + size <= self.budget

    def _wake(self) -> None:
        while self._waiting:
            size, future = self._waiting[0]
            if not future.done():
                if not self._fits(size):
                    return
                self.used += size
                future.set_result(None)
            self._waiting.popleft()
