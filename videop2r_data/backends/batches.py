"""Calls in batches: submitted, power off, collected on another machine, never submitted twice.

Every step is an event in a log that outlives the process (`batch_log.BatchLog`). The intent to submit is
durable before the call, the batch id right after it; what was cut off in between is settled from the server's
own listing (`batch_log.Settler`).

One process at a time submits, settles or collects, by the lock of the log. Only the shares of one pool work
over one log together (docs/decisions/002-lease.md), and two of them may have the same question for a judge.
The lock is held from the look at what is open until the batch id is on disk, so no share decides on what
another one is handing over. Whoever holds it knows that the call behind each intent without an id is over:
its process said so, or is dead.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import KW_ONLY, dataclass, replace

from videop2r_data.backends.batch_log import (
    SHORT_S,
    BatchGoneError,
    BatchLog,
    BatchProgress,
    NotAcceptedError,
    NotRunError,
    Settler,
    ShortResultsError,
    Ticket,
    abandoned,
    admitted,
    collected,
    fold,
    open_keys,
    request_bytes,
    short_since,
    split,
    submitted,
    submitting,
)
from videop2r_data.backends.breaker import Breaker
from videop2r_data.backends.caller import Answer, Loader, keep, read_answer, valid
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.money import Money, reserve_usd
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import (
    AuthError,
    BackendError,
    BudgetError,
    RefusedError,
    StoppedError,
    TransientError,
)
from videop2r_data.schemas import BatchBackend, BatchResult, Price, Request

_TRIES = 6
_LOCK_LOOK_S = 1.0
"""Seconds between two looks at the lock that another share holds."""
MAX_WAIT_S = 3600.0
"""No server is waited for longer when a batch is handed over, whatever it asks for."""


@dataclass(eq=False)
class BatchRunner:
    """Submits, finds again and collects batches for one build.

    Attributes:
        backend: the server.
        log: the durable events.
        max_requests, max_bytes: requests and bytes in one batch at most; `request_bytes` estimates them.
        scope: of the log, whose batches these are.
        submit_deadline_s: seconds that handing over one batch may take.
        settle_s: seconds that the server may take to list a batch whose submission was cut off.
        skew_s: seconds that two clocks may differ.
        clock, sleep: Unix seconds, and what waits for so many.
        free: told the keys of a submission that the server certainly did not take.
    """

    backend: BatchBackend
    log: BatchLog
    _: KW_ONLY
    max_requests: int = 10_000
    max_bytes: int = 200 * 10**6
    scope: str = ""
    submit_deadline_s: float = 600.0
    settle_s: float = 120.0
    skew_s: float = 300.0
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    free: Callable[[str], None] = lambda _key: None

    def __post_init__(self) -> None:
        self._settler = Settler(self.backend, self.log, self.settle_s, self.skew_s, self.clock, self.free)
        self._handled: dict[str, set[str]] = {}
        """Batch id -> keys whose results were handed over, of a download that was cut off."""

    def _tickets(self) -> dict[str, Ticket]:
        tickets = fold(self.log.batch_events())
        return {name: ticket for name, ticket in tickets.items() if ticket.scope == self.scope}

    def pending_keys(self) -> set[str]:
        """Keys of all requests that are, or may be, at the server, whoever handed them over."""
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

        A batch whose submission was cut off has no id yet: its requests are pending until `collect_ready` has
        settled what became of it. What is neither answered nor pending at last is to be submitted again.

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
        """
        wanted = {r.key: r for r in requests}
        known = self.pending_keys()
        left = [r for key, r in wanted.items() if key not in known and not answered(key)]
        batch_ids = list[str]()
        for chunk in split(left, max_requests=self.max_requests, max_bytes=self.max_bytes):
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
                    going, over = admitted(free, admit)
                    return await self._hand_over(going) if going else None, over
            except NotAcceptedError as error:
                if attempt == _TRIES - 1:
                    raise
                await self.sleep(max(pause, min(error.retry_after_s or 0.0, MAX_WAIT_S)))
                pause *= 2
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody else submits or settles inside the block."""
        while (lock := self.log.lock_batches()) is None:
            await self.sleep(_LOCK_LOOK_S)
        try:
            yield
        finally:
            lock.release()

    async def _hand_over(self, going: list[Request]) -> str | None:
        """One intent and one call; None: cut off, with an unknown outcome."""
        keys = [r.key for r in going]
        event = submitting(keys, at=self.clock(), deadline_s=self.submit_deadline_s, scope=self.scope)
        ticket: str = event["ticket"]
        self.log.append_batch_event(event)
        try:
            async with asyncio.timeout(self.submit_deadline_s):
                batch_id = await self.backend.submit(going)
        except (NotAcceptedError, RefusedError, AuthError) as error:
            self.log.append_batch_event(abandoned(ticket, None, str(error)))
            raise
        except (TransientError, TimeoutError) as error:
            self._lose(ticket, str(error) or "no answer in time")
            return None
        except asyncio.CancelledError:
            self._lose(ticket, "cancelled")
            raise
        self.log.append_batch_event(submitted(ticket, batch_id, adopted=False))
        return batch_id

    def _lose(self, ticket: str, why: str) -> None:
        self.log.append_batch_event({"event": "lost", "ticket": ticket, "at": self.clock(), "why": why})

    def abandon(self, batch_id: str, *, why: str) -> int:
        """Give a batch up by hand, say one that was deleted; returns how many requests are free again.

        Raises:
            RefusedError: no open batch has this id.
        """
        for ticket in self._tickets().values():
            if ticket.open and ticket.batch_id == batch_id:
                self.log.append_batch_event(abandoned(ticket.ticket, batch_id, why))
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
        """
        trouble = list[str]()
        tickets = await self._settle(trouble)
        gone = list[str]()
        for ticket in [t for t in tickets.values() if t.status == "submitted" and t.batch_id]:
            try:
                if await self._collect(ticket, on_result):
                    ticket.status = "collected"
            except BatchGoneError as error:
                gone.append(str(error))
            except TransientError as error:
                trouble.append(f"batch {ticket.batch_id}: {error}")
        if gone:
            hint = "if it is really gone: p2r-data build RECIPE --abandon-batch ID"
            raise BatchGoneError("\n".join(gone), hint=hint)
        still = [t for t in tickets.values() if t.open]
        return BatchProgress(
            open_batches=tuple(t.batch_id for t in still if t.batch_id is not None),
            unsettled=sum(t.unsettled for t in still),
            open_requests=len(open_keys(tickets)),
            trouble=tuple(trouble),
        )

    async def _settle(self, trouble: list[str]) -> dict[str, Ticket]:
        """The tickets, with those settled whose outcome is unknown, as far as that can be told now."""
        tickets = self._tickets()
        if not any(ticket.unsettled for ticket in tickets.values()):
            return tickets
        lock = self.log.lock_batches()
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

    async def _collect(self, ticket: Ticket, on_result: Callable[[BatchResult], None]) -> bool:
        """Hand the results of a batch over; False: it has not ended, or another share is at work."""
        batch_id = ticket.batch_id or ""
        if (await self.backend.poll(batch_id)).state != "ended" or (lock := self.log.lock_batches()) is None:
            return False
        try:  # two shares that collect it at once would both count what it cost
            if self._tickets()[ticket.ticket].status == "submitted":
                await self._read(ticket, batch_id, on_result)
        finally:
            lock.release()
        return True

    async def _read(self, ticket: Ticket, batch_id: str, on_result: Callable[[BatchResult], None]) -> None:
        """Hand over the results of a batch that has ended."""
        handled = self._handled.setdefault(batch_id, set())
        wanted = set(ticket.keys)
        failed: dict[str, BatchResult] = {}
        # nobody knows what became of a request that has no line: it may have been billed
        lost = TransientError(f"batch {batch_id} ended without an answer", maybe_billed=True)
        try:
            async with aclosing(self.backend.collect(batch_id)) as results:
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
        except NotRunError as error:
            lost = error
        for key in sorted(wanted - handled):
            on_result(failed.get(key) or BatchResult(key, None, lost))
        self.log.append_batch_event(collected(ticket.ticket, batch_id, len(handled.union(failed))))
        del self._handled[batch_id]

    def _stays_short(self, ticket: Ticket, answered: int) -> bool:
        """Whether the results have had no new line for `SHORT_S` seconds: no more will come."""
        now = self.clock()
        since = short_since(self.log.batch_events(), ticket.ticket, answered)
        if since is None:
            event = {"event": "short", "ticket": ticket.ticket, "batch_id": ticket.batch_id}
            self.log.append_batch_event({**event, "answered": answered, "at": now})
            return False
        return now >= since + SHORT_S


