"""GDPO, DAPO, Dr. GRPO, GSPO and PAPO as published: numbers worked out by hand, and gradients in float64 against
formulas written down a second time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.trainer.process.pencil import HALF, MASK, NOW, OLD, ROLLOUTS, P, R, averages, loss_of, rollout
from videop2r_data.schemas import Frames
from videop2r_data.trainer.process.advantages import Stream, streams
from videop2r_data.trainer.process.loss import Denominators, denominators, policy_loss
from videop2r_data.trainer.process.rewards import Graded, RewardTable, overlong_loss, rewards_of
from videop2r_data.trainer.run.rl import blackened
from videop2r_data.trainer.settings.objectives import OBJECTIVES
from videop2r_data.trainer.settings.recipe import TrainRecipe, recipe_yaml
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec, RewardSpec

OWNED = {"perception": P, "reasoning": R}


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


def spec(name: str, **changes: Any) -> LossSpec:
    """The loss of an objective as its entry says, exact: nothing is added to deviations."""
    settings = OBJECTIVES[name].settings.get("loss", {})
    return LossSpec.model_validate({"eps": 0.0, "beta": 0.0, **settings, **changes})


def advantages_of(name: str, graded: list[Graded], **more: Any) -> list[float]:
    objective = ObjectiveSpec.model_validate({"name": name})
    reward = more.pop("reward", RewardSpec(length="off"))
    table = rewards_of(graded, reward, 2, objective=objective, longest=100)
    ones = torch.ones(len(graded), 1)
    masks = dict.fromkeys(OWNED, ones)
    (found,) = streams(objective, table, masks, completion_mask=ones.bool(), spec=spec(name), **more)
    return list(found.advantage.tolist())


# GDPO. Two groups of two; form is always right, lengths are off: accuracy_p and accuracy_r are what differs.
#   group 1: acc_p 1, 0   acc_r 0, 1/2        group 2: acc_p 1, 1   acc_r 1, 0
# A reward that differs in a group of two has the values +-d/2 around the mean and the sample deviation
# d/sqrt(2), whatever d is: A = +-1/sqrt(2); one that does not differ has A = 0.
#   group 1: A_p = 1/sqrt2, -1/sqrt2   A_r = -1/sqrt2, 1/sqrt2   S = 0, 0
#   group 2: A_p = 0, 0                A_r = 1/sqrt2, -1/sqrt2   S = 1/sqrt2, -1/sqrt2
# Over the four: mean 0, squares 1/2 + 1/2, variance 1/3: A = S sqrt3 = sqrt(3/2) in group 2.
TWO_GROUPS = [rollout(1.0, 0.0), rollout(0.0, 0.5), rollout(1.0, 1.0), rollout(1.0, 0.0)]


def test_gdpo_by_hand() -> None:
    high = math.sqrt(3 / 2)
    assert advantages_of("gdpo-published", TWO_GROUPS) == close([0.0, 0.0, high, -high])


def test_gdpo_weighs_advantages_and_not_rewards() -> None:
    # format wrong in the second rollout of group 2, weight of accuracy 2 (of formats 1): S of group 2 is
    # A_r 2/sqrt2 + A_format_r 1/sqrt2 = 3/sqrt2, -3/sqrt2; group 1 is 0 still: the batch makes sqrt(3/2) again
    rows = [*TWO_GROUPS[:3], rollout(1.0, 0.0, form_r=False)]
    high = math.sqrt(3 / 2)
    weighed = RewardSpec(length="off", accuracy=2.0)
    assert advantages_of("gdpo-published", rows, reward=weighed) == close([0.0, 0.0, high, -high])
    # now group 1 has format alone: S = 1/sqrt2, -1/sqrt2; group 2: accuracy of R alone, S = 2/sqrt2, -2/sqrt2
    # squares 1/2 + 1/2 + 2 + 2 = 5, variance 5/3
    rows = [rollout(1.0, 1.0), rollout(1.0, 1.0, form_r=False), rollout(1.0, 1.0), rollout(1.0, 0.0)]
    one, two = math.sqrt(1 / 2) / math.sqrt(5 / 3), math.sqrt(2) / math.sqrt(5 / 3)
    assert advantages_of("gdpo-published", rows, reward=weighed) == close([one, -one, two, -two])


def test_gdpo_normalises_over_the_rollouts_of_all_processes() -> None:
    # a second process with the same four rollouts: 8 rollouts, squares 2, variance 2/7
    found = advantages_of("gdpo-published", TWO_GROUPS, sums=lambda x: 2 * x)
    high = math.sqrt(1 / 2) / math.sqrt(2 / 7)
    assert found == close([0.0, 0.0, high, -high])


def test_gdpo_without_any_difference_gives_nothing() -> None:
    assert advantages_of("gdpo-published", [rollout(1.0, 1.0)] * 4) == [0.0] * 4


def test_gdpo_of_streams_stays_what_it_was() -> None:
    # R_P = 2, 1 -> 1, -1 and R_R = 1, 3/2 -> -1, 1: the sum is 0; group 2: only R_R differs, 1, -1
    assert advantages_of("gdpo", TWO_GROUPS) == close([0.0, 0.0, 1.0, -1.0])


# DAPO on the case of pencil.py: A = -1, 1 on all tokens, clip to [4/5, 1.28], mean over the seven tokens.


def test_dapo_by_hand() -> None:
    # row 0, A -1: -3/2 - 1 - 4/5 - 1 = -4.3     row 1, A 1: 1/2 + 1.28 + 9/10 = 2.68
    # loss = -(2.68 - 4.3)/7
    assert loss_of("dapo", spec("dapo")).loss.item() == close(1.62 / 7)


def test_overlong_completions_lose() -> None:
    # limit 100, the last fifth: 80 free, 85 loses 1/4 of a half, 100 all of it
    assert [overlong_loss(n, 100, RewardSpec()) for n in (0, 80, 85, 100, 101)] == close(
        [0.0, 0.0, 0.125, 0.5, 0.5]
    )
    other = RewardSpec(overlong=1.0, overlong_share=0.5)
    assert [overlong_loss(n, 100, other) for n in (50, 75)] == close([0.0, 0.5])
    with pytest.raises(ValueError, match="no limit of their length"):
        overlong_loss(1, 0, RewardSpec())


def test_dapo_pays_answer_and_form_less_the_length() -> None:
    rows = [rollout(0.0, 1.0, tokens=90), rollout(0.0, 1.0, tokens=80)]
    table = rewards_of(rows, RewardSpec(), 2, objective=ObjectiveSpec(name="dapo"), longest=100)
    rewards, scored = table.earned(("answer", "format", "overlong"))
    assert rewards.tolist() == close([1.75, 2.0]) and scored.all()
    # the loss of an unscored answer is no reward either: the rollout is left out
    unknown = rewards_of(
        [rollout(0.0, None, tokens=90)] * 2,
        RewardSpec(),
        2,
        objective=ObjectiveSpec(name="dapo"),
        longest=100,
    )
    assert not unknown.earned(("answer", "overlong"))[1].any()
    assert unknown.earned(("overlong",))[0].tolist() == close([-0.25, -0.25])


# Dr. GRPO: the plain rewards 1, 3/2 are centred: A = -1/4, 1/4; sums over tokens / 8, mean over two rollouts.


def test_dr_grpo_by_hand() -> None:
    # row 0: 1/4 (-3/2 - 1 - 4/5 - 1) = -43/40    row 1: 1/4 (1/2 + 6/5 + 9/10) = 13/20
    # loss = -1/(2 * 8) (26 - 43)/40 = 17/640
    assert loss_of("dr-grpo", spec("dr-grpo")).loss.item() == close(17 / 640)
    # half the limit, twice the loss
    assert loss_of("dr-grpo", spec("dr-grpo"), longest=4).loss.item() == close(17 / 320)


def test_a_constant_divisor_must_be_known() -> None:
    with pytest.raises(ValueError, match="give longest"):
        loss_of("grpo", spec("dr-grpo"), longest=0)


def test_micro_batches_add_up_under_a_constant_divisor() -> None:
    whole = loss_of("dr-grpo", spec("dr-grpo"))
    found = [Stream("all", MASK.float(), torch.tensor([-0.25, 0.25]))]
    over = Denominators(2, 7, 8)
    parts = [
        policy_loss(
            NOW[i : i + 1],
            OLD[i : i + 1],
            None,
            [Stream(s.name, s.mask[i : i + 1], s.advantage[i : i + 1]) for s in found],
            completion_mask=MASK[i : i + 1],
            spec=spec("dr-grpo"),
            denominators=over,
        ).loss
        for i in range(2)
    ]
    assert float(sum(parts)) == close(whole.loss.item())


# GSPO: the ratio of a completion is the root of the product of its ratios.
#   row 0: (3/2 * 1 * 1/2 * 1)^(1/4) = (3/4)^(1/4) = 0.930605    row 1: (1/2 * 3/2 * 9/10)^(1/3) = 0.877180
# With A = -1, 1 and the clip range [1 - 3e-4, 1 + 4e-4] row 0 is clipped (-0.9997), row 1 is not.


def test_gspo_by_hand() -> None:
    s1 = 0.675 ** (1 / 3)
    got = loss_of("gspo", spec("gspo"))
    assert got.loss.item() == close(-(-0.9997 + s1) / 2)
    assert averages(got.metrics)["clip_fraction"] == close(4 / 7)
    # its gradient, A s / (N C) for each token of row 1: s1/6; nothing flows through the clipped row
    now = NOW.clone().requires_grad_()
    loss_of("gspo", spec("gspo"), now=now).loss.backward()
    assert now.grad is not None
    torch.testing.assert_close(now.grad, torch.tensor([[0.0] * 4, [-s1 / 6] * 3 + [0.0]]))


def test_with_one_advantage_the_token_form_is_gspo_itself() -> None:
    # the ratio of a segment, where the segment is the completion, is GSPO's sequence ratio as it stands
    for epsilon in (3e-4, 0.5):
        grads = []
        for ratio in ("sequence", "segment"):
            now = NOW.clone().requires_grad_()
            got = loss_of("gspo", spec("gspo", ratio=ratio, epsilon=epsilon, epsilon_high=epsilon), now=now)
            got.loss.backward()
            grads.append((got.loss.detach(), now.grad))
        torch.testing.assert_close(grads[0], grads[1])


def test_the_sequence_ratio_takes_advantages_by_token() -> None:
    # PA-GRPO under the sequence ratio: A_P = 1, -1, A_R = -1, 1, each token its own, ratios s of the row
    s0, s1 = 0.75**0.25, 0.675 ** (1 / 3)
    wide = spec("pa-grpo", ratio="sequence", reduction="sequence", epsilon=0.9)
    # row 0: (s0 + s0 - s0 - s0)/4 = 0    row 1: (-s1 + s1 + s1)/3
    assert loss_of("pa-grpo", wide).loss.item() == close(-s1 / 6)
    now = NOW.clone().requires_grad_()
    loss_of("pa-grpo", wide, now=now).loss.backward()
    expected = torch.tensor([[-s0 / 8, -s0 / 8, s0 / 8, s0 / 8], [s1 / 6, -s1 / 6, -s1 / 6, 0.0]])
    assert now.grad is not None
    torch.testing.assert_close(now.grad, expected)


# Gradients against float64 formulas of the papers, on random cases, by finite differences.


def dapo(now: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    rho = (now - old).exp()
    s = torch.minimum(rho * a, rho.clamp(0.8, 1.28) * a)
    return -(s * mask).sum() / mask.sum()


def dr_grpo(now: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    rho = (now - old).exp()
    s = torch.minimum(rho * a, rho.clamp(0.8, 1.2) * a)
    return -(s * mask).sum() / (len(now) * 8)


def gspo(now: Tensor, old: Tensor, a: Tensor, mask: Tensor) -> Tensor:
    s = (((now - old) * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)).exp()
    return -torch.minimum(s * a, s.clamp(1 - 3e-4, 1 + 4e-4) * a).mean()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("name", "oracle"), [("dapo", dapo), ("dr-grpo", dr_grpo), ("gspo", gspo)])
def test_gradients_agree_with_finite_differences(
    name: str, oracle: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    old = -torch.rand(4, 6, generator=g, dtype=torch.float64) * 3
    now = old + torch.randn(4, 6, generator=g, dtype=torch.float64) * (0.3 if name != "gspo" else 1e-3)
    mask = torch.arange(6) < torch.randint(1, 7, (4, 1), generator=g)
    a = torch.randn(4, generator=g, dtype=torch.float64)

    def value(x: Tensor) -> float:
        return float(oracle(x, old, a[:, None], mask.double()))

    numeric = torch.zeros_like(now)
    for at in mask.nonzero().tolist():
        step = torch.zeros_like(now)
        step[tuple(at)] = 1e-6
        numeric[tuple(at)] = (value(now + step) - value(now - step)) / 2e-6
    tried = now.clone().requires_grad_()
    got = policy_loss(
        tried,
        old,
        None,
        [Stream("all", mask.float(), a.float())],
        completion_mask=mask,
        spec=spec(name),
        denominators=denominators(mask)._replace(longest=8),
    )
    got.loss.backward()
    assert got.loss.item() == pytest.approx(value(now), abs=1e-6)
    assert tried.grad is not None
    torch.testing.assert_close(tried.grad, numeric, rtol=1e-4, atol=2e-6)


# Settings that come with an objective.


def recipe(**changes: Any) -> TrainRecipe:
    data = {"name": "x", "stage": "rl", "data": {"source": "demo", "config": "rl"}, "steps": 1}
    weights = {"model": "m", "dtype": "float32"}
    return TrainRecipe.model_validate({**data, "model": weights, **changes})


def test_an_objective_brings_its_settings_and_the_recipe_overrules_them() -> None:
    loss = recipe(objective={"name": "dapo"}).loss
    assert (loss.epsilon_high, loss.reduction, loss.beta) == (0.28, "token", 0.0)
    own = recipe(objective={"name": "dapo"}, loss={"beta": 0.01}, rl={"group_size": 4})
    assert (own.loss.beta, own.loss.reduction) == (0.01, "token")
    assert (own.rl.group_size, own.rl.redraws) == (4, 10)
    # records in place of plain values: what was left unsaid there is not said
    built = recipe(objective=ObjectiveSpec(name="dapo"), loss=LossSpec(beta=0.01))
    assert built.loss == own.loss
    # a recipe as it was written down loads to itself, also where it goes back to what is usual elsewhere
    for one in (own, built, recipe(objective={"name": "dapo"}, loss={"beta": 0.04}, rl={"redraws": 0})):
        assert TrainRecipe.model_validate(yaml.safe_load(recipe_yaml(one))) == one


def test_the_settings_of_every_entry_are_settings() -> None:
    for name, entry in OBJECTIVES.items():
        judging = {} if not entry.needs_observation else {"judging": {"kind": "demo"}}
        found = recipe(objective={"name": name}, **judging)
        for section, values in entry.settings.items():
            assert getattr(found, section).model_dump(include=set(values)) == dict(values)


def test_what_an_older_recipe_was_is_unchanged() -> None:
    found = recipe(objective={"name": "grpo"})
    assert found.loss == LossSpec() and "redraws" not in found.identity["rl"]
    assert {"overlong", "overlong_share"}.isdisjoint(found.identity["rewards"])
    with pytest.raises(ValueError, match=r"rl\.redraws is not worked out for t-grpo"):
        recipe(objective={"name": "t-grpo"}, rl={"redraws": 1})


def test_half_weights_reach_the_sequence_ratio_once() -> None:
    # tokens that cannot be split carry both advantages at half weight; the ratio of the row is theirs alone
    masks = (torch.stack([P[0], HALF]), torch.stack([R[0], HALF]))
    wide = spec("pa-grpo", ratio="sequence", reduction="sequence", epsilon=0.9)
    assert loss_of("pa-grpo", wide, graded=ROLLOUTS, masks=masks).loss.item() == close(0.0)


def test_the_table_knows_its_weights() -> None:
    table: RewardTable = rewards_of(ROLLOUTS, RewardSpec(accuracy=3.0), 2)
    assert (table.weights["accuracy_p"], table.weights["format_r"], table.weights["length_p"]) == (3, 1, 1)


# PAPO: of pencil.py's case, the blind policy is half as likely on the first token of row 0, else the same.
#   d = -ln 2: k3 = 1/2 + ln 2 - 1 = ln 2 - 1/2, its slope in log pi 1 - exp(d) = 1/2


BLIND = NOW + torch.tensor([[0.5, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, math.nan]]).log()


def papo(now: Tensor, **changes: Any) -> Any:
    found = [Stream("all", MASK.float(), torch.zeros(2))]
    own = spec("papo", **{"entropy": 0.0, "beta": 0.0, **changes})
    over = denominators(MASK)
    return policy_loss(
        now, OLD, None, found, completion_mask=MASK, spec=own, denominators=over, blind_logps=BLIND
    )


def test_papo_by_hand() -> None:
    kl = math.log(2) - 0.5
    now = NOW.clone().requires_grad_()
    got = papo(now)
    assert got.loss.item() == close(-0.02 * kl / 7)
    assert averages(got.metrics)["kl_blind"] == close(kl / 7)
    got.loss.backward()
    expected = torch.zeros(2, 4)
    expected[0, 0] = -0.02 * 0.5 / 7
    assert now.grad is not None
    torch.testing.assert_close(now.grad, expected)


def test_papo_lowers_entropy_over_all_tokens() -> None:
    now = NOW.clone().requires_grad_()
    got = papo(now, perception=0.0, entropy=0.05)
    assert got.loss.item() == close(-0.05 * NOW[MASK].sum().item() / 7)
    got.loss.backward()
    assert now.grad is not None
    torch.testing.assert_close(now.grad, torch.where(MASK, -0.05 / 7, 0.0))


def test_papo_raises_no_divergence_above_ten() -> None:
    now = (BLIND + 30.0).requires_grad_()  # k3 = 29 + exp(-30)
    got = papo(now)
    assert averages(got.metrics)["kl_blind"] == close(10.0)
    got.loss.backward()
    assert now.grad is not None and not bool(now.grad.any())


def test_a_clip_is_blackened_patch_by_patch() -> None:
    array = np.random.default_rng(0).integers(1, 255, (40, 30, 45, 3), dtype=np.uint8)
    frames = Frames(record=None, array=array)  # type: ignore[arg-type]
    found = [blackened(frames, 0.6, seed) for seed in (7, 7, 8)]
    dark, again, other = (one.array for one in found if one is not None and one.array is not None)
    assert np.array_equal(dark, again) and not np.array_equal(dark, other) and dark.dtype == np.uint8
    black = (dark == 0).all(-1)
    assert np.array_equal(dark[~black], array[~black])
    patches = [black[:, y : y + 14, x : x + 14] for y in range(0, 30, 14) for x in range(0, 45, 14)]
    whole = np.array([[bool(p.all()) for p in patch] for patch in patches])
    assert all(np.array_equal(patch.any((1, 2)), row) for patch, row in zip(patches, whole, strict=True))
    assert 0.5 < whole.mean() < 0.7  # 480 patches: 0.6 +- 0.022
    assert blackened(None, 0.6, 0) is None and bool((array > 0).all())
