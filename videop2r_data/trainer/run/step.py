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
from videop2r_data.trainer.run.optim import adamw
from videop2r_data.trainer.settings.parts import OptimSpec

if TYPE_CHECKING:
    from accelerate import Accelerator


def rate_at(step: int, *, steps: int, spec: OptimSpec) -> float:
    """Share of the highest learning rate at a step, in [0, 1].

    Args:
        step: updates done before this one, from 0.
        steps: updates of the whole run.
        spec: schedule, warm-up and floor.

    >>> spec = OptimSpec(schedule="linear", warmup=2, floor=0.0)
    >>> [rate_at(step, steps=6, spec=spec) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    # a share of the run is rounded up
    warmup = math.ceil(spec.warmup * steps) if spec.warmup < 1 else int(spec.warmup)
    if step < warmup:
        return (step + 1) / warmup
    if spec.schedule == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if spec.schedule == "cosine" else 1 - done
    return spec.floor + (1 - spec.floor) * left


def make_optimizer(net: torch.nn.Module, spec: OptimSpec) -> torch.optim.Optimizer:
    """AdamW over what trains; norms and biases (one-dimensional) are not decayed unless `decay_all`.

    Raises:
        ValueError: nothing trains.
        MissingExtraError: `adamw-8bit`, and torchao is not installed.
    """
    named = [(name, weight) for name, weight in net.named_parameters() if weight.requires_grad]
    if not named:
        raise ValueError("no weight trains")
    plain = [w for _, w in named if w.dim() < 2 and not spec.decay_all]
    decayed = [w for _, w in named if w.dim() >= 2 or spec.decay_all]
    groups = [
        {"params": params, "weight_decay": decay}
        for params, decay in ((decayed, spec.weight_decay), (plain, 0.0))
        if params
    ]
    return adamw(groups, spec)


def make_schedule(
    optimizer: torch.optim.Optimizer, spec: OptimSpec, *, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as torch's scheduler, so that it is saved and restored with the rest."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps=steps, spec=spec))


class Piece(NamedTuple):
    """One micro-batch.

    Attributes:
        inputs: rows of whole groups, or one blank row.
        lo, hi: its rows in the batch of this process, `hi` exclusive; equal for a blank one.
    """

    inputs: ModelInputs
    lo: int
    hi: int

    @property
    def blank(self) -> bool:
        """Whether it only keeps the number of passes equal over ranks."""
        return self.lo == self.hi


SKIPPED = "skipped_updates"
"""In a line of metrics: updates of the step that were skipped, if there are any."""


class Updated(NamedTuple):
    """The outcome of an update.

    Attributes:
        loss: of the global batch.
        lr: learning rate that was used.
        grad_norm: before clipping.
        skipped: the gradient or the loss was not finite, and no weight was touched.
    """

    loss: float
    lr: float
    grad_norm: float
    skipped: bool = False


def line_of(updated: Sequence[Updated]) -> dict[str, float | int]:
    """What the updates of a step add to its line of metrics.

    Mean loss, last rate, largest norm; of updates that were skipped only their number, if there are any.
    """
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
    """Model, optimizer and schedule as `accelerate` wrapped them; does updates and sums over processes.

    Attributes:
        accelerator: made with `gradient_accumulation_steps` equal to the pieces of an update.
        model: the prepared `TrainModel`.
        optimizer, schedule: prepared.
        max_grad_norm: bound of the gradient's norm.
        pieces: micro-batches per update and process.
        lost: updates that were skipped in a row, up to now.
    """

    accelerator: Accelerator
    model: Any
    optimizer: Any
    schedule: Any
    max_grad_norm: float
    pieces: int
    lost: int = 0

    def update(
        self, pieces: list[Piece], loss_of: Callable[[Piece, TokenLogProbs], Tensor], **options: Any
    ) -> Updated:
        """Forward and backward over the micro-batches, clip, step.

        If the gradient or the loss of any process is not finite, all of them skip the whole update: no
        weight, no moment and no decay changes. The schedule goes on, so that the rate of a step is the same
        whatever was skipped before it.

        Args:
            pieces: exactly `self.pieces`, in every process.
            loss_of: what a micro-batch contributes to the global loss: its sum divided by a global count.
            options: of the model's forward.

        Raises:
            ValueError: another number of pieces.
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

    def largest(self, values: Tensor) -> Tensor:
        """The largest of the values of all processes; as `sums`."""
        if self.accelerator.num_processes == 1:
            return values
        every: Tensor = self.accelerator.gather(values.to(self.accelerator.device, torch.float32)[None])
        return every.max(dim=0).values.double().cpu()

    def agreed(self, asked: bool) -> bool:
        """Whether any process asks; the same answer in all of them."""
        return bool(self.sums(torch.tensor([float(asked)], dtype=torch.float64))[0] > 0)


def cut(
    inputs: ModelInputs, lo: int, hi: int, *, groups: int, pieces: int, blank: ModelInputs
) -> list[Piece]:
    """Split rows into micro-batches of whole groups.

    Args:
        inputs: N rows, `inputs.repeat` per group.
        lo, hi: groups to take.
        groups: groups per micro-batch.
        pieces: number of micro-batches; blank ones fill up to it.
        blank: inputs of a blank one.

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
    whole = torch.full((1, 2), token, dtype=torch.long)
    ones = torch.ones(1, dtype=torch.long)
    return ModelInputs(
        input_ids=whole,
        attention_mask=torch.ones_like(whole),
        types=torch.zeros_like(whole),
        starts=ones,
        lengths=ones.clone(),
        media={},
        repeat=1,
    )
