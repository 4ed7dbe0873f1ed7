"""Each micro-batch of an RL update is held against its own rows of every table."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from videop2r_data.trainer.model.forward import TokenLogProbs
from videop2r_data.trainer.process.advantages import Stream
from videop2r_data.trainer.process.loss import denominators
from videop2r_data.trainer.run.rl import _Learn
from videop2r_data.trainer.run.step import Piece
from videop2r_data.trainer.settings.rl import LossSpec

LENGTHS = torch.tensor([5, 3, 4, 2])
MASK = torch.arange(5) < LENGTHS[:, None]


def table(seed: int) -> Tensor:
    drawn: Tensor = -torch.rand(4, 5, generator=torch.Generator().manual_seed(seed))
    return drawn


@pytest.mark.parametrize("cuts", [[0, 2, 4], [0, 1, 2, 3, 4], [0, 3, 4]])
def test_the_losses_of_micro_batches_add_up_to_that_of_the_batch(cuts: list[int]) -> None:
    perception, reasoning = MASK & (torch.arange(5) < 2), MASK & (torch.arange(5) >= 2)
    learn = _Learn(
        [
            Stream("p", perception.float(), torch.tensor([1.0, -1.0, 0.5, -0.5])),
            Stream("r", reasoning.float(), torch.tensor([-0.7, 0.2, 1.3, -0.8])),
        ],
        MASK,
        table(1),
        table(2),
    )
    spec = LossSpec(beta=0.04)
    inputs: Any = None

    def loss_and_gradient(cuts: list[int]) -> tuple[float, Tensor]:
        logps = table(0).requires_grad_()
        shares = []
        for lo, hi in pairwise(cuts):
            width = int(LENGTHS[lo:hi].max())  # a micro-batch is as wide as its own longest row
            told = TokenLogProbs(logps[lo:hi, :width], MASK[lo:hi, :width], None)
            shares.append(learn.loss(Piece(inputs, lo, hi), told, spec, denominators(MASK)).loss)
        loss = torch.stack(shares).sum()
        loss.backward()
        assert logps.grad is not None
        return float(loss.detach()), logps.grad

    loss, gradient = loss_and_gradient([0, 4])
    cut_loss, cut_gradient = loss_and_gradient(cuts)
    assert cut_loss == pytest.approx(loss, abs=1e-6)
    assert torch.allclose(cut_gradient, gradient, atol=1e-6)
    assert gradient.abs().max() > 0.01
