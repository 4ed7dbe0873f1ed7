"""The end of every step: times, the line of metrics, checkpoint, evaluation, and whether to go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session


class Tick:
    """Where the time of one step goes, in seconds of this process.

    Args:
        data: waited for the batch before the step began.
    """

    def __init__(self, data: float = 0.0) -> None:
        self.began = time.perf_counter() - data
        self.parts: dict[str, float] = {"data": data}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block to `time/<name>_s`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """`time/*` of the step so far."""
        row = {f"time/{name}_s": round(spent, 4) for name, spent in self.parts.items()}
        return row | {"time/step_s": round(time.perf_counter() - self.began, 4)}


def end_step(session: Session, step: int, row: dict[str, Any], tick: Tick) -> bool:
    """Log, evaluate, save; the same in every process.

    Args:
        session: the run.
        step: steps done, this one included.
        row: metrics of the step.
        tick: its times.

    Returns:
        whether to end now: somebody asked for it (in any process), or this was the last step.
    """
    recipe = session.recipe
    session.steps_done = step
    times = tick.row()
    tokens = float(row.get("tokens", 0))
    line = {"step": step, "epoch": round(session.order.epoch(step * session.parts), 6), **row, **times}
    line["tokens_per_s"] = round(tokens / times["time/step_s"], 1) if times["time/step_s"] else 0.0
    if session.accelerator.device.type == "cuda":
        line["memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    session.log.row(line)
    if recipe.eval_every and step % recipe.eval_every == 0 and session.evaluate is not None:
        session.log.row({"step": step, **session.evaluate(step)})
    stopped = session.engine.agreed(session.stop.asked)
    if stopped or (recipe.save.every and step % recipe.save.every == 0):
        session.checkpoints.save(step)
    return stopped or step == session.steps
