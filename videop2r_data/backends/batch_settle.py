"""What became of a submission that was cut off between the intent and the batch id.

The server cannot be asked for a batch by its requests while it runs, so the answer is pieced together: a
batch of the same size, made in the life of the call, that no other event claims and whose results answer
exactly these requests *is* the lost one, and is adopted. A batch that still runs might be it: the requests
stay pending. Only when the call is over for sure, the server has had time to list what it took, and no batch
is left that might be it, is the intent given up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from videop2r_data.backends.batch_events import (
    BatchGoneError,
    BatchLog,
    Ticket,
    abandoned,
    submitted,
    writer_alive,
    writer_id,
)
from videop2r_data.schemas.calls import BatchBackend, BatchInfo, BatchResult

IN_FLIGHT: set[str] = set()
"""Tickets whose call this very process is making, by whichever of its runners."""


@asynccontextmanager
async def results_of(backend: BatchBackend, batch_id: str) -> AsyncIterator[AsyncIterator[BatchResult]]:
    """The results of a batch; their connection is closed however the block is left."""
    results = backend.collect(batch_id)
    try:
        yield results
    finally:
        close = getattr(results, "aclose", None)
        if close is not None:
            await close()


class Settler:
    """Adopts or gives up intents whose outcome is unknown.

    Args:
        backend: the server.
        log: the durable events.
        settle_s: seconds that the server may take to list a batch after the call that made it was over.
        skew_s: seconds that two clocks may differ.
        clock: Unix seconds.
    """

    def __init__(
        self,
        backend: BatchBackend,
        log: BatchLog,
        *,
        settle_s: float,
        skew_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._backend, self._log = backend, log
        self._settle_s, self._skew_s, self._clock = settle_s, skew_s, clock
        self._over_since: dict[str, float] = {}
        self._foreign: set[tuple[str, str]] = set()

    async def settle(self, tickets: dict[str, Ticket]) -> None:
        """Settle what can be told now; writes events and changes `tickets` accordingly.

        Args:
            tickets: the state of the log.

        Raises:
            TransientError: the server could not be asked; nothing is lost, ask again.
            AuthError: no call can succeed.
        """
        unsettled = [t for t in tickets.values() if t.unsettled and t.ticket not in IN_FLIGHT]
        if not unsettled:
            return
        # Judged before the listing is asked for: what was over by then cannot appear in it later.
        ripe = {t.ticket for t in unsettled if self._ripe(t)}
        oldest = min(t.at for t in unsettled)
        listing = await self._backend.listing(created_after_s=oldest - self._skew_s)
        claimed = {t.batch_id for t in tickets.values() if t.batch_id}
        for ticket in unsettled:
            candidates = [b for b in listing if b.batch_id not in claimed and self._could_be(b, ticket)]
            found = await self._own(candidates, ticket)
            if found is not None:
                self._log.append_batch_event(submitted(ticket.ticket, found, adopted=True))
                ticket.status, ticket.batch_id = "submitted", found
                claimed.add(found)
            elif ticket.ticket in ripe and self._all_foreign(candidates, ticket):
                self._log.append_batch_event(abandoned(ticket.ticket, None, "the server has no such batch"))
                ticket.status = "abandoned"

    def _ripe(self, ticket: Ticket) -> bool:
        """Whether the call has been over for long enough that the listing is the whole truth."""
        if not self._call_over(ticket):
            return False
        # Counted from when this process first saw it, since the writer's clock may be another.
        now = self._clock()
        return now >= self._over_since.setdefault(ticket.ticket, now) + self._settle_s

    def _call_over(self, ticket: Ticket) -> bool:
        if ticket.status == "lost" or ticket.writer == writer_id():
            return True  # its writer said so, or it is this process, which has no such call in flight
        alive = writer_alive(ticket.writer)
        if alive is None:  # another machine: only time tells
            return self._clock() > ticket.deadline_at + self._skew_s
        return not alive

    def _could_be(self, batch: BatchInfo, ticket: Ticket) -> bool:
        earliest, latest = ticket.at - self._skew_s, ticket.deadline_at + self._skew_s
        return batch.total == len(ticket.keys) and earliest <= batch.created_at_s <= latest

    def _all_foreign(self, candidates: list[BatchInfo], ticket: Ticket) -> bool:
        return all((ticket.ticket, b.batch_id) in self._foreign for b in candidates)

    async def _own(self, candidates: list[BatchInfo], ticket: Ticket) -> str | None:
        """The candidate whose results answer exactly these requests; a running one tells nothing yet."""
        for batch in candidates:
            pair = (ticket.ticket, batch.batch_id)
            if batch.state != "ended" or pair in self._foreign:
                continue
            if await self._answers(batch.batch_id, ticket.keys):
                return batch.batch_id
            self._foreign.add(pair)
        return None

    async def _answers(self, batch_id: str, keys: Collection[str]) -> bool:
        left = set(keys)
        try:
            async with results_of(self._backend, batch_id) as results:
                async for result in results:
                    if result.key not in left:
                        return False
                    left.discard(result.key)
        except BatchGoneError:
            return False  # its results are gone for good, so adopting it would answer nothing
        return not left
