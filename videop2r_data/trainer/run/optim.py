"""AdamW whose memory fits, and the learning rate of each step.

| `optim.kind` | weights | bytes per weight on the device: weight, gradient, optimizer | on the host |
|---|---|---|---|
| `adamw` | float32 | 4 + 4 + 8 | |
| `adamw-8bit` | float32 | 4 + 4 + 2 | |
| `adamw-master` | bfloat16 | 2 + 2 + 12 | |
| `adamw-host` | bfloat16 | 2 + 2 + 0 | 12 |
| `adamw-8bit` | bfloat16 | 2 + 2 + 2 | |

An update in the backward pass itself, which frees each gradient at once, is left out: gradients are clipped
by the norm of all of them, which is known only behind the last one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw as adamw_step

from videop2r_data.errors import MissingExtraError
from videop2r_data.trainer.settings.parts import OptimSpec


def make_optimizer(net: torch.nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """AdamW over what trains; norms and biases (one-dimensional) are not decayed unless `decay_all`.

    Raises:
        ValueError: nothing trains.
        MissingExtraError: `adamw-8bit`, and torchao is not installed.
    """
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    if not weights:
        raise ValueError("no weight trains")
    decayed = [w for w in weights if w.dim() >= 2 or spec.decay_all]
    plain = [w for w in weights if w.dim() < 2 and not spec.decay_all]
    both = ((decayed, spec.weight_decay), (plain, 0.0))
    groups = [{"params": params, "weight_decay": decay} for params, decay in both if params]
    common: dict[str, Any] = {"lr": spec.lr, "betas": spec.betas, "eps": spec.eps}
    if spec.kind == "adamw":
        # torch's default on a GPU takes the memory of all weights once more while it steps
        return torch.optim.AdamW(groups, **common, fused=all(w.is_cuda for w in weights) or None)
    if spec.kind == "adamw-8bit":
        try:
            from torchao.optim import AdamW8bit
        except ImportError:
            raise MissingExtraError("torchao", "lowbit") from None
        made: torch.optim.Optimizer = AdamW8bit(groups, **common, bf16_stochastic_round=True)
        return made
    return MasterAdamW(groups, **common, host=spec.kind == "adamw-host")


def rate_at(step: int, *, steps: int, spec: OptimSpec) -> float:
    """Share of the highest learning rate, in [0, 1], after `step` of the `steps` updates of a run.

    >>> spec = OptimSpec(schedule="linear", warmup=2, floor=0.0)
    >>> [rate_at(step, steps=6, spec=spec) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    # a share of the run is rounded up
    warmup = math.ceil(spec.warmup * steps) if spec.warmup < 1 else int(spec.warmup)
    if step < warmup:
        return (step + 1) / warmup
    if spec.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if spec.schedule == "cosine" else 1 - done
    return spec.floor + (1 - spec.floor) * left


def make_schedule(
    optimizer: torch.optim.Optimizer, spec: OptimSpec, *, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as torch's scheduler, so that it is saved and restored with the rest."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps=steps, spec=spec))


class MasterAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """AdamW on float32 copies of the weights, in the host's memory if so wished; the weights are the copies,
    rounded.

    Copies and means are made at the first step. Each gradient is freed as soon as it has been used, so the
    step takes the memory of one weight at a time.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float, host: bool
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        self._host = host

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """One update of every weight that has a gradient; the gradients are gone afterwards."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
                    weight.grad = None

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["master"] = weight.to(self._place(weight)).float()
            for mean in ("exp_avg", "exp_avg_sq"):
                state[mean] = torch.zeros_like(state["master"])
            state["step"] = torch.zeros((), device=state["master"].device)
        master = state["master"]
        beta1, beta2 = group["betas"]
        gradient = weight.grad.to(master.device).float()
        means = [state["exp_avg"]], [state["exp_avg_sq"]]
        options = {name: group[name] for name in ("lr", "weight_decay", "eps")}
        options |= {"beta1": beta1, "beta2": beta2, "amsgrad": False, "maximize": False, "fused": True}
        adamw_step([master], [gradient], *means, [], [state["step"]], **options)
        weight.copy_(master.to(weight.dtype))  # rounded before it travels

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a saved state. torch's own way would round the copies to the type of the weights."""
        super().load_state_dict({**state_dict, "state": {}})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for number, saved in state_dict["state"].items():
            weight = weights[number]
            self.state[weight] = {
                name: value.to(self._place(weight), copy=True) for name, value in saved.items()
            }

    def _place(self, weight: Tensor) -> torch.device:
        return torch.device("cpu") if self._host else weight.device
