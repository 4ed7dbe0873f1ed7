"""Calls that go out in batches: asked now, answered hours later, perhaps to another machine."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from videop2r_data.backends.batches import BatchRunner
from videop2r_data.backends.breaker import Breaker
from videop2r_data.backends.caller import Answer, Loader, keep, read_answer, valid
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.money import Money, reserve_usd
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import BackendError, StoppedError, TransientError
from videop2r_data.schemas import BatchBackend, BatchResult, Price, Request

CHUNK = 10_000
"""Requests gathered before a batch goes out."""
MAX_ROUNDS = 4
"""Batches that may end without an answer to a request before its row is given up for this run."""


class Stops(Protocol):
    """Whether to stop early."""

    asked: bool


class BatchCaller:
    """Answers from the journal; what it does not hold is gathered for the next batch.

    Args:
        backend: the batch API.
        journal: finished calls and the life of every batch.
        money: the budget, shared by the callers of a build.
        price: US dollars per million tokens, before the factor for batches.
        poll_s: seconds between the first two looks at the server; later ones are further apart.
        max_poll_s: seconds between two looks at most.
        breaker: stops the run when the answers cannot be used.
    """

    def __init__(
        self,
        backend: BatchBackend,
        *,
        journal: Journal,
        money: Money,
        price: Price | None,
        poll_s: float = 15.0,
        max_poll_s: float = 300.0,
        breaker: Breaker | None = None,
    ) -> None:
        self.journal = journal
        self.money = money
        self.price = price
        self.made = 0
        """Calls finished in this run."""
        self.found = 0
        """Calls answered from the journal."""
        self._breaker = breaker or Breaker("the judge server")
        self._stopped = asyncio.Event()
        self._runner = BatchRunner(backend, journal, sleep=self._rest)
        self._pending = self._runner.pending_keys()
        self._queue: dict[str, Request] = {}
        self._reserved: dict[str, int] = {}
        self._lost: Counter[str] = Counter()
        self._poll = (poll_s, max_poll_s)
        self._backend = backend

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer from the journal, or None: it is in a batch, or will be in the next.

        Raises:
            TransientError: batch after batch ended without an answer.
            BudgetError: the next batch could pass the limit.
        """
        assert frames is None, "batches carry text only"
        key = request.key
        known = self.journal.call(key)
        if known is not None:
            self.found += 1
            return read_answer(known)
        if self._lost[key] >= MAX_ROUNDS:
            raise TransientError(f"{MAX_ROUNDS} batches ended without an answer")
        if key not in self._pending:
            self._queue.setdefault(key, request)
            if len(self._queue) >= CHUNK:
                await self.flush()
        return None

    async def flush(self) -> None:
        """Hand over what was gathered.

        Raises:
            BudgetError: the rest could pass the limit; what fits was handed over first.
        """
        queue, self._queue = self._queue, {}
        try:
            if queue:
                await self._hand_over(queue)
        finally:
            self.money.rest()

    async def _hand_over(self, queue: dict[str, Request]) -> None:
        wanted = list(queue.values())
        try:
            await self._runner.submit(wanted, answered=self.journal.has_call, admit=self._reserve)
        except BackendError:
            self._pending = self._runner.pending_keys()
            for key in queue.keys() - self._pending:
                if not self.journal.has_call(key):
                    self.money.void(key, self._reserved.pop(key, 0))
            raise
        # what another share submitted is pending too: its money, our answer
        self._pending = self._runner.pending_keys()

    async def collect(self, *, wait: bool, stop: Stops, tell: Callable[[str], None]) -> bool:
        """Take in what has come back.

        Args:
            wait: go on until nothing is outstanding.
            stop: ends the wait early.
            tell: is told what is waited for.

        Returns:
            Whether nothing is outstanding any more: another pass can go on.
        """
        pause, longest = self._poll
        while not stop.asked:
            now = await self._runner.collect_ready(self._take)
            self._breaker.check()
            if now.done:
                self._pending = self._runner.pending_keys()
                return True
            if not wait:
                return False
            trouble = f" ({'; '.join(now.trouble)})" if now.trouble else ""
            tell(f"{now.open_requests:,} requests in {len(now.open_batches)} batches{trouble}")
            try:
                await self._rest(pause)
            except StoppedError:
                return False
            pause = min(pause * 1.5, longest)
        return False

    def stop(self) -> None:
        """End every wait; what is at the server stays there."""
        self._stopped.set()

    async def _rest(self, seconds: float) -> None:
        """Wait so long.

        Raises:
            StoppedError: the run was asked to stop.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        if self._stopped.is_set():
            raise StoppedError("asked to stop while batches were waited for")

    async def close(self) -> None:
        """Close the client; nothing at the server changes."""
        close = getattr(self._backend, "close", None)
        if close is not None:
            await close()

    def _reserve(self, request: Request) -> None:
        """Write ahead what a request may cost; once, however often its batch is tried."""
        if self.price is None or request.key in self._reserved:
            return
        nusd = round(reserve_usd(request, self.price, batched=True) * NANO)
        self.money.send(request.key, nusd)
        self._reserved[request.key] = nusd

    def _take(self, result: BatchResult) -> None:
        """Journal one result; a second result of one key is the same answer and changes nothing."""
        if self.journal.has_call(result.key):
            return
        if result.completion is not None:
            completion = keep(self.journal, result.key, result.completion, self.price)
            self._breaker.answered(completion)
            self.made += 1
        elif isinstance(result.error, TransientError):
            # expired or cancelled requests are not billed; the next pass asks again
            self._lost[result.key] += 1
            reserved = self._reserved.pop(result.key, 0)
            if not result.error.maybe_billed:
                self.journal.put_void(result.key, nusd=reserved)
            self._pending.discard(result.key)
        else:
            words = valid(str(result.error))
            self.journal.put_refused(result.key, words)
            self._breaker.failed("refused", words)
            self.made += 1
