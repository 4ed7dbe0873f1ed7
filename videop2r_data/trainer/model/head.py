"""Log-probabilities of given tokens from hidden states, without the whole table of logits in memory.

A batch of long completions times a vocabulary of 152,000 would be tens of gigabytes. The head works through
the tokens piece by piece and computes each piece again in the backward pass. All of it happens in one call of
the head module, so that whatever gathers sharded weights around module calls does so once on every rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PIECE = 1 << 26
"""Logits in memory at a time: 256 MiB in float32."""


def token_logps(
    head: Any, hidden: Tensor, targets: Tensor, *, temperature: float, entropy: bool, piece: int = PIECE
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target, and the entropy of each distribution.

    Args:
        head: the output layer, `Linear(H, V)`.
        hidden: [T, H].
        targets: [T] token ids.
        temperature: logits are divided by it.
        entropy: also compute entropies (in nats; without gradient).
        piece: logits in memory at a time.

    Returns:
        [T] float32 log-probabilities, and [T] float32 entropies or None.
    """

    def forward(states: Tensor) -> tuple[Tensor, Tensor]:
        size = max(1, piece // head.weight.shape[0])
        parts = list(zip(states.split(size), targets.split(size), strict=True))
        # A single piece is small: keeping its logits is cheaper than computing them twice.
        again = len(parts) > 1 and torch.is_grad_enabled()
        done = [
            checkpoint(_piece, head, part, ids, temperature, entropy, use_reentrant=False)
            if again
            else _piece(head, part, ids, temperature, entropy)
            for part, ids in parts
        ]
        return torch.cat([d[0] for d in done]), torch.cat([d[1] for d in done])

    head.forward = forward
    try:
        logps, entropies = head(hidden)
    finally:
        del head.forward
    return logps, entropies if entropy else None


def _piece(
    head: Any, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
) -> tuple[Tensor, Tensor]:
    logits = functional.linear(hidden, head.weight, head.bias).float()
    if temperature != 1.0:
        logits = logits / temperature
    norm = logits.logsumexp(-1)
    logps = logits.gather(-1, targets[:, None])[:, 0] - norm
    if not entropy:
        return logps, logps.detach()
    with torch.no_grad():
        probabilities = (logits - norm[:, None]).exp_()
        spread = norm - (probabilities * logits).sum(-1)
    return logps, spread
