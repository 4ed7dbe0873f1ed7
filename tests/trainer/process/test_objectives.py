"""Every objective on the case of `pencil.py`; each number is worked out in the comment above it."""

from __future__ import annotations

import math

import pytest
import torch

from tests.trainer.process.pencil import (
    EXACT,
    HALF,
    KAPPA,
    MASK,
    NOW,
    OLD,
    ROLLOUTS,
    P,
    R,
    averages,
    loss_of,
    rollout,
)
from videop2r_data.trainer.process.advantages import pad_masks, streams
from videop2r_data.trainer.process.rewards import rewards_of
from videop2r_data.trainer.settings.objectives import OBJECTIVES
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec, RewardSpec

OWNED = {"perception": P, "reasoning": R}


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


# The terms s = min(rho A, clip(rho) A), clip to [4/5, 6/5]:
#   A = 1:   3/2 -> 6/5     1 -> 1     1/2 -> 1/2     9/10 -> 9/10
#   A = -1:  3/2 -> -3/2    1 -> -1    1/2 -> -4/5    9/10 -> -9/10


def test_pa_grpo() -> None:
    # row 0: P (A 1) (6/5 + 1)/2 = 11/10     R (A -1) (-4/5 - 1)/2 = -9/10
    # row 1: P (A -1) -4/5                   R (A 1) (6/5 + 9/10)/2 = 21/20
    # loss = -1/2 (22 - 18 - 16 + 21)/20 = -9/40
    assert loss_of("pa-grpo").loss.item() == close(-9 / 40)


def test_grpo() -> None:
    # A = -1, 1 on all tokens
    # row 0: (-3/2 - 1 - 4/5 - 1)/4 = -43/40     row 1: (1/2 + 6/5 + 9/10)/3 = 13/15
    # loss = -1/2 (-129 + 104)/120 = 5/48
    assert loss_of("grpo").loss.item() == close(5 / 48)


def test_no_separation() -> None:
    # A = 1, -1 on all tokens
    # row 0: (6/5 + 1 + 1/2 + 1)/4 = 37/40     row 1: (-4/5 - 3/2 - 9/10)/3 = -16/15
    # loss = -1/2 (111 - 128)/120 = 17/240
    assert loss_of("no-separation").loss.item() == close(17 / 240)


def test_no_perception_and_no_reasoning_are_the_two_halves() -> None:
    # R alone: -1/2 (-9/10 + 21/20) = -3/40     P alone: -1/2 (11/10 - 8/10) = -3/20
    assert loss_of("no-perception").loss.item() == close(-3 / 40)
    assert loss_of("no-reasoning").loss.item() == close(-3 / 20)


def test_no_length() -> None:
    # both observations are right, only the first has a paid length: R_P = 2.2, 2 -> A_P = 1, -1
    graded = (rollout(1.0, 0.0, p=200), rollout(1.0, 0.5, p=10))
    assert loss_of("pa-grpo", graded=graded).loss.item() == close(-9 / 40)
    # without length R_P = 2, 2: collapsed, only R is left
    assert loss_of("no-length", graded=graded).loss.item() == close(-3 / 40)


def test_t_grpo() -> None:
    # row 0 is right and breaks the template, row 1 the reverse: plain rewards 1 + 0, 0 + 1, collapsed
    graded = (rollout(0.0, 1.0, form_r=False), rollout(0.0, 0.0))
    assert loss_of("grpo", graded=graded).loss.item() == 0.0
    # the bonus makes them 1.3, 1: A = 1, -1 as in no-separation
    assert loss_of("t-grpo", graded=graded, shuffled=[[0.0]]).loss.item() == close(17 / 240)
    # with shuffled frames all are right: 1/2 < 0.8, no bonus
    assert loss_of("t-grpo", graded=graded, shuffled=[[1.0]]).loss.item() == 0.0


def test_reductions_of_pa_grpo() -> None:
    # sequence: row 0 (6/5 + 1 - 4/5 - 1)/4 = 1/10, row 1 (-4/5 + 6/5 + 9/10)/3 = 13/30; -1/2 16/30
    assert loss_of("pa-grpo", LossSpec(beta=0, eps=0, reduction="sequence")).loss.item() == close(-4 / 15)
    # token: -(4/10 + 13/10)/7
    assert loss_of("pa-grpo", LossSpec(beta=0, eps=0, reduction="token")).loss.item() == close(-17 / 70)


