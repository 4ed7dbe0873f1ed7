"""From rewards to streams: which advantage reaches which tokens (table in `specs.py`)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.process.advantages import advantages
from videop2r_data.trainer.process.rewards import RewardTable
from videop2r_data.trainer.process.specs import LossSpec, ObjectiveSpec


class Stream(NamedTuple):
    """One advantage and the tokens it reaches.

    Attributes:
        name: `p`, `r` or `all`.
        mask: [N, C] float32 weights in [0, 1]; 0 on padding.
        advantage: [N] float32.
    """

    name: str
    mask: Tensor
    advantage: Tensor

    def rows(self, low: int, high: int) -> Stream:
        """Rows `low` to `high`, for a micro-batch."""
        return Stream(self.name, self.mask[low:high], self.advantage[low:high])

    def to(self, device: torch.device | str) -> Stream:
        """On another device."""
        return Stream(self.name, self.mask.to(device), self.advantage.to(device))


def streams(
    objective: ObjectiveSpec,
    table: RewardTable,
    masks_p: Tensor,
    masks_r: Tensor,
    *,
    completion_mask: Tensor,
    spec: LossSpec,
) -> list[Stream]:
    """The streams of an objective; the names and their order depend on the objective alone.

    Args:
        table: rewards of N rollouts in whole groups.
        masks_p, masks_r: [N, C] weights of the tokens in each process, from `segment_masks`.
        completion_mask: [N, C] bool, the tokens that are no padding.
        spec: `std` and `eps` of the advantages.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    n = len(table.total)
    for name, mask in (("masks_p", masks_p), ("masks_r", masks_r), ("completion_mask", completion_mask)):
        if mask.ndim != 2 or mask.shape != completion_mask.shape or len(mask) != n:
            raise ValueError(f"{name} is {list(mask.shape)}, wanted [{n}, C] like the completion mask")
    real = completion_mask.float()

    def stream(name: str, mask: Tensor, rewards: Tensor, scored: Tensor) -> Stream:
        values = advantages(rewards, scored, table.group_size, std=spec.std, eps=spec.eps)
        return Stream(name, mask.float() * real, values.to(real.device))

    p = stream("p", masks_p, table.perception, table.scored_p)
    r = stream("r", masks_r, table.reasoning, table.scored_r)
    if objective.name in ("pa-grpo", "no-length"):
        return [p, r]
    if objective.name == "no-perception":
        return [r]
    if objective.name == "no-reasoning":
        return [p]
    if objective.name == "no-separation":
        return [stream("all", real, table.total, table.scored_total)]
    return [stream("all", real, table.plain, table.scored_r)]


def pad_masks(rows: list[list[float]], width: int) -> Tensor:
    """[N, width] float32 from rows of weights, 0 on the right.

    Raises:
        ValueError: a row is longer than `width`.
    """
    out = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        if len(row) > width:
            raise ValueError(f"row {i} has {len(row)} weights, and the batch is {width} tokens wide")
        out[i, : len(row)] = torch.tensor(row)
    return out
