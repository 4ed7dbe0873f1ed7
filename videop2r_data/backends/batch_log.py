"""The life of a batch as events in a durable log, and the state that they add up to.

Events are plain dictionaries, one of

    {"event": "submitting", "ticket", "keys_digest", "count", "keys", "at", "deadline_at", "writer", "scope"}
    {"event": "submitted",  "ticket", "batch_id", "adopted"}
    {"event": "lost",       "ticket", "at", "why"}
    {"event": "short",      "ticket", "batch_id", "answered", "at"}
    {"event": "collected",  "ticket", "batch_id", "answered"}
    {"event": "abandoned",  "ticket", "batch_id" (None: never had one), "why"}

`at` and `deadline_at` are Unix seconds by the writer's clock; `scope` is always empty. The state does not
depend on the order of the events, so that logs of several machines may be merged.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from videop2r_data.errors import BudgetError, JournalError, RefusedError, TransientError
from videop2r_data.schemas import BatchBackend, BatchInfo, Request, digest

Event = dict[str, Any]
TicketStatus = Literal["submitting", "lost", "submitted", "collected", "abandoned"]


class NotAcceptedError(TransientError):
    """The server certainly did not take the batch; worth another try."""


class BatchGoneError(RefusedError):
    """The server has no such batch, or no longer its results."""


class ShortResultsError(TransientError):
    """The results of an ended batch hold fewer requests than it had: cut off on the way, or by the server."""


class NotRunError(TransientError):
    """An ended batch ran no more than it has results for: what has none was not served."""


class Lock(Protocol):
    """A lock that is held; the system frees it when its process ends, however it ends."""

    def release(self) -> None:
        """Free it; safe to call twice."""


class BatchLog(Protocol):
    """Where batch events live: shared by every process and machine that works on one build."""

    def batch_events(self) -> list[Event]:
        """Every event so far, those of other writers included, oldest first."""

    def append_batch_event(self, event: Event) -> None:
        """Add one; it, and everything journaled before it, is on disk when this returns."""

    def lock_batches(self) -> Lock | None:
        """The right to submit, settle and collect, which one process has at a time; None: another has it."""


@dataclass(slots=True)
class Ticket:
    """One intent to submit a batch, and what became of it."""

    ticket: str
    keys: tuple[str, ...]
    at: float
    """When the intent was recorded, Unix seconds by the writer's clock."""
    deadline_at: float
    """The submitting call cannot have lived longer."""
    status: TicketStatus = "submitting"
    batch_id: str | None = None
    strength: int = 0
    """How much it takes to change the status (see `fold`)."""
    scope: str = ""
    """Whose batch it is; the steps of a build have one log."""

    @property
    def unsettled(self) -> bool:
        """Nobody knows yet whether the server took it."""
        return self.status in ("submitting", "lost")

    @property
    def open(self) -> bool:
        """Its requests must not be submitted again."""
        return self.status in ("submitting", "lost", "submitted")


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Ticket]:
    """The tickets that the events add up to, in order of their intents.

    A batch id is stronger than an abandonment that did not know of it: the batch exists, so it is collected.

    Raises:
        JournalError: an event lacks a field or names a ticket that no intent opened.
    """
    events = list(events)
    tickets: dict[str, Ticket] = {}
    try:
        for event in events:
            if event["event"] == "submitting":
                tickets[event["ticket"]] = Ticket(
                    ticket=event["ticket"],
                    keys=tuple(event["keys"]),
                    at=float(event["at"]),
                    deadline_at=float(event["deadline_at"]),
                    scope=event.get("scope", ""),
                )
        for event in events:
            if event["event"] != "submitting":
                _apply(tickets[event["ticket"]], event)
    except (KeyError, TypeError) as error:
        raise JournalError(
            f"a batch event is damaged or refers to an unknown ticket: {error!r}",
            hint="restore the journal from a copy, or merge in the segment that is missing",
        ) from None
    return tickets


def _strength(status: str, batch_id: object) -> int:
    """Which of two events about one ticket holds, whatever their order; -1: an event of a newer version."""
    if status == "abandoned":
        # Giving up a batch by its id overrules "submitted"; giving up an intent without one does not.
        return 4 if batch_id else 2
    return {"submitting": 0, "lost": 1, "submitted": 3, "collected": 5}.get(status, -1)


