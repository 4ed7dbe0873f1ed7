"""One optimizer update from pieces of a batch: equal however it is cut over passes and processes.

Losses are sums over a piece divided by counts of the *global* batch, never means of means: a batch of 16 in
one process, in four micro-batches, or on two processes gives the same gradient up to rounding.

Every process runs the same number of passes in every step, planned from the recipe alone. A process that has
lost clips runs blank rows of weight 0 in their place: collective operations (DDP, FSDP, ZeRO) never wait for
a rank that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.model.forward import TokenLogProbs

if TYPE_CHECKING:
    from accelerate import Accelerator


class Piece(NamedTuple):
    """What one pass computes.

    Attributes:
        inputs: rows of whole groups, or one blank row.
        lo, hi: rows of the local batch that they are; equal for a blank piece.
    """

    inputs: ModelInputs
    lo: int
    hi: int

    @property
    def blank(self) -> bool:
        """Whether this stands in for rows that are not there."""
        return self.lo == self.hi


class Updated(NamedTuple):
    """What an update tells.

    Attributes:
        loss: of the global batch.
        grad_norm: before clipping.
        lr: learning rate that was used.
    """

    loss: float
    grad_norm: float
    lr: float


class Engine:
    """Model, optimizer and schedule as `accelerate` wrapped them, and the one way to use them.

    Args:
        accelerator: made with `gradient_accumulation_steps` equal to the pieces of an update.
        model: the prepared `TrainModel`.
        optimizer, schedule: prepared.
        max_grad_norm: bound of the gradient's norm.
        pieces: passes per update and process.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: Any,
        optimizer: Any,
        schedule: Any,
        *,
        max_grad_norm: float,
        pieces: int,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.max_grad_norm = max_grad_norm
        self.pieces = pieces

    def update(
        self, pieces: list[Piece], loss_of: Callable[[Piece, TokenLogProbs], Tensor], **options: Any
    ) -> Updated:
        """Forward and backward over the pieces, clip, step.

        Args:
            pieces: exactly `self.pieces`, in every process.
            loss_of: the share of the global loss that a piece has: its sum divided by a global count.
            options: of the model's forward.

        Raises:
            ValueError: another number of pieces.
        """
        if len(pieces) != self.pieces:
            raise ValueError(f"{len(pieces)} pieces, planned are {self.pieces}")
        accelerator, total, norm = self.accelerator, 0.0, 0.0
        # accelerate divides by the number of pieces, and DDP by that of processes: sums stay sums
        scale = len(pieces) * accelerator.num_processes
        lr = float(self.optimizer.param_groups[0]["lr"])
        for piece in pieces:
            with accelerator.accumulate(self.model):
                told = self.model(piece.inputs.to(accelerator.device), **options)
                loss = told.logps.sum() * 0.0 if piece.blank else loss_of(piece, told)
                total += float(loss.detach())
                accelerator.backward(loss * scale)
                if accelerator.sync_gradients:
                    norm = self._clip()
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.schedule.step()
        return Updated(self.sums(torch.tensor([total], dtype=torch.float64))[0].item(), norm, lr)

    def sums(self, values: Tensor) -> Tensor:
        """Add values of all processes up; float64 on the CPU."""
        if self.accelerator.num_processes == 1:
            return values
        device = self.accelerator.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        added: Tensor = self.accelerator.reduce(values.to(device, kind), reduction="sum")
        return added.double().cpu()

    def agreed(self, asked: bool) -> bool:
        """Whether any process says yes: all of them get the same answer."""
        return bool(self.sums(torch.tensor([float(asked)], dtype=torch.float64))[0] > 0)

    def _clip(self) -> float:
        found = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        return 0.0 if found is None else float(found)


def cut(
    inputs: ModelInputs, lo: int, hi: int, *, groups: int, pieces: int, blank: ModelInputs
) -> list[Piece]:
    """Cut rows into passes of whole groups.

    Args:
        inputs: N rows, `inputs.repeat` per group.
        lo, hi: groups to take.
        groups: groups of one pass.
        pieces: passes; blank ones are added up to this number.
        blank: stands in where there are no rows.

    Raises:
        ValueError: more groups than the planned passes hold.
    """
    starts = list(range(lo, hi, groups))
    if len(starts) > pieces:
        raise ValueError(f"{hi - lo} groups do not fit into {pieces} passes of {groups}")
    found = []
    for start in starts:
        rows = start * inputs.repeat, min(start + groups, hi) * inputs.repeat
        if int(inputs.lengths[slice(*rows)].sum()):  # rows with nothing to learn have no loss to go back from
            found.append(Piece(inputs.rows(*rows), *rows))
    return found + [Piece(blank, 0, 0)] * (pieces - len(found))


def blank_inputs(token: int, repeat: int = 1) -> ModelInputs:
    """One group without media whose loss does not count.

    Args:
        token: any text token, for instance that which ends a turn.
        repeat: rows per group.
    """
    whole = torch.full((repeat, 2), token, dtype=torch.long)
    ones = torch.ones(repeat, dtype=torch.long)
    return ModelInputs(
        input_ids=whole,
        attention_mask=torch.ones_like(whole),
        types=torch.zeros_like(whole),
        starts=ones,
        lengths=ones.clone(),
        media={},
        repeat=repeat,
    )
