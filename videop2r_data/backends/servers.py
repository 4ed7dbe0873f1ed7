"""Several servers of one model as one backend: each call goes to the least loaded of those that answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from videop2r_data.backends.limiter import FIRST_PROBE_S, LONGEST_PROBE_S, MAX_PAUSE_S
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.errors import AuthError, TransientError
from videop2r_data.schemas import BackendSpec, Completion, Frames, Request, ServedModel

# A server that fails a call is left out for half a second, then for longer each time, or for as long as it
# asks. Then one call looks whether it is well again, and asks for its models first; what becomes of those
# that were under way says nothing. A failed call that cannot have cost money is asked elsewhere at once; when
# every other server is left out too, its failure goes to the limiter, as that of a single server.


@dataclass(eq=False)
class _Server:
    """One of them.

    Attributes:
        under_way: calls that it has, or that wait for room.
        failed: looks and calls that failed since it last answered; 0: it is not left out.
        until: when it may be asked again, by the monotonic clock.
    """

    name: str
    backend: OpenAIBackend
    room: asyncio.Semaphore
    under_way: int = 0
    failed: int = 0
    until: float = 0.0

    def order(self) -> tuple[float, int]:
        """Seconds until it may be asked, and what it has to do: the server with the least is next."""
        return max(0.0, self.until - time.monotonic()), self.under_way


class Servers:
    """The servers of one model.

    Args:
        spec: `base_urls` are the servers; each gets `concurrency` calls at a time.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self.model = spec.model
        self.tell: Callable[[str], None] | None = None
        """Is told which server is left out, and why."""
        self._all = [
            _Server(
                url.partition("?")[0],
                OpenAIBackend(spec.model_copy(update={"base_url": url})),
                asyncio.Semaphore(spec.concurrency),
            )
            for url in spec.base_urls
        ]

    async def start(self) -> None:
        """Start the backend of each server; none is asked yet."""
        for one in self._all:
            await one.backend.start()

    async def close(self) -> None:
        """Close all of them; safe to call twice."""
        for one in self._all:
            await one.backend.close()

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try that can cost money.

        Raises:
            TransientError: no server that may be asked now could answer.
            RefusedError, AuthError: as the server said.
        """
        left = list(self._all)
        while True:
            one = min(left, key=_Server.order)
            looks = one.failed > 0
            one.under_way += 1
            try:
                if looks:
                    one.until = time.monotonic() + LONGEST_PROBE_S  # until then no other call does
                    with suppress(AuthError):  # a key may be allowed to call a model and not to list them
                        await one.backend.models()
                async with one.room:
                    completion = await one.backend.complete(request, frames)
            except TransientError as error:
                left.remove(one)
                if looks or not one.failed:
                    self._leave_out(one, error)
                if error.maybe_billed or not left or min(map(_Server.order, left))[0]:
                    if error.retry_after_s:  # another server may be asked before
                        error.retry_after_s = min(map(_Server.order, self._all))[0]
                    raise
            else:
                if looks:
                    one.failed, one.until = 0, 0.0
                return completion
            finally:
                one.under_way -= 1

    async def models(self) -> list[ServedModel] | None:
        """The models that every server has, as the first lists them; None: it keeps no list.

        Raises:
            TransientError, AuthError: as the backend of a server.
        """
        found = [await one.backend.models() for one in self._all]
        ids = [{model.model for model in models} for models in found if models is not None]
        return found[0] and [model for model in found[0] if all(model.model in one for one in ids)]

    def _leave_out(self, one: _Server, error: TransientError) -> None:
        rest_s = min(LONGEST_PROBE_S, FIRST_PROBE_S * 2.0 ** min(one.failed, 8))
        rest_s = max(rest_s, min(error.retry_after_s or 0.0, MAX_PAUSE_S))
        one.failed, one.until = one.failed + 1, time.monotonic() + rest_s
        if self.tell is not None:
            self.tell(f"{one.name} is left out for {rest_s:.1f} s: {error.message}")
