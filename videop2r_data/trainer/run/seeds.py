"""Random numbers that a restart and the number of processes cannot change.

No generator lives on from step to step. Each random number comes from a seed that is a pure function of the
run's seed and of *what it is for* (step, sample, rollout), so there is no state to save: a resumed run draws
what an uninterrupted one draws, and four processes draw what one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_BITS = 63
"""Seeds fit a signed 64-bit integer: torch, numpy and vLLM take them all."""


def derive(seed: int, *path: int | str) -> int:
    """A seed in [0, 2**63) for one purpose.

    Args:
        seed: the run's.
        path: what the numbers are for; equal paths give equal seeds, different ones independent seeds.

    >>> derive(0, "rollout", 3, "pool/17", 0) == derive(0, "rollout", 3, "pool/17", 0)
    True
    >>> derive(0, "a", 12) == derive(0, "a", 1, 2)
    False
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *path))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _BITS)


def rollout_seeds(
    seed: int, step: int, places: Sequence[int], group_size: int, kind: str = "rollout"
) -> list[int]:
    """One seed per rollout.

    Args:
        seed: the run's.
        step: of the run, from 0; a question that comes again later gets other rollouts.
        places: of the B prompts in the batch of *all* processes, so that their number changes nothing.
        group_size: G.
        kind: keeps the draws of different kinds of rollouts apart.

    Returns:
        B * G seeds; number b * G + g belongs to rollout g of prompt b.

    >>> rollout_seeds(0, 5, [3], 2) == [derive(0, "rollout", 5, 3, 0), derive(0, "rollout", 5, 3, 1)]
    True
    """
    return [derive(seed, kind, step, place, g) for place in places for g in range(group_size)]


def seed_step(seed: int, step: int, rank: int) -> None:
    """Start every global generator of this process anew for one step: dropout of adapters, and whatever a
    library draws.

    Args:
        seed: the run's.
        step: optimizer step.
        rank: process; masks of dropout differ between processes as they do between rows.
    """
    import random

    import numpy as np
    import torch

    number = derive(seed, "step", step, rank)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
