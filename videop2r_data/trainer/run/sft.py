"""Supervised fine-tuning; `sft_step` is the whole step on one screen.

Per step: prompts with their media -> target tokens -> log-probabilities of the targets -> minus their sum
over the number of target tokens of the global batch -> clip -> AdamW. Prompt tokens have no loss.
"""

from __future__ import annotations

from typing import Any

import torch

from videop2r_data.errors import SourceError
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.examples import Skip
from videop2r_data.trainer.data.order import seed_step
from videop2r_data.trainer.run.between import Tick, end_step, finish, held_out
from videop2r_data.trainer.run.session import Fed, Session, feed
from videop2r_data.trainer.run.step import Piece, cut


def run_sft(session: Session) -> bool:
    """Train until the last step or until asked to stop; a checkpoint is saved either way.

    Returns:
        whether the run is complete (then `final/` is written), False if it was stopped.
    """
    session.evaluate = held_out(session)
    session.log.begin("sft", session.start, session.steps)
    for fed in feed(session):
        seed_step(session.recipe.seed, fed.step, session.accelerator.process_index)
        tick = Tick(data=fed.waited_s)
        row = sft_step(session, fed, tick)
        if end_step(session, fed.step + 1, row, tick):
            break
    return finish(session)


def sft_step(session: Session, fed: Fed, tick: Tick) -> dict[str, Any]:
    """One update; returns the line to log, its times apart."""
    inputs = _with_targets(session, fed)
    local = torch.tensor([int(inputs.lengths.sum()), len(fed.skipped)], dtype=torch.float64)
    tokens, skipped = session.engine.sums(local).tolist()
    pieces = cut(
        inputs,
        0,
        len(inputs.starts),
        groups=session.recipe.batch.micro,
        pieces=session.engine.pieces,
        blank=session.blank(),
    )

    def loss_of(piece: Piece, told: Any) -> torch.Tensor:
        return -told.logps.sum() / max(tokens, 1)

    with tick.timed("update"):
        done = session.engine.update(pieces, loss_of)
    return {
        "loss": done.loss,
        "lr": done.lr,
        "grad_norm": done.grad_norm,
        "tokens": int(tokens),
        "skipped": int(skipped),
    }


def _with_targets(session: Session, fed: Fed) -> ModelInputs:
    """Prompts with their targets; a target that the tokenizer would change is counted and left empty."""
    targets: list[list[int]] = []
    for example in fed.prompts.examples:
        try:
            targets.append(session.collator.target_ids(example))
        except SourceError as error:
            targets.append([])
            session.skipped["target"] = session.skipped.get("target", 0) + 1
            session.log.note(f"left out: {Skip(example.sample_id, 'target', error.message)}")
    return fed.prompts.with_completions(targets, 1)