def _apply(ticket: Ticket, event: Mapping[str, Any]) -> None:
    batch_id = event.get("batch_id")
    strength = _strength(event["event"], batch_id)
    ticket.batch_id = batch_id or ticket.batch_id
    if strength > ticket.strength:
        ticket.status, ticket.strength = event["event"], strength


def open_keys(tickets: Mapping[str, Ticket], scope: str | None = None) -> set[str]:
    """Keys of every request that is, or may be, at the server; `scope`: of those batches alone."""
    open_ = [one for one in tickets.values() if one.open and scope in (None, one.scope)]
    return {key for ticket in open_ for key in ticket.keys}


def label_of(keys: Iterable[str]) -> str:
    """Digest of the keys of a batch: its name at a server that keeps one."""
    return digest(sorted(keys))


def submitting(keys: Sequence[str], *, at: float, deadline_s: float, scope: str = "") -> Event:
    """The event that must be durable before a batch is handed over."""
    # drawn, not counted: the logs of two machines may be merged, and equal batches need tickets of their own
    writer, ordered = secrets.token_hex(8), sorted(keys)
    keys_digest = label_of(ordered)
    return {
        "event": "submitting",
        "ticket": digest([keys_digest, writer])[:32],
        "keys_digest": keys_digest,
        "count": len(ordered),
        "keys": ordered,
        "at": at,
        "deadline_at": at + deadline_s,
        "writer": writer,
        "scope": scope,
    }


def submitted(ticket: str, batch_id: str, *, adopted: bool) -> Event:
    """The event that ties an intent to its batch; `adopted`: found in the server's listing."""
    return {"event": "submitted", "ticket": ticket, "batch_id": batch_id, "adopted": adopted}


def short_since(events: Iterable[Mapping[str, Any]], ticket: str, answered: int) -> float | None:
    """Since when the results of a batch have held answers to just so many requests; None: not until now."""
    seen = [event for event in events if event["event"] == "short" and event["ticket"] == ticket]
    return float(seen[-1]["at"]) if seen and seen[-1]["answered"] == answered else None


def collected(ticket: str, batch_id: str, answered: int) -> Event:
    """The event behind the results of a batch; `answered`: requests that have a line in them."""
    return {"event": "collected", "ticket": ticket, "batch_id": batch_id, "answered": answered}


def abandoned(ticket: str, batch_id: str | None, why: str) -> Event:
    """The event that frees the requests of an intent, or of a batch if `batch_id` is given."""
    return {"event": "abandoned", "ticket": ticket, "batch_id": batch_id, "why": why}


# How much goes into one batch, and where all batches of a build stand.


_ENVELOPE_BYTES, _PICTURE_BYTES = 1024, 128


