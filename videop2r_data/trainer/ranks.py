"""One of several training processes, and what it exchanges with the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from videop2r_data.errors import BackendError


@dataclass(frozen=True)
class Ranks:
    """One of `world` processes that work together; `gather` gives each what all have, in order of rank."""

    rank: int = 0
    world: int = 1
    gather: Callable[[Any], list[Any]] = lambda mine: [mine]

    @classmethod
    def here(cls) -> Ranks:
        """As `torch.distributed` was set up; alone without it."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        world = distributed.get_world_size()

        def gather(mine: Any) -> list[Any]:
            every: list[Any] = [None] * world
            distributed.all_gather_object(every, mine)
            return every

        return cls(distributed.get_rank(), world, gather)

    def first_then_all(self, work: Callable[[], None]) -> None:
        """Run `work` on the first process while the others wait; if it fails, all fail.

        Raises:
            BackendError: on the others, with the message of the first.
        """
        failure: Exception | None = None
        try:
            if self.rank == 0:
                work()
        except Exception as error:  # noqa: BLE001 - raised again below, once the others know
            failure = error
        told = self.gather(failure and str(failure))[0]
        if failure is not None:
            raise failure
        if told is not None:
            raise BackendError(f"the first training process failed: {told}")
