"""Rewards to advantages within each group, and advantages to tokens [paper §3.3].

    A_i = (R_i - mean_j R_j) / (std_j R_j + eps)        j over the scored rollouts of i's group

The streams of a trace are normalised apart, so that a good observation is paid although the answer is wrong.
Dr. GRPO leaves out the divisor [arXiv 2503.20783, §3.2]. GDPO normalises every reward r_k apart and then over
all N rollouts of the step [arXiv 2601.05242, eq. 4-7]:

    S_i = sum_k w_k A_ik        A_i = (S_i - mean_j S_j) / (std_j S_j + eps)        j over the step

Which reward reaches which tokens is the objective's choice: `settings/objectives.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.process.rewards import RewardTable, check_groups
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec

COLLAPSE = 1e-6
"""A group whose scored rewards all lie this close together is collapsed: their difference is rounding, and
dividing by it would turn rounding into advantages of 1."""


def advantages(
    rewards: Tensor,
    scored: Tensor,
    group_size: int,
    *,
    std: Literal["population", "sample", "none"] = "population",
    eps: float = 1e-4,
) -> Tensor:
    """Normalise each reward within its group.

    Args:
        rewards: [N], N a multiple of `group_size`; row b * G + g is rollout g of prompt b.
        scored: [N] bool; an unscored rollout is left out of mean and standard deviation.
        std: divisor of the variance: the number of scored rollouts, or one less; `none`: only centre.
        eps: added to the standard deviation.

    Returns:
        [N] float32; 0 for unscored rollouts and throughout a collapsed group.

    Raises:
        ValueError: N is no multiple of `group_size`, the shapes differ, or a scored reward is not finite.

    >>> scored = torch.tensor([True, True, False, True])
    >>> advantages(torch.tensor([3.0, 1.0, 7.0, 2.0]), scored, 2, eps=0.0).tolist()
    [1.0, -1.0, 0.0, 0.0]
    """
    r, known = _by_group(rewards, scored, group_size)
    count = known.sum(dim=1, keepdim=True)
    mean = r.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(known, r - mean, 0.0)
    divisor = count - 1 if std == "sample" else count
    deviation = (centred.square().sum(dim=1, keepdim=True) / divisor.clamp(min=1)).sqrt()
    flat = _flat(r, known)[:, None]
    # The deviation of a collapsed group may be 0, and eps too: divide by 1 there.
    safe = torch.where(flat | (std == "none"), torch.ones_like(deviation), deviation + eps)
    return torch.where(flat, torch.zeros_like(centred), centred / safe).flatten().float()


def collapsed(rewards: Tensor, scored: Tensor, group_size: int) -> Tensor:
    """[B] bool: groups in which every advantage is 0; arguments and errors as in `advantages`."""
    return _flat(*_by_group(rewards, scored, group_size))


def _by_group(rewards: Tensor, scored: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Rewards [B, G] in float64, 0 where unscored, and the mask [B, G] of scored rollouts."""
    if rewards.ndim != 1 or rewards.shape != scored.shape:
        raise ValueError(f"rewards {list(rewards.shape)} and scored {list(scored.shape)} must both be [N]")
    check_groups(len(rewards), group_size)
    known = scored.bool().view(-1, group_size)
    r = torch.where(known, rewards.double().view(-1, group_size), 0.0)
    if not bool(torch.isfinite(r).all()):
        raise ValueError("a scored reward is not finite: mark the rollout as unscored instead")
    return r, known


def _flat(r: Tensor, known: Tensor) -> Tensor:
    """[B] bool: no two scored rewards differ; also with one scored rollout, or none (-inf - inf)."""
    highest = torch.where(known, r, -torch.inf).amax(dim=1)
    lowest = torch.where(known, r, torch.inf).amin(dim=1)
    return highest - lowest <= COLLAPSE


class Stream(NamedTuple):
    """One advantage [N] and the weights [N, C] in [0, 1] of the tokens it reaches, 0 on padding; float32.
    The name is the key of a stream of the trace (`p`, `r`), or `all`."""

    name: str
    mask: Tensor
    advantage: Tensor

    def to(self, device: torch.device | str) -> Stream:
        """On another device."""
        return Stream(self.name, self.mask.to(device), self.advantage.to(device))


def streams(
    objective: ObjectiveSpec,
    table: RewardTable,
    masks: Mapping[str, Tensor],
    *,
    completion_mask: Tensor,
    spec: LossSpec,
    sums: Callable[[Tensor], Tensor] = torch.clone,
) -> list[Stream]:
    """The streams of an objective; the names and their order depend on objective and grammar alone.

    Args:
        masks: stream of the trace -> [N, C] weights of its tokens, from `segment_masks`.
        completion_mask: [N, C] bool, False at padding.
        spec: `std` and `eps` of the advantages.
        sums: adds a tensor of all processes up, for the objectives that normalise over the batch.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    n = len(table.answered)
    for name, mask in (*masks.items(), ("completion_mask", completion_mask)):
        if mask.ndim != 2 or mask.shape != completion_mask.shape or len(mask) != n:
            raise ValueError(f"mask {name} is {list(mask.shape)}, wanted [{n}, C] like the completion mask")
    real = completion_mask.float()
    reached = {"all": real} | {one.key: masks[one.name].float() * real for one in table.streams}

    found = []
    for one in objective.entry.earned(table.streams):
        parts = [
            advantages(*table.earned(names), table.group_size, std=spec.std, eps=spec.eps)
            for names in one.sums
        ]
        if one.batch:
            parts = [table.weights[name] * part for (name,), part in zip(one.sums, parts, strict=True)]
        values = functools.reduce(torch.add, parts)
        if one.batch:
            values = _over_batch(values, spec, sums)
        found.append(Stream(one.reaches, reached[one.reaches], values.to(real.device)))
    return found


def _over_batch(values: Tensor, spec: LossSpec, sums: Callable[[Tensor], Tensor]) -> Tensor:
    """Normalise [N] advantages over the rollouts of all processes."""
    total, count = sums(torch.stack([values.double().sum(), torch.tensor(len(values)).double()]))
    centred = values.double() - total / count.clamp(min=1)
    if spec.std == "none":
        return centred.float()
    (squares,) = sums(centred.square().sum()[None])
    divisor = count - 1 if spec.std == "sample" else count
    deviation = (squares / divisor.clamp(min=1)).sqrt()
    return torch.where(deviation > COLLAPSE, centred / (deviation + spec.eps), 0.0).float()


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
