"""The seam between the training step and whatever draws its rollouts.

Notation: B prompts, G rollouts of each, N = B * G rows; row `b * G + g` is rollout g of prompt b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import PromptBatch


@dataclass(frozen=True, slots=True)
class RolledOut:
    """One completion.

    Attributes:
        ids: its tokens, the closing one included if it was drawn.
        finished: whether the closing token was drawn; False: cut at the longest length.
    """

    ids: list[int]
    finished: bool


class RolloutEngine(Protocol):
    """Draws completions from the current policy."""

    def generate(self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int]) -> list[RolledOut]:
        """G completions of each prompt, in row order.

        Args:
            prompts: B prompts with their media.
            group_size: G.
            seeds: N numbers; the same seed, prompt and weights give the same completion.
        """
        ...

    def sync(self, net: Any) -> None:
        """Make the engine's weights those of `net`; to be called after every update."""
        ...

    def close(self) -> None:
        """Free what the engine holds; safe to call twice."""
        ...
