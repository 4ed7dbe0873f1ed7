"""The durable life of batches: submitted, power off, collected on another machine, never submitted twice.

Every step is an event in a log that outlives the process (`batch_log.BatchLog`). The intent to submit is
durable before the call, the batch id right after it; what was cut off between the two is settled from the
server's own listing.

One process at a time submits or settles, by the lock of the log. A build has its work folder to itself (its
lease, docs/decisions/002-lease.md); only the shares of one pool work over one log together, and two of them
may have the same question for a judge. The lock is held from the look at what is open to the batch id, so no
share decides on what another one is about to hand over; and whoever holds it knows that every call that an
intent without an id stands for is over: its process said so, or is dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from videop2r_data.backends.batch_log import (
    BatchGoneError,
    BatchLog,
    BatchProgress,
    NotAcceptedError,
    ShortResultsError,
    Ticket,
    abandoned,
    fold,
    open_keys,
    progress_of,
    short_since,
    split,
    submitted,
    submitting,
)
from videop2r_data.errors import AuthError, BudgetError, RefusedError, TransientError
from videop2r_data.schemas import BatchBackend, BatchInfo, BatchResult, Request

SHORT_S = 600.0
"""Seconds for which the results of an ended batch must hold no more before what is missing counts as lost."""
_STRANGE = 100
"""Lines of a batch, none of which answers one of our requests, before it counts as another's."""
_TRIES = 6
_LOCK_LOOK_S = 1.0
"""Seconds between two looks at the lock that another share holds."""


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


