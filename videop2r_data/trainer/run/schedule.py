"""AdamW over the weights that train, and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from videop2r_data.trainer.run.specs import OptimSpec


def rate_at(step: int, *, steps: int, spec: OptimSpec) -> float:
    """Share of the highest learning rate at a step, in [0, 1].

    Args:
        step: updates done before this one, from 0.
        steps: updates of the whole run.
        spec: schedule, warm-up and floor.

    >>> spec = OptimSpec(schedule="linear", warmup=2, floor=0.0)
    >>> [rate_at(step, steps=6, spec=spec) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    warmup = warmup_steps(steps, spec)
    if step < warmup:
        return (step + 1) / warmup
    if spec.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if spec.schedule == "cosine" else 1 - done
    return spec.floor + (1 - spec.floor) * left


def warmup_steps(steps: int, spec: OptimSpec) -> int:
    """Updates of the warm-up; a share of the run is rounded up.

    >>> warmup_steps(1000, OptimSpec(warmup=0.03)), warmup_steps(1000, OptimSpec(warmup=5))
    (30, 5)
    """
    return math.ceil(spec.warmup * steps) if spec.warmup < 1 else int(spec.warmup)


def make_optimizer(net: torch.nn.Module, spec: OptimSpec) -> torch.optim.AdamW:
    """AdamW over what trains; norms and biases (one-dimensional) are not decayed unless `decay_all`.

    Raises:
        ValueError: nothing trains.
    """
    named = [(name, weight) for name, weight in net.named_parameters() if weight.requires_grad]
    if not named:
        raise ValueError("no weight trains")
    plain = [w for _, w in named if w.dim() < 2 and not spec.decay_all]
    decayed = [w for _, w in named if w.dim() >= 2 or spec.decay_all]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, spec.weight_decay), (plain, 0.0))
        if params
    ]
    return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps)


def make_schedule(
    optimizer: torch.optim.Optimizer, spec: OptimSpec, *, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as torch's scheduler, so that it is saved and restored with the rest."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps=steps, spec=spec))


def trained(net: torch.nn.Module) -> Iterable[torch.nn.Parameter]:
    """The weights that train."""
    return (weight for weight in net.parameters() if weight.requires_grad)