CHUNK, HELD_BYTES = 10_000, 64 * 2**20
"""Requests, and their bytes, gathered before a batch goes out."""
MAX_ROUNDS = 4
"""Batches that may end without an answer to a request before its row is given up for this run."""


class BatchCaller:
    """Answers from the journal; what it does not hold is gathered for the next batch.

    Args:
        backend: the batch API.
        journal: finished calls and the life of every batch.
        money: the budget, shared by the callers of a build.
        price: US dollars per million tokens, before the factor for batches.
        poll_s, max_poll_s: seconds between the first two looks at the server, and between later ones at most.
        breaker: stops the run when the answers cannot be used.
        scope: of the journal's batches, which are this caller's.
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
        scope: str = "",
    ) -> None:
        self.journal = journal
        self.money = money
        self.price = price
        self.made = self.found = 0
        """Calls finished in this run, and those answered from the journal."""
        self.short = False
        """The limit of money lets no more out, unless batches at the server cost less than they may."""
        self._breaker = breaker or Breaker("the judge server")
        self._stopped = asyncio.Event()
        self._runner = BatchRunner(backend, journal, sleep=self._rest, scope=scope, free=self._free)
        self.pending = self._runner.pending_keys()
        """Keys of the requests that are, or may be, at the server."""
        self._queue: dict[str, Request] = {}
        self._reserved: dict[str, int] = {}
        """What is written ahead for the requests that are handed over now."""
        self._held = 0
        self._flushing = asyncio.Lock()
        self._lost: Counter[str] = Counter()
        self._why: dict[str, str] = {}
        """Request that came back without an answer -> the words."""
        self._limited = set[str]()
        """Requests that the account had no room for at the server."""
        self._poll = (poll_s, max_poll_s)
        self._backend = backend

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer from the journal, or None: it is in a batch, or will be in the next.

        Raises:
            TransientError: batch after batch ended without an answer.
        """
        key = request.key
        known = self.journal.call(key)
        if known is not None:
            self.found += 1
            return read_answer(known)
        if self._lost[key] >= MAX_ROUNDS:
            raise TransientError(f"{MAX_ROUNDS} batches ended without an answer: {self._why[key]}")
        if key not in self.pending and key not in self._queue and not self.short:
            if frames is not None:
                request = replace(request, frames=await frames())
            self._queue[key] = request
            self._held += request_bytes(request)
            if len(self._queue) >= CHUNK or self._held >= HELD_BYTES:
                await self.flush()
        return None

    async def flush(self) -> None:
        """Hand over what was gathered, as far as the limit of money goes (`short`)."""
        async with self._flushing:  # who comes with more pictures meanwhile waits, and holds no more
            queue, self._queue, self._held = self._queue, {}, 0
            try:
                if queue:
                    await self._hand_over(queue)
            except BudgetError:  # batches hold far more than they cost in the end: `collect` frees the rest
                self.short = True
            finally:
                self.money.rest()

    async def _hand_over(self, queue: dict[str, Request]) -> None:
        self._reserved.clear()
        try:
            wanted = list(queue.values())
            await self._runner.submit(wanted, answered=self.journal.has_call, admit=self._reserve)
        except BackendError:
            self.pending = self._runner.pending_keys()
            for key in queue.keys() - self.pending:
                if not self.journal.has_call(key):
                    self.money.void(key, self._reserved.pop(key, 0))
            raise
        # requests that another share submitted are pending too: it pays, and both read the answer
        self.pending = self._runner.pending_keys()

    async def collect(self, *, wait: bool, tell: Callable[[str], None]) -> bool:
        """Journal the results of every batch that has ended; `wait`: until none is outstanding.

        Returns:
            Whether nothing is outstanding any more: another pass can go on.
        """
        pause, longest = self._poll
        made, self.short = self.made, False
        while not self._stopped.is_set():
            now = await self.look()
            if now.done:
                if self.made == made:  # nothing came through: what there was no room for counts as lost
                    self._lost.update(self._limited)
                return True
            if not wait:
                return False
            trouble = f" ({'; '.join(now.trouble)})" if now.trouble else ""
            tell(f"{now.open_requests:,} requests in {len(now.open_batches)} batches{trouble}")
            with suppress(StoppedError):
                await self._rest(pause)
            pause = min(pause * 1.5, longest)
        return False

    async def look(self) -> BatchProgress:
        """Journal the results of every batch that has ended by now."""
        now = await self._runner.collect_ready(self._take)
        self._breaker.check()
        self.pending = self._runner.pending_keys()
        return now

    def stop(self) -> None:
        """End every wait; batches at the server go on."""
        self._stopped.set()

    async def _rest(self, seconds: float) -> None:
        """Wait for so many seconds; StoppedError where the run was asked to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        if self._stopped.is_set():
            raise StoppedError("asked to stop while batches were waited for")

    async def close(self) -> None:
        """Close the client; nothing at the server changes."""
        await self._backend.close()

    def _reserve(self, request: Request) -> None:
        """Write ahead what a request may cost; once, however often its batch is tried."""
        if self.price is None or request.key in self._reserved:
            return
        nusd = round(reserve_usd(request, self.price, batched=True) * NANO)
        self.money.send(request.key, nusd)
        self._reserved[request.key] = nusd

    def _free(self, key: str) -> None:
        """What was written ahead last for a request, by whichever process, was certainly not billed."""
        self.money.void(key, self.journal.spending.held_nusd(bytes.fromhex(key)))

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
            self._why[result.key] = valid(result.error.message)
            if result.error.rate_limited:
                self._limited.add(result.key)
            else:
                self._lost[result.key] += 1
            if not result.error.maybe_billed:
                self._free(result.key)
        else:
            words = valid(str(result.error))
            self.journal.put_refused(result.key, words)
            self._breaker.failed("refused", words)
            self.made += 1
