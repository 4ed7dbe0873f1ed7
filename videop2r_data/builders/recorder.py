"""Listen to the calls of a step: what was asked, and what came back."""

from __future__ import annotations

from videop2r_data.backends.caller import Answer, Loader
from videop2r_data.builders.steps import Asks
from videop2r_data.schemas.calls import Request


class Recorder:
    """Passes requests on and keeps them with their answers, in order.

    Args:
        inner: what really answers.
    """

    def __init__(self, inner: Asks) -> None:
        self.inner = inner
        self.calls: list[tuple[Request, Answer | None]] = []

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The inner answer, recorded."""
        answer = await self.inner.ask(request, frames)
        self.calls.append((request, answer))
        return answer
