"""Updates are the same however a batch is cut; expected values by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.run.optim import make_optimizer, make_schedule, rate_at
from videop2r_data.trainer.run.step import Piece, blank_inputs, cut
from videop2r_data.trainer.settings.parts import OptimSpec


def inputs(lengths: list[int], repeat: int = 1) -> ModelInputs:
    rows, width = len(lengths), 1 + max(lengths)
    return ModelInputs(
        input_ids=torch.arange(rows * width).view(rows, width),
        attention_mask=torch.ones(rows, width, dtype=torch.long),
        types=torch.zeros(rows, width, dtype=torch.long),
        starts=torch.ones(rows, dtype=torch.long),
        lengths=torch.tensor(lengths),
        media={},
        repeat=repeat,
    )


def shape(pieces: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.lo, piece.hi) for piece in pieces]


def test_pieces_hold_whole_groups_and_are_filled_up_with_blanks() -> None:
    batch, blank = inputs([1, 2, 3, 4, 5, 6], repeat=2), blank_inputs(9)
    assert shape(cut(batch, 0, 3, groups=2, pieces=2, blank=blank)) == [(0, 4), (4, 6)]
    assert shape(cut(batch, 1, 2, groups=2, pieces=3, blank=blank)) == [(2, 4), (0, 0), (0, 0)]
    assert shape(cut(batch, 0, 0, groups=2, pieces=1, blank=blank)) == [(0, 0)]
    with pytest.raises(ValueError, match="do not fit"):
        cut(batch, 0, 3, groups=1, pieces=2, blank=blank)


def test_a_blank_row_has_one_token_and_no_media() -> None:
    blank = blank_inputs(7)
    assert blank.input_ids.tolist() == [[7, 7]]
    assert blank.lengths.tolist() == [1]
    assert not blank.media


def test_rates_of_each_schedule_by_hand() -> None:
    cosine = OptimSpec(schedule="cosine", floor=0.1)
    assert rate_at(0, steps=4, spec=cosine) == 1.0
    assert rate_at(2, steps=4, spec=cosine) == pytest.approx(0.1 + 0.9 * 0.5)
    assert rate_at(4, steps=4, spec=cosine) == pytest.approx(0.1)
    assert rate_at(9, steps=4, spec=cosine) == pytest.approx(0.1)
    assert rate_at(7, steps=4, spec=OptimSpec(schedule="constant")) == 1.0
    warm = OptimSpec(schedule="constant", warmup=0.3)
    assert [rate_at(step, steps=10, spec=warm) for step in range(4)] == [1 / 3, 2 / 3, 1.0, 1.0]


def test_norms_and_biases_are_not_decayed() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    groups = make_optimizer(net, OptimSpec(weight_decay=0.5)).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.5, 1), (0.0, 3)]
    groups = make_optimizer(net, OptimSpec(weight_decay=0.5, decay_all=True)).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.5, 4)]
    for weight in net.parameters():
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="no weight trains"):
        make_optimizer(net, OptimSpec())


def test_adamw_and_schedule_by_hand() -> None:
    """First step of AdamW: w (1 - lr wd) - lr g / (|g| + eps)."""
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(2.0)
    optimizer = make_optimizer(net, OptimSpec(lr=0.1, weight_decay=0.5, schedule="linear"))
    schedule = make_schedule(optimizer, OptimSpec(schedule="linear"), steps=2)
    net.weight.grad = torch.tensor([[3.0]])
    optimizer.step()
    schedule.step()
    assert net.weight.item() == pytest.approx(2.0 * (1 - 0.05) - 0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_warmup_below_one_is_a_share() -> None:
    found: Any = rate_at(0, steps=100, spec=OptimSpec(warmup=0.1))
    assert math.isclose(found, 0.1)
