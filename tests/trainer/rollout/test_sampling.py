"""Draws follow the distribution, each row by its own numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.trainer.rollout.hf import draw, uniforms
from videop2r_data.trainer.settings.rl import SamplingSpec


def quantiles(count: int) -> torch.Tensor:
    """The middles of `count` equal parts of [0, 1): draws at all of them show the distribution exactly."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def frequencies(probabilities: list[float], count: int = 1000, **spec: Any) -> list[float]:
    logits = torch.tensor(probabilities).log().expand(count, -1)
    drawn = draw(logits, quantiles(count), SamplingSpec(**spec))
    shares: list[float] = (torch.bincount(drawn, minlength=len(probabilities)) / count).tolist()
    return shares


def test_frequencies_are_the_probabilities() -> None:
    assert frequencies([0.1, 0.2, 0.3, 0.4]) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)


def test_temperature_sharpens() -> None:
    # squares of 1, 2, 3, 4 add up to 30
    want = [1 / 30, 4 / 30, 9 / 30, 16 / 30]
    assert frequencies([0.1, 0.2, 0.3, 0.4], temperature=0.5) == pytest.approx(want, abs=1e-3)


def test_top_k_keeps_the_likeliest() -> None:
    assert frequencies([0.1, 0.4, 0.3, 0.2], top_k=2) == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=1e-3)
    assert frequencies([0.1, 0.4, 0.3, 0.2], top_k=9) == pytest.approx([0.1, 0.4, 0.3, 0.2], abs=1e-3)


def test_top_p_keeps_the_token_that_reaches_it() -> None:
    assert frequencies([0.1, 0.4, 0.3, 0.2], top_p=0.39) == pytest.approx([0, 1, 0, 0], abs=1e-3)
    assert frequencies([0.1, 0.4, 0.3, 0.2], top_p=0.6) == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=1e-3)
    assert frequencies([0.1, 0.4, 0.3, 0.2], top_p=1e-6) == [0, 1, 0, 0]


def test_top_p_is_of_what_top_k_left() -> None:
    # of the three likeliest 4/9, 3/9, 2/9: the first two reach 0.7
    got = frequencies([0.1, 0.4, 0.3, 0.2], top_k=3, top_p=0.7)
    assert got == pytest.approx([0, 4 / 7, 3 / 7, 0], abs=1e-3)


def test_greedy_takes_the_likeliest_that_is_allowed() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0]])
    spec = SamplingSpec(temperature=0)
    assert draw(logits, torch.zeros(1), spec).tolist() == [1]
    assert draw(logits, torch.zeros(1), spec, torch.tensor([1])).tolist() == [2]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=12),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([{}, {"top_p": 0.5}, {"top_k": 1}, {"temperature": 0.01}, {"top_p": 0.9, "top_k": 3}]),
)
def test_what_is_never_drawn_is_never_drawn(logits: list[float], u: float, spec: dict[str, Any]) -> None:
    never = torch.tensor([0])
    ends = torch.tensor([0.0, u, 1 - 2**-53], dtype=torch.float64)
    drawn = draw(torch.tensor([logits] * 3), ends, SamplingSpec(**spec), never)
    assert all(0 < i < len(logits) for i in drawn.tolist())


def test_the_ends_of_the_interval_fall_on_tokens_with_weight() -> None:
    logits = torch.tensor([-torch.inf, 0.0, 0.0, -torch.inf])
    ends = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits.expand(2, -1), ends, SamplingSpec()).tolist() == [1, 2]


def test_a_rows_numbers_are_its_seeds() -> None:
    both = uniforms([3, 2**63 + 5], 4)
    assert both.shape == (2, 4)
    assert torch.equal(uniforms([2**63 + 5], 4)[0], both[1])
    assert torch.equal(uniforms([3], 9)[0, :4], both[0])
    assert not torch.equal(both[0], both[1])
    assert (both >= 0).all() and (both < 1).all()