class BatchRunner:
    """Submits, finds again and collects batches for one build.

    Args:
        backend: the server.
        log: the durable events.
        max_requests: requests in one batch at most.
        max_bytes: bytes in one batch at most, as `request_bytes` estimates them.
        submit_deadline_s: seconds that handing over one batch may take.
        settle_s: seconds that the server may take to list a batch whose submission was cut off.
        skew_s: seconds that two clocks may differ.
        clock: Unix seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        backend: BatchBackend,
        log: BatchLog,
        *,
        max_requests: int = 10_000,
        max_bytes: int = 200 * 10**6,
        submit_deadline_s: float = 600.0,
        settle_s: float = 120.0,
        skew_s: float = 300.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._backend, self._log = backend, log
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._deadline_s, self._clock, self._sleep = submit_deadline_s, clock, sleep
        self._settler = Settler(backend, log, settle_s=settle_s, skew_s=skew_s, clock=clock)
        self._handled: dict[str, set[str]] = {}
        """Batch id -> keys whose results were handed over, of a download that was cut off."""

    def _tickets(self) -> dict[str, Ticket]:
        return fold(self._log.batch_events())

    def pending_keys(self) -> set[str]:
        """Keys of all requests that are, or may be, at the server; any process may ask, also after a restart.

        Raises:
            JournalError: an event is damaged.
        """
        return open_keys(self._tickets())

    # submit

    async def submit(
        self,
        requests: Sequence[Request],
        *,
        answered: Callable[[str], bool] = lambda _key: False,
        admit: Callable[[Request], None] = lambda _request: None,
    ) -> list[str]:
        """Hand over those requests that no open batch holds; returns the ids of the new batches.

        A batch whose submission was cut off has no id yet and is not among them: its requests stay pending
        until `collect_ready` has settled what became of it. What is neither answered nor in `pending_keys`
        after `collect_ready` says that all is done is to be submitted again.

        Args:
            requests: what is wanted; keys may repeat.
            answered: whether the journal holds an answer to a key *now*; needed where several shares have one
                journal, since another one may have collected a batch after `requests` was put together.
            admit: called for each request before it goes out, again if the server did not accept its batch; a
                BudgetError ends the submission.

        Raises:
            BudgetError: of `admit`; what was admitted before was handed over.
            NotAcceptedError: the server did not take a batch at any of six tries; earlier ones stand.
            RefusedError, AuthError: see `errors`; earlier batches stand.
            JournalError: the log cannot be read or written.
        """
        wanted = {r.key: r for r in requests}
        known = self.pending_keys()
        left = [r for key, r in wanted.items() if key not in known and not answered(key)]
        batch_ids = list[str]()
        for chunk in split(left, max_requests=self._max_requests, max_bytes=self._max_bytes):
            batch_id, over = await self._submit_chunk(chunk, answered, admit)
            if batch_id is not None:
                batch_ids.append(batch_id)
            if over is not None:
                raise over
        return batch_ids

    async def _submit_chunk(
        self, chunk: list[Request], answered: Callable[[str], bool], admit: Callable[[Request], None]
    ) -> tuple[str | None, BudgetError | None]:
        """The id of the new batch, if there is one, and why the budget let no more requests in."""
        pause = 2.0
        for attempt in range(_TRIES):
            try:
                async with self._alone():
                    # open batches first, answers second: what leaves the one has entered the other before
                    known = self.pending_keys()
                    free = [r for r in chunk if r.key not in known and not answered(r.key)]
                    going, over = _admitted(free, admit)
                    return await self._hand_over(going) if going else None, over
            except NotAcceptedError as error:
                if attempt == _TRIES - 1:
                    raise
                await self._sleep(max(pause, error.retry_after_s or 0.0))
                pause *= 2
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else submits or settles inside the block."""
        while (lock := self._log.lock_batches()) is None:
            await self._sleep(_LOCK_LOOK_S)
        try:
            yield
        finally:
            lock.release()

    async def _hand_over(self, going: list[Request]) -> str | None:
        """One intent and one call; None: cut off, with an unknown outcome."""
        event = submitting([r.key for r in going], at=self._clock(), deadline_s=self._deadline_s)
        ticket: str = event["ticket"]
        self._log.append_batch_event(event)
        try:
            async with asyncio.timeout(self._deadline_s):
                batch_id = await self._backend.submit(going)
        except (NotAcceptedError, RefusedError, AuthError) as error:
            self._log.append_batch_event(abandoned(ticket, None, str(error)))
            raise
        except (TransientError, TimeoutError) as error:
            self._lose(ticket, str(error) or "no answer in time")
            return None
        except asyncio.CancelledError:
            self._lose(ticket, "cancelled")
            raise
        self._log.append_batch_event(submitted(ticket, batch_id, adopted=False))
        return batch_id

    def _lose(self, ticket: str, why: str) -> None:
        self._log.append_batch_event({"event": "lost", "ticket": ticket, "at": self._clock(), "why": why})

    def abandon(self, batch_id: str, *, why: str) -> int:
        """Give a batch up by hand, say one that was deleted; returns how many requests are free again.

        Raises:
            RefusedError: no open batch has this id.
        """
        for ticket in self._tickets().values():
            if ticket.open and ticket.batch_id == batch_id:
                self._log.append_batch_event(abandoned(ticket.ticket, batch_id, why))
                return len(ticket.keys)
        raise RefusedError(f"no open batch has the id {batch_id!r}")

    # collect

    async def collect_ready(self, on_result: Callable[[BatchResult], None]) -> BatchProgress:
        """One round: settle what was cut off, then hand over the results of every batch that has ended.

        Args:
            on_result: called once per request and process; it must put the result in the journal before it
                returns. A download that was cut off starts again, maybe in a new process, so the journal must
                take a second result of one key as the same.

        Raises:
            BatchGoneError: a batch is no longer on the server; raised when all others have had their turn.
            AuthError: no call can succeed.
            JournalError: the log cannot be read or written.
        """
        trouble = list[str]()
        tickets = await self._settle(trouble)
        answered, collected, gone = 0, list[str](), list[str]()
        for ticket in [t for t in tickets.values() if t.status == "submitted" and t.batch_id]:
            try:
                count = await self._collect(ticket, on_result)
            except BatchGoneError as error:
                gone.append(str(error))
            except TransientError as error:
                trouble.append(f"batch {ticket.batch_id}: {error}")
            else:
                if count is not None:
                    answered += count
                    collected.append(ticket.batch_id or "")
                    ticket.status = "collected"
        if gone:
            hint = "if it is really gone: p2r-data build RECIPE --abandon-batch ID"
            raise BatchGoneError("\n".join(gone), hint=hint)
        return progress_of(tickets, answered, collected, trouble)

    async def _settle(self, trouble: list[str]) -> dict[str, Ticket]:
        """The tickets, with those settled whose outcome is unknown, as far as that can be told now."""
        tickets = self._tickets()
        if not any(ticket.unsettled for ticket in tickets.values()):
            return tickets
        lock = self._log.lock_batches()
        if lock is None:  # one of them may be the call that another share is making
            return tickets
        try:
            tickets = self._tickets()  # as they are under the lock
            await self._settler.settle(tickets)
        except TransientError as error:
            trouble.append(f"cannot settle a cut-off submission yet: {error}")
        finally:
            lock.release()
        return tickets

    async def _collect(self, ticket: Ticket, on_result: Callable[[BatchResult], None]) -> int | None:
        """Results handed over, or None if the batch has not ended."""
        batch_id = ticket.batch_id or ""
        if (await self._backend.poll(batch_id)).state != "ended":
            return None
        handled = self._handled.setdefault(batch_id, set())
        wanted = set(ticket.keys)
        failed: dict[str, BatchResult] = {}
        try:
            async with results_of(self._backend, batch_id) as results:
                async for result in results:
                    if result.key not in wanted or result.key in handled:
                        continue
                    if result.completion is None:
                        # handed over last: another line may have the answer, and a repeated line is harmless
                        failed.setdefault(result.key, result)
                    else:
                        on_result(result)
                        handled.add(result.key)
        except ShortResultsError:
            if not self._stays_short(ticket, len(handled.union(failed))):
                raise
        for key in sorted(wanted - handled):
            # nobody knows what became of a request that has no line: it may have been billed
            lost = TransientError(f"batch {batch_id} ended without an answer", maybe_billed=True)
            on_result(failed.get(key) or BatchResult(key, None, lost))
        self._log.append_batch_event(
            {
                "event": "collected",
                "ticket": ticket.ticket,
                "batch_id": batch_id,
                "answered": len(handled.union(failed)),
            }
        )
        del self._handled[batch_id]
        return len(wanted)

    def _stays_short(self, ticket: Ticket, answered: int) -> bool:
        """Whether the results have held no more than this for so long that no more will come."""
        now = self._clock()
        since = short_since(self._log.batch_events(), ticket.ticket, answered)
        if since is None:
            event = {"event": "short", "ticket": ticket.ticket, "batch_id": ticket.batch_id}
            self._log.append_batch_event({**event, "answered": answered, "at": now})
            return False
        return now >= since + SHORT_S


def _admitted(
    free: list[Request], admit: Callable[[Request], None]
) -> tuple[list[Request], BudgetError | None]:
    for count, request in enumerate(free):
        try:
            admit(request)
        except BudgetError as error:
            return free[:count], error
    return free, None


# What became of a submission that was cut off between the intent and the batch id.
#
# The server cannot be asked for a batch by its requests while it runs, so the answer is pieced together: a
# batch of the same size, made in the life of the call, that no other event claims and whose results answer
# these requests *is* the lost one, and is adopted. A request's id is the digest of its content, so that lines
# which repeat one, or belong to nobody, change nothing. A batch that still runs might be it: the requests
# stay pending. Only when the server has had time to list what it took, and no batch is left that might be it,
# is the intent given up; before that, a batch is adopted whose results answer a part of the requests (a
# damaged file): the others alone are asked again.


class Settler:
    """Adopts or gives up intents whose outcome is unknown; used under the lock of the log.

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
        unsettled = [t for t in tickets.values() if t.unsettled]
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
        # Counted from when this process first saw it, since the writer's clock may be another.
        now = self._clock()
        return now >= self._over_since.setdefault(ticket.ticket, now) + self._settle_s

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
