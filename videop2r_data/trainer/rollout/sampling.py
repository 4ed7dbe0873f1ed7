"""Drawing tokens so that a rollout depends on its own seed, prompt and weights, and on nothing around it.

Row i has its own stream of uniform numbers u[i, 0], u[i, 1], …; token t is the inverse of the cumulative
distribution at u[i, t]. Which rows share a batch, a rank or a run does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from videop2r_data.trainer.rollout.specs import SamplingSpec


def uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """[N, length] float64 numbers in [0, 1): row i from `seeds[i]` alone, a longer one only goes on.

    Args:
        seeds: N numbers of up to 64 bits.
        length: how many numbers each.
    """
    rows = torch.empty(len(seeds), length, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in zip(rows, seeds, strict=True):
        generator.manual_seed(seed)
        row.uniform_(generator=generator)
    return rows


def draw(logits: Tensor, u: Tensor, spec: SamplingSpec, never: Tensor | None = None) -> Tensor:
    """One token for each row.

    Args:
        logits: [n, V].
        u: [n] uniform numbers in [0, 1).
        spec: temperature, top_p and top_k; at temperature 0 the likeliest token is taken.
        never: token ids that are not drawn.

    Returns:
        [n] token ids.
    """
    scores = logits.float()
    if never is not None:
        scores = scores.index_fill(-1, never, -torch.inf)
    if spec.temperature == 0:
        return scores.argmax(-1)
    scores = scores / spec.temperature
    if spec.top_k or spec.top_p < 1.0:
        return _draw_sorted(scores, u, spec)
    return _inverse(scores.softmax(-1), u)


def _draw_sorted(scores: Tensor, u: Tensor, spec: SamplingSpec) -> Tensor:
    """The likeliest tokens alone, likeliest first; equal ones in the order of their ids."""
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    if spec.top_k:
        scores, order = scores[:, : spec.top_k], order[:, : spec.top_k]
    probabilities = scores.softmax(-1)
    if spec.top_p < 1.0:
        before = probabilities.cumsum(-1) - probabilities
        # The token that reaches top_p is the last one kept, so the first always is.
        probabilities = probabilities * (before < spec.top_p)
    return order.gather(-1, _inverse(probabilities, u)[:, None])[:, 0]


def _inverse(weights: Tensor, u: Tensor) -> Tensor:
    """The index at which the running sum of weights passes `u` times their sum.

    An index of weight 0 is never returned: the running sum does not pass anything there.
    """
    sums = weights.double().cumsum(-1)
    whole = sums[:, -1]
    # A product that rounds up to the whole would pass the last index, or fall on one of weight 0.
    target = torch.minimum(u.to(sums) * whole, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(sums, target[:, None], right=True)[:, 0]
