"""Supervised fine-tuning; `sft_step` is the whole step on one screen.

Per step: prompts with their media -> target tokens -> log-probabilities of the targets -> minus their sum
over the number of target tokens of the global batch -> clip -> AdamW. Prompt tokens have no loss.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import torch

from videop2r_data.errors import SourceError
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.collate import PROMPT_TOO_LONG
from videop2r_data.trainer.data.examples import Skip
from videop2r_data.trainer.run.between import Tick, held_out, train_loop
from videop2r_data.trainer.run.session import Fed, Session, feed
from videop2r_data.trainer.run.step import Piece, line_of


def run_sft(session: Session) -> bool:
    """Train; what it returns is said in `train_loop`."""
    with closing(feed(session)) as batches:  # after an error too the decoders end at once
        return train_loop(session, batches, partial(sft_step, session), held_out(session))


def sft_step(session: Session, fed: Fed, tick: Tick) -> dict[str, Any]:
    """One update; returns the line to log, its times apart."""
    inputs, lost = _with_targets(session, fed)
    session.leave_out(lost)
    local = torch.tensor([int(inputs.lengths.sum()), len(fed.skipped) + len(lost)], dtype=torch.float64)
    tokens, skipped = session.engine.sums(local).tolist()

    def loss_of(piece: Piece, told: Any) -> torch.Tensor:
        return -told.logps.sum() / max(tokens, 1)

    with tick.timed("update"):
        updated = [session.engine.update(pieces, loss_of) for pieces in session.cut(inputs, fed)]
    return {**line_of(updated), "tokens": int(tokens), "skipped": int(skipped)}


def _with_targets(session: Session, fed: Fed) -> tuple[ModelInputs, list[Skip]]:
    """Prompts with their targets, and what is left out, its target empty: one that the tokenizer would change
    or that the model has no room for."""
    targets: list[list[int]] = []
    lost: list[Skip] = []
    room = session.policy.positions
    for example, prompt in zip(fed.prompts.examples, fed.prompts.ids, strict=True):
        target: list[int] = []
        try:
            target = session.collator.target_ids(example)
        except SourceError as error:
            lost.append(Skip(example.sample_id, "target", error.message))
        if room and len(prompt) + len(target) > room:
            detail = f"{len(prompt)} tokens and {len(target)} to learn, the model has {room:,} positions"
            lost.append(Skip(example.sample_id, PROMPT_TOO_LONG, detail))
            target = []
        targets.append(target)
    return fed.prompts.with_completions(targets, 1), lost
