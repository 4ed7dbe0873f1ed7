"""One optimizer update from micro-batches: the same update however the batch is split over passes and ranks.

Losses are sums over a micro-batch divided by counts of the *global* batch, never means of means: a batch of
16 in one process, in four micro-batches, or on two processes gives the same gradient up to rounding.

Every process runs the same number of micro-batches in every step, planned from the recipe alone. A process
that has lost clips runs blank ones in their place: collective operations (DDP, FSDP, ZeRO) would otherwise
wait for it forever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.forward import TokenLogProbs

if TYPE_CHECKING:
    from accelerate import Accelerator


SKIPPED = "skipped_updates"  # of a line of metrics


class Piece(NamedTuple):
    """One micro-batch: rows `lo` to `hi` - 1 of this process, whole groups; none of them for a blank row."""

    inputs: ModelInputs
    lo: int
    hi: int

    @property
    def blank(self) -> bool:
        """Whether it only keeps the number of passes equal over ranks."""
        return self.lo == self.hi


class Updated(NamedTuple):
    """The outcome of an update: loss of the global batch, rate that was used, norm before clipping;
    `skipped`: gradient or loss was not finite, and no weight was touched."""

    loss: float
    lr: float
    grad_norm: float
    skipped: bool = False


def line_of(updated: Sequence[Updated]) -> dict[str, float | int]:
    """What the updates of a step add to its line of metrics: mean loss, last rate, largest norm; of updates
    that were skipped only their number, if there are any."""
    made = [one for one in updated if not one.skipped]
    line: dict[str, float | int] = {"loss": sum(one.loss for one in made) / len(made)} if made else {}
    line["lr"] = updated[-1].lr
    if made:
        line["grad_norm"] = max(one.grad_norm for one in made)
    if len(made) < len(updated):
        line[SKIPPED] = len(updated) - len(made)
    return line


@dataclass
class Engine:
    """Model (a `TrainModel`), optimizer and schedule as `accelerate` wrapped them; does updates and sums over
    processes.

    Attributes:
        accelerator: made with `gradient_accumulation_steps` equal to the pieces of an update.
        max_grad_norm: bound of the gradient's norm.
        lost: updates that were skipped in a row, up to now.
    """

    accelerator: Accelerator
    model: Any
    optimizer: Any
    schedule: Any
    max_grad_norm: float
    lost: int = 0

    @property
    def pieces(self) -> int:
        """Micro-batches per update and process."""
        return int(self.accelerator.gradient_accumulation_steps)

    def update(
        self, pieces: list[Piece], loss_of: Callable[[Piece, TokenLogProbs], Tensor], **options: Any
    ) -> Updated:
        """Forward (with its options) and backward over exactly `self.pieces` micro-batches, clip, step.
        `loss_of` says what one of them contributes to the global loss: its sum divided by a global count.

        If the gradient or the loss of any process is not finite, all of them skip the whole update: no
        weight, no moment and no decay changes. The schedule goes on, so that the rate of a step is the same
        whatever was skipped before it.
        """
        if len(pieces) != self.pieces:
            raise ValueError(f"{len(pieces)} pieces, planned are {self.pieces}")
        accelerator, total, norm, skipped = self.accelerator, 0.0, 0.0, False
        # accelerate divides the loss by the number of micro-batches, and DDP averages gradients over
        # processes: undo both, because the losses are already parts of a sum.
        scale = len(pieces) * accelerator.num_processes
        lr = float(self.optimizer.param_groups[0]["lr"])
        for piece in pieces:
            with accelerator.accumulate(self.model):
                told = self.model(piece.inputs.to(accelerator.device), **options)
                loss = told.logps.sum() * 0.0 if piece.blank else loss_of(piece, told)
                total += float(loss.detach())
                accelerator.backward(loss * scale)
                if accelerator.sync_gradients:
                    clipped = accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
                    norm = 0.0 if clipped is None else float(clipped)
                    skipped = self.agreed(not (math.isfinite(norm) and math.isfinite(total)))
                    if skipped:
                        self.optimizer.zero_grad()  # an optimizer leaves weights without gradient alone
                with guarded("step"):
                    self.optimizer.step()
                self.optimizer.zero_grad()
        # DeepSpeed steps inside of `backward`, and looks for what is not finite itself
        skipped = skipped or bool(self.optimizer.step_was_skipped)
        self.lost = self.lost + 1 if skipped else 0
        self.schedule.step()
        loss = self.sums(torch.tensor([total], dtype=torch.float64))[0].item()
        return Updated(loss, lr, norm, skipped)

    def sums(self, values: Tensor) -> Tensor:
        """Sum of the values of all processes; float64 on the CPU."""
        if self.accelerator.num_processes == 1:
            return values
        device = self.accelerator.device
        kind = torch.float32 if device.type == "mps" else torch.float64
        added: Tensor = self.accelerator.reduce(values.to(device, kind), reduction="sum")
        return added.double().cpu()

    def agreed(self, asked: bool) -> bool:
        """Whether any process asks; the same answer in all of them."""
        return bool(self.sums(torch.tensor([float(asked)], dtype=torch.float64))[0] > 0)


def cut(
    inputs: ModelInputs, lo: int, hi: int, *, groups: int, pieces: int, blank: ModelInputs
) -> list[Piece]:
    """Split the groups `lo` to `hi` - 1, of `inputs.repeat` rows each, into `pieces` micro-batches of at most
    `groups`; blank ones fill up.

    Raises:
        ValueError: more groups than the planned passes hold.
    """
    starts = list(range(lo, hi, groups))
    if len(starts) > pieces:
        raise ValueError(f"{hi - lo} groups do not fit into {pieces} passes of {groups}")
    found = []
    for start in starts:
        rows = start * inputs.repeat, min(start + groups, hi) * inputs.repeat
        if int(inputs.lengths[slice(*rows)].sum()):  # skip empty completions: their loss has no graph
            found.append(Piece(inputs.rows(*rows), *rows))
    return found + [Piece(blank, 0, 0)] * (pieces - len(found))


def blank_inputs(token: int) -> ModelInputs:
    """One row without media whose loss does not count; `token` is any text token."""
    whole, one = torch.full((1, 2), token), torch.ones(1, dtype=torch.long)
    return ModelInputs(
        whole, torch.ones_like(whole), torch.zeros_like(whole), starts=one, lengths=one, media={}, repeat=1
    )
