"""The budget of a build: money is written ahead, and the limit is checked before a call goes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from videop2r_data.backends.journal import Journal
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import BudgetError, StoppedError

LOOK_AGAIN_S = 0.5
"""Seconds between two looks at what other processes have given back."""
PATIENCE_S = 60.0
"""Seconds to wait for money that other processes hold and may not need."""


class Money:
    """The budget of a build over all its runs and processes, on top of what its journal says was spent.

    Args:
        journal: knows what finished calls cost and what lost ones may have cost.
        max_cost: US dollars for the whole build; None: no limit.
    """

    def __init__(self, journal: Journal, max_cost: float | None) -> None:
        self.journal = journal
        self.max_nusd = None if max_cost is None else round(max_cost * NANO)
        self._under_way = 0
        self._looking = False
        self._held_elsewhere = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._stopped = False
        journal.allowance.begin()

    def send(self, key: str, nusd: int) -> None:
        """Write ahead that a call of at most `nusd` goes out.

        Raises:
            BudgetError: it could pass the limit; nothing was written.
            JournalError: the journal cannot be written, or other processes cannot be agreed with.
        """
        if nusd == 0:
            return
        refused = self.journal.allowance.take(nusd, self.max_nusd)
        if refused is not None:
            assert self.max_nusd is not None  # without a limit nothing is refused
            self._held_elsewhere = refused.elsewhere_nusd
            elsewhere = refused.elsewhere_nusd / NANO
            others = f", {elsewhere:.4f} of them held by other processes" if elsewhere else ""
            raise BudgetError(
                f"the next call may cost {nusd / NANO:.4f} USD; {refused.taken_nusd / NANO:.4f} of "
                f"{self.max_nusd / NANO:.4f} USD are spent or committed{others}",
                hint="raise --max-cost (or max_cost in the recipe) and run the same command: nothing is lost",
            )
        self.journal.put_sent(key, nusd=nusd)

    @asynccontextmanager
    async def call(self, key: str, nusd: int) -> AsyncIterator[None]:
        """Around one call of at most `nusd`, as `send`; waits while calls under way may leave room for it.

        Calls hold far more than they cost in the end. Without the wait, a limit that is small against what
        the calls under way hold together would end the run with most of the money unspent. Calls of other
        processes are waited for too, for `PATIENCE_S` at most.

        Raises:
            BudgetError: it could pass the limit, and nothing is under way.
            StoppedError: the run was asked to stop.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self._stopped:
                raise StoppedError("asked to stop while a call waited for money")
            try:
                self.send(key, nusd)
                break
            except BudgetError:
                if self._under_way or self._looking:
                    await self._next_end()
                elif self._held_elsewhere and time.monotonic() < deadline:
                    await self._look_again()
                else:
                    raise
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            # who waits goes on after the answer is in the journal: both happen in this turn of the loop
            self._wake()

    async def _next_end(self) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        await ended

    async def _look_again(self) -> None:
        """One waits for what other processes give back, and wakes all."""
        self._looking = True
        try:
            await asyncio.sleep(LOOK_AGAIN_S)
        finally:
            self._looking = False
            self._wake()

    def stop(self) -> None:
        """Let no further call go out; those under way go on."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def rest(self) -> None:
        """No call is about to go out: other processes may have what this one does not use."""
        if not self._under_way:
            self.journal.allowance.give_back()

    def void(self, key: str, nusd: int) -> None:
        """The call that was sent was certainly not billed."""
        if nusd:
            self.journal.put_void(key, nusd=nusd)