@pytest.mark.parametrize(
    ("values", "kl"),
    [
        # 1/2 (KAPPA/4 + KAPPA/3)
        ({}, 7 / 24 * KAPPA),
        ({"reduction": "sequence"}, 7 / 24 * KAPPA),
        # 2 KAPPA/7
        ({"reduction": "token"}, 2 / 7 * KAPPA),
        # row 0: token 0 is one of two P tokens; row 1: token 1 is one of two R tokens: 1/2 (1/2 + 1/2) KAPPA
        ({"kl_over": "segments"}, KAPPA / 2),
        # row 0: 1/4, row 1: 1/3 as with the completion: P and R cover all tokens
        ({"kl_over": "segments", "reduction": "sequence"}, 7 / 24 * KAPPA),
    ],
)
def test_the_kl_term(values: dict[str, str], kl: float) -> None:
    without = loss_of("pa-grpo", LossSpec.model_validate({"beta": 0, "eps": 0, **values})).loss.item()
    with_kl = loss_of("pa-grpo", LossSpec.model_validate({"beta": 0.1, "eps": 0, **values})).loss.item()
    assert with_kl - without == close(0.1 * kl)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_kl_over_the_completion_is_the_same_for_every_objective(name: str) -> None:
    shuffled = [None] if name == "t-grpo" else None
    parts = [loss_of(name, LossSpec(beta=b, eps=0), shuffled=shuffled).loss.item() for b in (0.0, 1.0)]
    assert parts[1] - parts[0] == close(7 / 24 * KAPPA)


def test_segment_ratios() -> None:
    # row 0: P sqrt(3/2 * 1) = 1.2247 -> 6/5     R sqrt(1/2) = 0.7071 -> -4/5
    # row 1: P 1/2 -> -4/5                       R sqrt(3/2 * 9/10) = 1.1619, inside
    expected = -(6 / 5 - 4 / 5 - 4 / 5 + math.sqrt(27 / 20)) / 2
    got = loss_of("pa-grpo", LossSpec(beta=0, eps=0, ratio="segment"))
    assert got.loss.item() == close(expected)
    # clipped: both tokens of P and of R in row 0, P in row 1
    assert averages(got.metrics)["clip_fraction/p"] == 1.0
    assert averages(got.metrics)["clip_fraction/r"] == 0.5
    # per sequence the segments weigh as many tokens as they have: (2*6/5 - 2*4/5)/4, (-4/5 + 2*1.1619)/3
    expected = -((4 / 5) / 4 + (-4 / 5 + 2 * math.sqrt(27 / 20)) / 3) / 2
    spec = LossSpec(beta=0, eps=0, ratio="segment", reduction="sequence")
    assert loss_of("pa-grpo", spec).loss.item() == close(expected)


def test_two_sided_clip() -> None:
    # epsilon_high 1/4: 3/2 -> 5/4 for A = 1: row 0 P (5/4 + 1)/2 = 9/8, row 1 R (5/4 + 9/10)/2 = 43/40
    # -1/2 (9/8 - 9/10 - 4/5 + 43/40) = -1/2 (45 - 36 - 32 + 43)/40 = -1/4
    assert loss_of("pa-grpo", LossSpec(beta=0, eps=0, epsilon_high=0.25)).loss.item() == close(-1 / 4)


def test_half_weights_stay_half() -> None:
    # row 1 cannot be split: P (A -1) 1/2 (-4/5 - 3/2 - 9/10)/3 = -16/30, R (A 1) 1/2 (1/2 + 6/5 + 9/10)/3 = 13/30
    # row 0: 11/10 - 9/10 = 6/30; loss = -1/2 (6 - 16 + 13)/30 = -1/20
    masks = (torch.stack([P[0], HALF]), torch.stack([R[0], HALF]))
    assert loss_of("pa-grpo", masks=masks).loss.item() == close(-1 / 20)


def test_metrics_of_pa_grpo() -> None:
    got = loss_of("pa-grpo", LossSpec(beta=0.1, eps=0))
    means = averages(got.metrics)
    # P: 3/2 up with A 1, 1/2 down with A -1, of three; R: 1/2 down with A -1, 3/2 up with A 1, of four
    assert means["clip_fraction/p"] == close(2 / 3)
    assert means["clip_fraction/r"] == close(2 / 4)
    assert means["clip_fraction"] == close(4 / 7)
    assert means["kl"] == close(2 / 7 * KAPPA)
    assert means["ratio"] == close((1.5 + 1 + 0.5 + 1 + 0.5 + 1.5 + 0.9) / 7)
    assert means["policy"] == close(-9 / 40)
    assert means["nonfinite"] == 0.0


