"""Settings of the loops themselves: optimizer, batches, precision, saving. Reading this needs no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import Model


class OptimSpec(Model):
    """AdamW and its learning rate."""

    lr: float = Field(default=1e-6, gt=0)
    """Highest learning rate. 1e-6 is that of the recipes the paper follows [method §4]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of gradient and squared gradient."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the squared gradient's mean."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On weights; norms and biases are left alone unless `decay_all`."""
    decay_all: bool = False
    """Decay norms and biases too."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up, to `lr * floor` at the last step."""
    warmup: float = Field(default=0.0, ge=0)
    """Steps over which the rate rises from 0; below 1 it is a share of all steps."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Share of `lr` that is left at the last step."""
    max_grad_norm: float = Field(default=5.0, gt=0)
    """Gradients are scaled down to this norm [method §4]."""

    @model_validator(mode="after")
    def _betas_fit(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        return self


class BatchSpec(Model):
    """How much goes into one optimizer step, over all processes, and into one forward pass."""

    size: int = Field(default=8, ge=1)
    """Examples of one step over all processes: sequences in SFT, prompts (each with its whole group) in RL.

    Divisible by the number of processes."""
    micro: int = Field(default=1, ge=1)
    """Examples of one forward and backward pass of one process; changes memory and speed, not the result."""


class SaveSpec(Model):
    """What is kept of a run while it goes on."""

    every: int = Field(default=100, ge=0)
    """Steps between checkpoints; 0: only at the end and when the run is stopped."""
    keep: int = Field(default=2, ge=0)
    """Newest checkpoints that stay; 0: all."""
    samples_every: int = Field(default=10, ge=0)
    """RL: steps between records of sampled completions in `samples.jsonl`; 0: never."""
    samples: int = Field(default=2, ge=1)
    """Groups recorded each time."""


class RlSpec(Model):
    """How rollouts become updates."""

    group_size: int = Field(default=8, ge=2)
    """Rollouts per prompt, G [method §4]."""
    minibatches: int = Field(default=1, ge=1)
    """Equal parts of a rollout batch, each an update of its own; divides the prompts of every process."""
    iterations: int = Field(default=1, ge=1)
    """Passes over the same rollouts. With one pass over one part the ratio to the old policy is exactly 1."""

    @property
    def updates(self) -> int:
        """Optimizer updates per rollout batch."""
        return self.minibatches * self.iterations