def request_bytes(request: Request) -> int:
    """Estimate of one request's size on the wire, bytes, on the high side: text, pictures, envelope."""
    text = sum(2 * len(m.text.encode()) for m in request.messages)
    pictures = request.frames.encoded if request.frames is not None else ()
    return _ENVELOPE_BYTES + text + sum(len(one) * 4 // 3 + _PICTURE_BYTES for one in pictures)


def split(requests: Iterable[Request], *, max_requests: int, max_bytes: int) -> Iterator[list[Request]]:
    """Chunks of at most so many requests and bytes, in order; a request above `max_bytes` stands alone."""
    chunk: list[Request] = []
    total = 0
    for request in requests:
        size = request_bytes(request)
        if chunk and (len(chunk) >= max_requests or total + size > max_bytes):
            yield chunk
            chunk, total = [], 0
        chunk.append(request)
        total += size
    if chunk:
        yield chunk


def admitted(
    free: list[Request], admit: Callable[[Request], None]
) -> tuple[list[Request], BudgetError | None]:
    """Those that `admit` lets in, in order, and why it let no more."""
    for count, request in enumerate(free):
        try:
            admit(request)
        except BudgetError as error:
            return free[:count], error
    return free, None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Where all batches stand after one round.

    Attributes:
        open_batches: ids at the server that are not collected yet.
        unsettled: intents of which nobody knows yet whether the server took them.
        open_requests: requests in either.
        trouble: what went wrong in this round and will be tried again, in words.
    """

    open_batches: tuple[str, ...] = ()
    unsettled: int = 0
    open_requests: int = 0
    trouble: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Nothing is left to wait for."""
        return not self.open_batches and not self.unsettled


# What became of a submission that was cut off between the intent and the batch id.
#
# A server that lets a batch be named is given the digest of its requests: the unclaimed batch of that name
# *is* the lost one. The others cannot be asked for a batch by its requests while it runs, so the answer is
# pieced together: a batch of the same size, made in the life of the call, that no other event claims and
# whose results answer these requests *is* the lost one, and is adopted. A request's id is the digest of its
# content, so that lines which repeat one, or belong to nobody, change nothing. A batch that still runs might
# be it: the requests stay pending. Only when the server has had time to list what it took, and no batch is
# left that might be it, is the intent given up; before that, a batch is adopted whose results answer a part
# of the requests (a damaged file): the others alone are asked again.


SHORT_S = 600.0
"""Seconds for which the results of an ended batch must hold no more before what is missing counts as lost."""
_STRANGE = 100
"""Lines of a batch, none of which answers one of our requests, before it counts as another's."""


@dataclass(eq=False)
class Settler:
    """Adopts or gives up intents whose outcome is unknown; used under the lock of the log.

    Attributes:
        backend: the server.
        log: the durable events.
        settle_s: seconds that the server may take to list a batch after the call that made it was over.
        skew_s: seconds that two clocks may differ.
        clock: Unix seconds.
        free: told each key of an intent that is given up.
    """

    backend: BatchBackend
    log: BatchLog
    settle_s: float
    skew_s: float
    clock: Callable[[], float]
    free: Callable[[str], None]
    _over_since: dict[str, float] = field(default_factory=dict, init=False)
    _answered: dict[tuple[str, str], int] = field(default_factory=dict, init=False)
    """How many requests of a ticket a batch answers, once that is known."""
    _trouble: TransientError | None = field(default=None, init=False)

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
        listing = await self.backend.listing(created_after_s=oldest - self.skew_s)
        claimed = {t.batch_id for t in tickets.values() if t.batch_id}
        self._trouble = None
        for ticket in unsettled:
            candidates = [b for b in listing if b.batch_id not in claimed and self._could_be(b, ticket)]
            named = [b.batch_id for b in candidates if b.label]
            found = named[0] if named else await self._own(candidates, ticket)
            if found is None and ticket.ticket in ripe and self._all_read(candidates, ticket):
                found = self._best(candidates, ticket)
            if found is not None:
                self.log.append_batch_event(submitted(ticket.ticket, found, adopted=True))
                ticket.status, ticket.batch_id = "submitted", found
                claimed.add(found)
            elif ticket.ticket in ripe and self._all_read(candidates, ticket):
                for key in ticket.keys:
                    self.free(key)
                self.log.append_batch_event(abandoned(ticket.ticket, None, "the server has no such batch"))
                ticket.status = "abandoned"
        if self._trouble is not None:
            raise self._trouble

    def _ripe(self, ticket: Ticket) -> bool:
        """Whether the call has been over for long enough that the listing is the whole truth."""
        # Counted from when this process first saw it, since the writer's clock may be another.
        now = self.clock()
        return now >= self._over_since.setdefault(ticket.ticket, now) + self.settle_s

    def _could_be(self, batch: BatchInfo, ticket: Ticket) -> bool:
        earliest, latest = ticket.at - self.skew_s, ticket.deadline_at + self.skew_s
        # a name tells more than a size, which a server may not know before it has read the batch
        unread = batch.total == 0 and batch.state == "in_progress"
        fits = unread or batch.total == len(ticket.keys)
        same = batch.label == label_of(ticket.keys) if batch.label else fits
        return same and earliest <= batch.created_at_s <= latest

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
            async with aclosing(self.backend.collect(batch_id)) as results:
                async for result in results:
                    left.discard(result.key)
                    strange += len(left) == len(ticket.keys)
                    if strange == _STRANGE:
                        break  # somebody else's, and it may be large
        except BatchGoneError:
            return 0  # its results are gone for good, so adopting it would answer nothing
        except NotRunError:
            pass
        except ShortResultsError:
            # cut off on the way, and to be read again; or so at the server, for good
            if self.clock() < ticket.deadline_at + self.skew_s + SHORT_S:
                raise
        return len(ticket.keys) - len(left)