def test_gradients_by_hand() -> None:
    # at ratio 1 the gradient of a token is -A / (N n_k): row 0 P -1/4 each, R 1/4 each; row 1 P 1/2, R -1/4 each
    now = NOW.clone().requires_grad_()
    loss_of("pa-grpo", now=now, old=None).loss.backward()
    assert now.grad is not None
    expected = torch.tensor([[-0.25, -0.25, 0.25, 0.25], [0.5, -0.25, -0.25, 0.0]])
    torch.testing.assert_close(now.grad, expected)
    # the same at the old policy itself, with its log-probabilities handed in
    again = OLD.clone().requires_grad_()
    loss_of("pa-grpo", now=again, old=OLD).loss.backward()
    torch.testing.assert_close(again.grad, expected)


def gradient(name: str, spec: LossSpec = EXACT) -> torch.Tensor:
    now = NOW.clone().requires_grad_()
    loss_of(name, spec, now=now).loss.backward()
    assert now.grad is not None
    return now.grad


@pytest.mark.parametrize("ratio", ["token", "segment"])
@pytest.mark.parametrize("reduction", ["segment", "sequence", "token"])
def test_each_advantage_moves_its_own_tokens_only(ratio: str, reduction: str) -> None:
    spec = LossSpec.model_validate(
        {"beta": 0, "eps": 0, "ratio": ratio, "reduction": reduction, "epsilon": 0.9}
    )
    both, only_p, only_r = (gradient(name, spec) for name in ("pa-grpo", "no-reasoning", "no-perception"))
    assert bool((only_p[R > 0] == 0).all()) and bool((only_r[P > 0] == 0).all())  # exactly zero
    assert bool((only_p[P > 0] != 0).any()) and bool((only_r[R > 0] != 0).any())
    assert torch.equal(both[P > 0], only_p[P > 0]) and torch.equal(both[R > 0], only_r[R > 0])
    assert bool((both[~MASK] == 0).all())


def test_streams_by_objective() -> None:
    names = {}
    for name in OBJECTIVES:
        objective = ObjectiveSpec(name=name)
        shuffled = [None] if objective.entry.shuffles else None
        table = rewards_of(ROLLOUTS, RewardSpec(), 2, objective=objective, shuffled=shuffled, longest=8)
        names[name] = [s.name for s in streams(objective, table, OWNED, completion_mask=MASK, spec=EXACT)]
    assert names == {
        "pa-grpo": ["p", "r"],
        "gdpo": ["all"],
        "grpo": ["all"],
        "no-separation": ["all"],
        "no-perception": ["r"],
        "no-reasoning": ["p"],
        "no-length": ["p", "r"],
        "t-grpo": ["all"],
        "gdpo-published": ["all"],
        "dapo": ["all"],
        "dr-grpo": ["all"],
        "gspo": ["all"],
        "papo": ["all"],
    }


def test_streams_end_where_the_completion_ends() -> None:
    table = rewards_of(ROLLOUTS, RewardSpec(), 2)
    everywhere = torch.ones(2, 4)
    found = streams(
        ObjectiveSpec(), table, dict.fromkeys(OWNED, everywhere), completion_mask=MASK, spec=EXACT
    )
    assert all(torch.equal(s.mask, MASK.float()) for s in found)


def test_streams_refuse_masks_that_do_not_fit() -> None:
    table = rewards_of(ROLLOUTS, RewardSpec(), 2)
    with pytest.raises(ValueError, match=r"mask reasoning is \[2, 3\], wanted \[2, C\]"):
        streams(ObjectiveSpec(), table, {**OWNED, "reasoning": R[:, :3]}, completion_mask=MASK, spec=EXACT)
    with pytest.raises(ValueError, match="mask perception"):
        streams(ObjectiveSpec(), table, {"perception": P[:1]}, completion_mask=MASK[:1], spec=EXACT)


def test_masks_are_padded_on_the_right() -> None:
    assert pad_masks([[1.0], [0.5, 0.5]], 3).tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    with pytest.raises(ValueError, match="row 0 has 2 weights"):
        pad_masks([[1.0, 1.0]], 1)
