"""How much goes into one batch, and where all batches of a build stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from videop2r_data.backends.batch_events import Ticket
from videop2r_data.schemas.calls import Request

_ENVELOPE_BYTES = 1024


def request_bytes(request: Request) -> int:
    """Estimate of one request's size on the wire, bytes, on the high side: escaped text and its envelope."""
    return _ENVELOPE_BYTES + sum(2 * len(m.text.encode()) for m in request.messages)


def split(
    requests: Iterable[Request],
    *,
    max_requests: int,
    max_bytes: int,
    size_of: Callable[[Request], int] = request_bytes,
) -> Iterator[list[Request]]:
    """Chunks of at most so many requests and bytes, in order; a request above `max_bytes` stands alone."""
    chunk: list[Request] = []
    total = 0
    for request in requests:
        size = size_of(request)
        if chunk and (len(chunk) >= max_requests or total + size > max_bytes):
            yield chunk
            chunk, total = [], 0
        chunk.append(request)
        total += size
    if chunk:
        yield chunk


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """Where all batches stand after one round.

    Attributes:
        open_batches: ids at the server that are not collected yet.
        unsettled: intents of which nobody knows yet whether the server took them.
        open_requests: requests in either.
        answered: results handed over in this round (in `wait`: since it began).
        collected: ids that were collected in this round (in `wait`: since it began).
        trouble: what went wrong in this round and will be tried again, in words.
    """

    open_batches: tuple[str, ...] = ()
    unsettled: int = 0
    open_requests: int = 0
    answered: int = 0
    collected: tuple[str, ...] = ()
    trouble: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Nothing is left to wait for."""
        return not self.open_batches and not self.unsettled


def progress_of(
    tickets: Mapping[str, Ticket], answered: int, collected: Sequence[str], trouble: Sequence[str]
) -> BatchProgress:
    """The state of the tickets after a round, and what the round did."""
    still = [t for t in tickets.values() if t.open]
    return BatchProgress(
        open_batches=tuple(t.batch_id for t in still if t.batch_id is not None),
        unsettled=sum(t.unsettled for t in still),
        open_requests=len({key for t in still for key in t.keys}),
        answered=answered,
        collected=tuple(collected),
        trouble=tuple(trouble),
    )
