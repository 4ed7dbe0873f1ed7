"""What became of a submission that was cut off between the intent and the batch id.

The server cannot be asked for a batch by its requests while it runs, so the answer is pieced together: a
batch of the same size, made in the life of the call, that no other event claims and whose results answer
these requests *is* the lost one, and is adopted. A request's id is the digest of its content, so that lines
which repeat one, or belong to nobody, change nothing. A batch that still runs might be it: the requests stay
pending. Only when the call is over for sure, the server has had time to list what it took, and no batch is
left that might be it, is the intent given up; before that, a batch is adopted whose results answer a part of
the requests (a damaged file): the others alone are asked again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from videop2r_data.backends.batch_events import (
    BatchGoneError,
    BatchLog,
    ShortResultsError,
    Ticket,
    abandoned,
    submitted,
    writer_alive,
    writer_id,
)
from videop2r_data.errors import TransientError
from videop2r_data.schemas.calls import BatchBackend, BatchInfo, BatchResult

SHORT_S = 600.0
"""Seconds for which the results of an ended batch must hold no more before what is missing counts as lost."""
_STRANGE = 100
"""Lines of a batch, none of which answers one of our requests, before it counts as another's."""
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
        self._answered: dict[tuple[str, str], int] = {}
        """How many requests of a ticket a batch answers, once that is known."""
        self._trouble: TransientError | None = None

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
        self._trouble = None
        for ticket in unsettled:
            candidates = [b for b in listing if b.batch_id not in claimed and self._could_be(b, ticket)]
            found = await self._own(candidates, ticket)
            if found is None and ticket.ticket in ripe and self._all_read(candidates, ticket):
                found = self._best(candidates, ticket)
            if found is not None:
                self._log.append_batch_event(submitted(ticket.ticket, found, adopted=True))
                ticket.status, ticket.batch_id = "submitted", found
                claimed.add(found)
            elif ticket.ticket in ripe and self._all_read(candidates, ticket):
                self._log.append_batch_event(abandoned(ticket.ticket, None, "the server has no such batch"))
                ticket.status = "abandoned"
        if self._trouble is not None:
            raise self._trouble

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

    def _all_read(self, candidates: list[BatchInfo], ticket: Ticket) -> bool:
        return all((ticket.ticket, b.batch_id) in self._answered for b in candidates)

    def _best(self, candidates: list[BatchInfo], ticket: Ticket) -> str | None:
        """The batch that answers most of these requests; None if none answers any."""
        found = max(candidates, key=lambda b: self._answered[ticket.ticket, b.batch_id], default=None)
        if found is None or not self._answered[ticket.ticket, found.batch_id]:
            return None
        return found.batch_id

    async def _own(self, candidates: list[BatchInfo], ticket: Ticket) -> str | None:
        """The candidate whose results answer all of these requests; a running one tells nothing yet."""
        for batch in candidates:
            pair = (ticket.ticket, batch.batch_id)
            if batch.state != "ended" or pair in self._answered:
                continue
            try:
                answered = await self._answers(batch.batch_id, ticket)
            except TransientError as error:
                self._trouble = error  # this batch may be another's: it must not keep the others waiting
                continue
            if answered == len(ticket.keys):
                return batch.batch_id
            self._answered[pair] = answered
        return None

    async def _answers(self, batch_id: str, ticket: Ticket) -> int:
        """How many of the ticket's requests the results answer.

        Raises:
            TransientError: they cannot be read now.
        """
        left = set(ticket.keys)
        strange = 0
        try:
            async with results_of(self._backend, batch_id) as results:
                async for result in results:
                    left.discard(result.key)
                    strange += len(left) == len(ticket.keys)
                    if strange == _STRANGE:
                        break  # somebody else's, and it may be large
        except BatchGoneError:
            return 0  # its results are gone for good, so adopting it would answer nothing
        except ShortResultsError:
            # cut off on the way, and to be read again; or so at the server, for good
            if self._clock() < ticket.deadline_at + self._skew_s + SHORT_S:
                raise
        return len(ticket.keys) - len(left)
