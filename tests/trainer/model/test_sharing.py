"""How many completions share a copy of their prompt."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from videop2r_data.trainer.model.layout import Work, members


def test_work_is_counted_from_the_shapes() -> None:
    config = SimpleNamespace(
        hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=16, head_dim=None
    )
    # q and o: 8 * 8 each, k and v: 8 * 4 each, three of 8 * 16; scores and sums: 2 * 8
    assert Work.of(config) == Work(64 + 64 + 32 + 32 + 3 * 128, 16)


@pytest.mark.parametrize(
    ("prompt", "completion", "group", "want"),
    [
        (100, 10, 4, 4),  # tokens alone would say 4, pairs too: 140^2 * 1.5 < 4 * 110^2 / 2 + …
        (0, 100, 4, 1),  # nothing to save
        (100, 10, 1, 1),
        (100, 10, 7, 7),
    ],
)
def test_prompts_are_shared_where_that_saves_work(
    prompt: int, completion: int, group: int, want: int
) -> None:
    assert members(Work(1000, 1), prompt, completion, group) == want


def test_between_all_and_none() -> None:
    # cost(n) = 8 / n * (l + l^2 * s) with l = 10 + 20 n, s = 1.5 (0.5 for one), per token 10, per pair 1:
    # 1: 8 * (300 + 450) = 6000; 2: 4 * (500 + 3750) = 17000
    assert members(Work(10, 1), 10, 20, 8) == 1
    # prompt 100: 1: 8 * (1200 + 7200) = 67200; 2: 4 * (1400 + 29400); per token 1000 turns it round:
    # 1: 8 * (120000 + 7200) = 1017600; 2: 4 * (140000 + 29400) = 677600; 4: 2 * (180000 + 48600) = 457200;
    # 8: 260000 + 101400 = 361400
    assert members(Work(1000, 1), 100, 20, 8) == 8
    # long completions: 1: 8 * (300 k + 45 k) = 2760 k; 2: 4 * (500 k + 375 k) = 3500 k
    assert members(Work(1000, 1), 100, 200, 8) == 1
    # 1: 8 * (400 k + 80 k) = 3840 k; 2: 4 * (500 k + 375 k) = 3500 k; 4: 2 * (700 k + 735 k) = 2870 k;
    # 8: 1100 k + 1815 k = 2915 k
    assert members(Work(1000, 1), 300, 100, 8) == 4
