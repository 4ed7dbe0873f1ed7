from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.trainer.data.order import derive, rollout_seeds, seed_step


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**40), st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=4))
def test_a_seed_is_a_number_that_every_library_takes(seed: int, path: list[int | str]) -> None:
    found = derive(seed, *path)
    assert 0 <= found < 2**63
    assert found == derive(seed, *path)


def test_purposes_do_not_meet() -> None:
    found = [derive(0, "a", 1), derive(0, "a", "1"), derive(0, "a1"), derive(1, "a", 1), derive(0, "a", 1, 0)]
    assert len(set(found)) == len(found)


def test_rollouts_depend_on_their_place_in_the_whole_batch_alone() -> None:
    whole = rollout_seeds(3, 7, [0, 1, 2, 3], 2)
    halves = rollout_seeds(3, 7, [0, 1], 2) + rollout_seeds(3, 7, [2, 3], 2)
    assert whole == halves
    assert len(set(whole)) == 8
    assert not set(whole) & set(rollout_seeds(3, 8, [0, 1, 2, 3], 2))
    assert not set(whole) & set(rollout_seeds(3, 7, [0, 1, 2, 3], 2, "shuffled"))


def test_a_step_starts_every_generator_anew() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_step(0, 5, 0)
    first = draws()
    seed_step(0, 5, 0)
    assert draws() == first
    seed_step(0, 5, 1)
    assert draws() != first
