"""Which share of the questions this process answers, and how the shares come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def _alone(mine: Any) -> list[Any]:
    return [mine]


@dataclass(frozen=True)
class Ranks:
    """One of several processes that evaluate together.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        gather: gives every process the objects of all of them, in order of rank.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[Any], list[Any]] = _alone

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

    def share(self, items: Sequence[T]) -> list[T]:
        """Every `world`-th item from number `rank` on: equal shares of hard and easy stretches of a file.

        >>> Ranks(1, 3).share("abcdefgh")
        ['b', 'e', 'h']
        """
        return list(items[self.rank :: self.world])
