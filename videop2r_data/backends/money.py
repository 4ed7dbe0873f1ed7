"""The budget of a build: money is written ahead, and the limit is checked before a call goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from videop2r_data.backends.journal import Journal
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import BudgetError


class Money:
    """The budget of a build over all its runs, on top of what its journal says was spent.

    Args:
        journal: knows what finished calls cost and what lost ones may have cost.
        max_cost: US dollars for the whole build; None: no limit.
        share: how much of what is left this process may spend, when several work on one build at once.
    """

    def __init__(self, journal: Journal, max_cost: float | None, *, share: float = 1.0) -> None:
        self.journal = journal
        self.max_nusd = None if max_cost is None else round(max_cost * NANO)
        if self.max_nusd is not None and share < 1:
            spent = journal.spending.total_nusd
            self.max_nusd = spent + int(max(0, self.max_nusd - spent) * share)
        self._under_way = 0
        self._waiting: list[asyncio.Future[None]] = []

    def send(self, key: str, nusd: int) -> None:
        """Write ahead that a call of at most `nusd` goes out.

        Raises:
            BudgetError: it could pass the limit; nothing was written.
        """
        if nusd == 0:
            return
        spent = self.journal.spending.total_nusd
        if self.max_nusd is not None and spent + nusd > self.max_nusd:
            raise BudgetError(
                f"the next call may cost {nusd / NANO:.4f} USD; {spent / NANO:.4f} of "
                f"{self.max_nusd / NANO:.4f} USD are spent or committed",
                hint="raise --max-cost (or max_cost in the recipe) and run the same command: nothing is lost",
            )
        self.journal.put_sent(key, nusd=nusd)

    @asynccontextmanager
    async def call(self, key: str, nusd: int) -> AsyncIterator[None]:
        """Around one call of at most `nusd`, as `send`; waits while calls under way may leave room for it.

        Calls hold far more than they cost in the end. Without the wait, a limit that is small against what
        the calls under way hold together would end the run with most of the money unspent.

        Raises:
            BudgetError: it could pass the limit, and nothing is under way.
        """
        while True:
            try:
                self.send(key, nusd)
                break
            except BudgetError:
                if not self._under_way:
                    raise
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(ended)
            await ended
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            # who waits goes on after the answer is in the journal: both happen in this turn of the loop
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def void(self, key: str, nusd: int) -> None:
        """The call that was sent was certainly not billed."""
        if nusd:
            self.journal.put_void(key, nusd=nusd)
