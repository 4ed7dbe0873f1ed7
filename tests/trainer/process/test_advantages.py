"""Advantages: by hand, and what must hold for all rewards."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.trainer.process.pencil import rollout
from tests.trainer.run import small
from videop2r_data.trainer.process.advantages import advantages, collapsed
from videop2r_data.trainer.process.rewards import rewards_of
from videop2r_data.trainer.run.rollouts import Tally
from videop2r_data.trainer.settings.rl import RewardSpec


def exact(
    rewards: list[float],
    scored: list[bool] | None = None,
    group_size: int | None = None,
    *,
    std: Literal["population", "sample"] = "population",
    eps: float = 0.0,
) -> list[float]:
    mask = torch.tensor(scored if scored is not None else [True] * len(rewards))
    column = torch.tensor(rewards, dtype=torch.float64)
    found: list[float] = advantages(column, mask, group_size or len(rewards), std=std, eps=eps).tolist()
    return found


def test_by_hand() -> None:
    # 0, 0, 0, 4: mean 1, variance (1 + 1 + 1 + 9)/4 = 3
    root = math.sqrt(3)
    assert exact([0, 0, 0, 4]) == pytest.approx([-1 / root, -1 / root, -1 / root, root])
    # sample: variance 12/3 = 4
    assert exact([0, 0, 0, 4], std="sample") == [-0.5, -0.5, -0.5, 1.5]
    # eps 1: deviation sqrt(4) + 1
    assert exact([0, 0, 0, 4], std="sample", eps=1.0) == pytest.approx([-1 / 3, -1 / 3, -1 / 3, 1.0])


def test_groups_do_not_see_each_other() -> None:
    assert exact([0, 2, 5, 5, 9, 1], group_size=2) == [-1, 1, 0, 0, 1, -1]


def test_unscored_members_are_left_out() -> None:
    # 1, 3 of 1, 100, 3: mean 2, deviation 1; the 100 counts nowhere
    assert exact([1, 100, 3], [True, False, True]) == [-1, 0, 1]
    # NaN where unscored has no effect either
    assert exact([1, math.nan, 3], [True, False, True]) == [-1, 0, 1]
    # one scored rollout says nothing about itself; sample deviation must not divide by zero
    assert exact([1, 2], [True, False], std="sample") == [0, 0]
    assert exact([1, 2], [False, False]) == [0, 0]


def test_rounding_does_not_become_an_advantage() -> None:
    assert exact([0.1 + 0.2, 0.3, 0.3]) == [0, 0, 0]
    # the mean of three times 0.1 is not 0.1 in floating point
    assert exact([0.1, 0.1, 0.1]) == [0, 0, 0]


def test_a_reward_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        exact([1.0, math.nan])
    with pytest.raises(ValueError, match="must both be"):
        advantages(torch.zeros(2, 2), torch.ones(2, 2).bool(), 2)


@pytest.mark.parametrize("group_size", [0, -1, 2, 4])
def test_a_split_group_is_refused(group_size: int) -> None:
    with pytest.raises(ValueError, match="no whole groups"):
        advantages(torch.zeros(5), torch.ones(5).bool(), group_size)


def test_collapsed_groups_are_counted_per_process_and_for_the_sum() -> None:
    group_1 = [rollout(1.0, 1.0), rollout(1.0, 0.0)]  # P equal, R not, sum not
    group_2 = [rollout(1.0, 0.0), rollout(0.0, 1.0)]  # P not, R not, the sum is
    group_3 = [rollout(None, 0.5), rollout(1.0, 0.5)]  # P: one scored; R equal; the sum: one scored
    table = rewards_of([*group_1, *group_2, *group_3], RewardSpec(), 2)
    assert collapsed(table.of("p")[0], table.scored["p"], 2).tolist() == [True, False, True]
    assert collapsed(table.of("r")[0], table.scored["r"], 2).tolist() == [False, False, True]
    assert collapsed(table.total[0], table.total[1], 2).tolist() == [False, True, True]
    assert collapsed(table.plain[0], table.scored["r"], 2).tolist() == [False, False, True]
    tally = Tally(small.rl(Path("model"), Path("run")))
    tally.rewards(table)
    row = tally.row()
    names = [f"collapsed/{name}" for name in ("p", "r", "sum", "plain")]
    assert [row[name] for name in (*names, "groups")] == [2, 1, 2, 1, 3]


REWARDS = st.lists(st.floats(0, 3, width=16), min_size=2, max_size=8)


@settings(deadline=None)
@given(REWARDS, st.data())
def test_what_holds_for_every_group(rewards: list[float], data: st.DataObject) -> None:
    n = len(rewards)
    scored = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    found = exact(rewards, scored)
    known = [r for r, s in zip(rewards, scored, strict=True) if s]
    assert sum(found) == pytest.approx(0, abs=1e-4)
    assert all(a == 0 for a, s in zip(found, scored, strict=True) if not s)
    spread = max(known, default=0) - min(known, default=0)
    if spread <= 1e-6:
        assert found == [0.0] * n
    else:
        assert sum(a * a for a in found) == pytest.approx(len(known), rel=1e-3)
        # a better reward is never worse off
        pairs = sorted((r, a) for r, a, s in zip(rewards, found, scored, strict=True) if s)
        assert all(x[1] <= y[1] + 1e-6 for x, y in pairwise(pairs))


@settings(deadline=None)
@given(REWARDS, st.floats(0.5, 10), st.floats(-5, 5))
def test_scale_and_shift_change_nothing(rewards: list[float], scale: float, shift: float) -> None:
    assume(max(rewards) - min(rewards) > 1e-2)
    assert exact([scale * r + shift for r in rewards]) == pytest.approx(exact(rewards), abs=1e-4)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 3, width=16), min_size=3, max_size=3), min_size=1, max_size=5),
    st.randoms(),
)
def test_groups_permute(groups: list[list[float]], random: Random) -> None:
    order = list(range(len(groups)))
    random.shuffle(order)
    plain = exact([r for group in groups for r in group], group_size=3)
    moved = exact([r for i in order for r in groups[i]], group_size=3)
    assert moved == [plain[3 * i + g] for i in order for g in range(3)]
