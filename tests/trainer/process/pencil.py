"""One prompt, two rollouts, seven tokens: small enough for paper and pencil.

    row 0:  P P R R        ratios 3/2  1    1/2  1
    row 1:  P R R -        ratios 1/2  3/2  9/10         (- is padding)

The reference is twice as likely as the policy on the first token of row 0 and on the second of row 1, and
equally likely elsewhere: k3 is KAPPA = 2 - 1 - ln 2 there, and 0 elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from videop2r_data.trainer.process.advantages import streams
from videop2r_data.trainer.process.loss import LossResult, denominators, policy_loss
from videop2r_data.trainer.process.rewards import Graded, rewards_of
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec, RewardSpec

NAN = math.nan
KAPPA = 1 - math.log(2)
OLD = torch.tensor([[-1.0, -2.0, -3.0, -1.0], [-2.0, -1.0, -1.0, NAN]])
NOW = OLD + torch.tensor([[1.5, 1.0, 0.5, 1.0], [0.5, 1.5, 0.9, NAN]]).log()
REF = NOW + torch.tensor([[2.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, NAN]]).log()
MASK = torch.tensor([[True, True, True, True], [True, True, True, False]])
P = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
R = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0]])
HALF = torch.tensor([0.5, 0.5, 0.5, 0.0])
EXACT = LossSpec(beta=0.0, eps=0.0)


def rollout(
    acc_p: float | None,
    acc_r: float | None,
    *,
    p: int = 10,
    r: int = 10,
    form_r: bool = True,
    tokens: int = 0,
) -> Graded:
    forms = {"perception": True, "reasoning": form_r}
    return Graded(acc_p, acc_r, forms, form_r, {"perception": p, "reasoning": r}, tokens=tokens)


# R_P = 1 + 1, 0 + 1 = 2, 1          -> A_P = 1, -1
# R_R = 0 + 1, 1/2 + 1 = 1, 3/2      -> A_R = -1, 1; the plain reward is the same
# R_P + R_R = 3, 5/2                 -> A   = 1, -1
ROLLOUTS = (rollout(1.0, 0.0), rollout(0.0, 0.5))


def loss_of(
    name: str,
    spec: LossSpec = EXACT,
    *,
    graded: Sequence[Graded] = ROLLOUTS,
    reward: RewardSpec | None = None,
    shuffled: Sequence[Sequence[float | None] | None] | None = None,
    masks: tuple[torch.Tensor, torch.Tensor] = (P, R),
    now: torch.Tensor = NOW,
    old: torch.Tensor | None = OLD,
    longest: int = 8,
) -> LossResult:
    """The whole way from graded rollouts to the loss."""
    objective = ObjectiveSpec.model_validate({"name": name})
    table = rewards_of(
        graded, reward or RewardSpec(), 2, objective=objective, shuffled=shuffled, longest=longest
    )
    owned = dict(zip(("perception", "reasoning"), masks, strict=True))
    found = streams(objective, table, owned, completion_mask=MASK, spec=spec)
    whole = denominators(MASK)._replace(longest=longest)
    return policy_loss(now, old, REF, found, completion_mask=MASK, spec=spec, denominators=whole)


def averages(metrics: dict[str, torch.Tensor]) -> dict[str, float]:
    """Sums over counts, as the training logs them; what has no values has no mean."""
    pairs = {name: pair.tolist() for name, pair in metrics.items()}
    means = {name: total / count for name, (total, count) in pairs.items() if count}
    return means | {"policy": pairs["policy"][0]}
