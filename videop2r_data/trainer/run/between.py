"""The loop of SFT and RL: step, line of metrics, held-out questions, checkpoint; the end of the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.order import seed_step
from videop2r_data.trainer.evaluate.questions import HeldOut
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.weights import save_policy, sharding
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.run.checkpoint import update_run, whole_folder
from videop2r_data.trainer.run.session import Fed, Session
from videop2r_data.trainer.run.step import SKIPPED
from videop2r_data.trainer.settings.recipe import FINAL

Evaluate = Callable[[int], dict[str, float]]  # from a step to its metrics `eval/...`
TOLD = 8
"""Rows that are named at a step at most."""


def held_out(
    session: Session,
    judge: Judge | None = None,
    drawer: RolloutEngine | None = None,
    before: Callable[[], None] = lambda: None,
) -> Evaluate | None:
    """What evaluates the recipe's held-out questions, in every process at the same steps; None if it asks for
    no evaluation.

    Args:
        judge: the training's, if it is asked about sufficiency; None: the exact checker for demo questions,
            no judge for others.
        drawer: the training's; reused if the evaluation has the same sampling settings.
        before: called before each evaluation.
    """
    recipe = session.recipe
    if recipe.held_out is None:
        return None
    same = recipe.stage == "rl" and recipe.evaluating.sampling == recipe.sampling
    questions = HeldOut(
        session.policy.processor,
        recipe.held_out,
        spec=recipe.evaluating,
        judge=judge,
        engine=drawer if same else None,
        run=recipe.folder,
    )

    def measure(step: int) -> dict[str, float]:
        before()
        with session.accelerator.autocast():
            return questions(session.engine.model, step)

    return measure


class Tick:
    """The times of one step, in seconds, of this process."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.parts: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the time of a block to `time/<name>_s`; a lack of memory within is said as one of `name`."""
        began = time.perf_counter()
        try:
            with guarded(name):
                yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """`time/*` of the step so far."""
        row = {f"time/{name}_s": round(spent, 4) for name, spent in self.parts.items()}
        return row | {"time/step_s": round(time.perf_counter() - self.began, 4)}


def train_loop(
    session: Session,
    batches: Iterable[Fed],
    step_of: Callable[[Fed, Tick], dict[str, Any]],
    evaluate: Evaluate | None,
) -> bool:
    """Train until the last step or until asked to stop; a checkpoint is saved either way.

    Args:
        step_of: does one step; returns the line to log, its times apart.
        evaluate: measures held-out questions; None: there are none.

    Returns:
        whether the run is complete (then `final/` is written), False if it was stopped.
    """
    session.log.begin(session.recipe.stage, session.start, session.steps)
    coming, stopped = iter(batches), False
    while not stopped:
        tick = Tick()
        with tick.timed("data"):
            fed = next(coming, None)
        if fed is None:
            break
        seed_step(session.recipe.seed, fed.step, session.accelerator.process_index)
        session.leave_out(fed.skipped)
        row = step_of(fed, tick)
        stopped = _end_step(session, fed.step + 1, row, tick, evaluate)
    if session.steps_done == session.steps and not session.tokens and not session.start:
        raise ConfigError(
            f"nothing was learnt: every row was left out ({', '.join(session.skipped)})",
            where=str(session.recipe.folder),
            hint="the messages above say why, row by row",
        )
    return _finish(session)


def _end_step(
    session: Session, step: int, row: dict[str, Any], tick: Tick, evaluate: Evaluate | None
) -> bool:
    """Log, evaluate and save after a step (from 1), in every process; whether any was asked to stop."""
    recipe = session.recipe
    session.steps_done, times, tokens = step, tick.row(), row.get("tokens", 0)
    session.tokens += tokens
    epoch = round(session.order.epoch(step * recipe.rl.minibatches), 6)
    if row.get(SKIPPED):  # what was measured on the way may not be finite either: no such number in JSON
        row = {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)}
    line = {"step": step, "epoch": epoch, **row, **times}
    line["tokens_per_s"] = round(tokens / times["time/step_s"], 1) if times["time/step_s"] else 0.0
    if session.accelerator.device.type == "cuda":
        line["memory_gb"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    session.log.row(line)
    _tell(session, row)
    if recipe.eval_every and step % recipe.eval_every == 0 and evaluate is not None:
        with guarded("eval"):
            found = evaluate(step)
        session.log.row({"step": step, **found})
    # All processes must take the same branch below, because saving is collective: a signal may have reached
    # one only.
    stopped = session.engine.agreed(session.stop.asked)
    if stopped or (recipe.save.every and step % recipe.save.every == 0):
        session.checkpoints.save(step)
    return stopped


def _tell(session: Session, row: dict[str, Any]) -> None:
    """Name the rows of the step that any process left out, and those of a batch that got no update; too many
    of these in a row end the run."""
    step, lost = session.steps_done, session.engine.lost
    if row.get("skipped"):
        skips = [skip for mine in Ranks.here().gather(session.untold) for skip in mine]
        session.untold = []
        named = [f"{skip.sample_id}: {skip.reason}: {skip.detail}" for skip in skips[:TOLD]]
        more = [f"{len(skips) - TOLD:,} more rows"] if len(skips) > TOLD else []
        for text in (*named, *more):
            session.log.note(f"left out at step {step:,}: {text}")
    if row.get(SKIPPED):
        ids = [session.examples[i].sample_id for i in session.indices(step - 1)]
        rows = ", ".join(ids[:TOLD]) + (f" and {len(ids) - TOLD:,} more" if len(ids) > TOLD else "")
        session.log.note(f"no update at step {step:,}: gradient or loss not finite; its rows: {rows}")
        if lost >= session.recipe.optim.max_skipped:
            raise ConfigError(
                f"gradient or loss of {lost} updates in a row is not finite: none was made",
                where=f"step {step:,}, rows {rows}",
                hint="look at these rows; go on from the last checkpoint without them, or with a lower "
                "optim.lr (--anyway); optim.max_skipped is the limit",
            )


def _finish(session: Session) -> bool:
    """Save the last checkpoint, and `final/` of a complete run; whether it is complete."""
    folder, done, skipped = session.recipe.folder, session.steps_done, dict(session.skipped)
    if session.checkpoints.saved != done:
        session.checkpoints.save(done)
    complete = done == session.steps
    if complete:
        _save_final(session)
    if session.accelerator.is_main_process:
        update_run(folder, steps_done=done, steps=session.steps, complete=complete, skipped=skipped)
    session.accelerator.wait_for_everyone()
    return complete


@guarded("save")
def _save_final(session: Session) -> None:
    """Weights and processor for `from_pretrained`, adapters merged into the weights.

    Sharded weights (FSDP, ZeRO-3) are gathered from all processes; adapters are then saved unmerged.
    """
    accelerator, model, policy = session.accelerator, session.engine.model, session.policy
    whole = sharding(model) is None
    gathered = {} if whole else accelerator.get_state_dict(model)  # perhaps None in the other processes
    state = {name.removeprefix("net."): weight for name, weight in (gathered or {}).items()}
    if accelerator.is_main_process:
        with whole_folder(session.recipe.folder / FINAL) as draft:
            save_policy(policy.net, policy.processor, draft, merge=whole, state=state or None)
