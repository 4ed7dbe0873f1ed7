"""Supervised fine-tuning; `sft_step` is the whole step on one screen.

Per step: prompts with their media -> target tokens -> log-probabilities of the targets -> minus their sum
over the number of target tokens of the global batch -> clip -> AdamW. Prompt tokens have no loss.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from videop2r_data.errors import SourceError
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.examples import Skip
from videop2r_data.trainer.run.between import Tick, held_out, train_loop
from videop2r_data.trainer.run.session import Fed, Session
from videop2r_data.trainer.run.step import Piece


def run_sft(session: Session) -> bool:
    """Train; what it returns is said in `train_loop`."""
    return train_loop(session, partial(sft_step, session), held_out(session))


def sft_step(session: Session, fed: Fed, tick: Tick) -> dict[str, Any]:
    """One update; returns the line to log, its times apart."""
    inputs = _with_targets(session, fed)
    local = torch.tensor([int(inputs.lengths.sum()), len(fed.skipped)], dtype=torch.float64)
    tokens, skipped = session.engine.sums(local).tolist()

    def loss_of(piece: Piece, told: Any) -> torch.Tensor:
        return -told.logps.sum() / max(tokens, 1)

    with tick.timed("update"):
        done = session.engine.update(session.cut(inputs, 0, len(inputs.starts)), loss_of)
    return {**done._asdict(), "tokens": int(tokens), "skipped": int(skipped)}


def _with_targets(session: Session, fed: Fed) -> ModelInputs:
    """Prompts with their targets; a target that the tokenizer would change is counted and left empty."""
    targets: list[list[int]] = []
    for example in fed.prompts.examples:
        try:
            targets.append(session.collator.target_ids(example))
        except SourceError as error:
            targets.append([])
            session.skipped["target"] += 1
            session.log.note(f"left out: {Skip(example.sample_id, 'target', error.message)}")
    return fed.prompts.with_completions(targets, 1)
