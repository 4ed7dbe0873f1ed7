"""Reinforcement learning: PA-GRPO, its ablations, T-GRPO; `rl_step` is a step on one screen [paper §3.3].

Per step: prompts -> G rollouts of each -> perception or reasoning for each token -> observations to the
judge, which works while the old and reference log-probabilities are computed -> answers and verdicts to
rewards -> advantages per segment and group -> clipped loss over counts of the global batch -> clip -> AdamW
-> weights to the rollout engine.

A group is never split: it is drawn, rewarded and trained on in one process and one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.order import seed_step
from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import Reference, load_reference
from videop2r_data.trainer.model.weights import bare, inferring, sharding
from videop2r_data.trainer.process.advantages import Stream, count_collapsed, pad_masks, streams
from videop2r_data.trainer.process.loss import Denominators, LossResult, denominators, policy_loss
from videop2r_data.trainer.process.rewards import RewardTable, rewards_of
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.between import Tick, end_step, finish, held_out
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally, record_samples
from videop2r_data.trainer.run.session import Fed, Session, feed
from videop2r_data.trainer.run.step import Piece, Updated, cut

JUDGE_CACHE = "judge-cache"


@dataclass
class RlParts:
    """What RL needs beside the session.

    Attributes:
        session: the run.
        roller: draws and grades groups of rollouts.
        judge: started, or None.
        reference: the model of the KL term; None without a KL term.
    """

    session: Session
    roller: Roller
    judge: Judge | None
    reference: Reference | None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def old_logps(self, batches: list[list[Piece]]) -> Tensor:
        """[N, C] log-probabilities under the policy that drew the rollouts.

        Needed only if rollouts serve several updates: at the first update the policy is still the old one.
        """
        with inferring(self.session.engine.model):
            return self._table(batches, self.session.engine.model)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def reference_logps(self, batches: list[list[Piece]]) -> Tensor:
        """[N, C] log-probabilities under the reference."""
        assert self.reference is not None
        with self.session.accelerator.autocast():
            return self._table(batches, self.reference.logps)

    def _table(self, batches: list[list[Piece]], logps_of: Callable[[ModelInputs], TokenLogProbs]) -> Tensor:
        """Log-probabilities of all passes; blank ones run too, because gathering sharded weights is
        collective."""
        device, parts = self.session.accelerator.device, []
        for piece in (piece for pieces in batches for piece in pieces):
            found = logps_of(piece.inputs.to(device)).logps.float().cpu()
            if not piece.blank:
                parts.append((piece, found))
        rows = max((piece.hi for piece, _ in parts), default=0)
        width = max((found.shape[1] for _, found in parts), default=0)
        table = torch.zeros(rows, width)
        for piece, found in parts:
            table[piece.lo : piece.hi, : found.shape[1]] = found
        return table


@contextmanager
def open_parts(session: Session) -> Iterator[RlParts]:
    """Load and start what RL needs; close it with the block.

    Raises:
        ConfigError, MissingExtraError: a part does not fit the settings or is not installed.
    """
    recipe = session.recipe
    judge = make_judge(
        recipe.judging,
        cache=session.folder / JUDGE_CACHE,
        base=Path.cwd(),
        tell=session.log.note,
    )
    drawer = make_drawer(session)
    try:
        if judge is not None:
            judge.start()
        reference = make_reference(session) if recipe.loss.beta > 0 else None
        yield RlParts(session, Roller(session, drawer, judge), judge, reference)
    finally:
        drawer.close()
        if judge is not None:
            judge.close()


def make_drawer(session: Session) -> RolloutEngine:
    """The rollout engine that the recipe names.

    Raises:
        ConfigError: it does not fit how the policy is distributed.
        MissingExtraError: vLLM is not installed.
    """
    recipe, model, tokenizer = session.recipe, session.engine.model, session.policy.tokenizer
    if recipe.sampling.backend == "hf":
        return HfEngine(model, tokenizer, recipe.sampling)
    if recipe.sampling.backend == "vllm":
        from videop2r_data.trainer.rollout.vllm_engine import VllmEngine

        return VllmEngine(
            model,
            tokenizer,
            recipe.sampling,
            recipe.vllm,
            model=recipe.model.model,
            revision=recipe.model.revision,
        )
    from videop2r_data.trainer.rollout.vllm_server import VllmServerEngine

    return VllmServerEngine(model, tokenizer, recipe.sampling, recipe.vllm)


def make_reference(session: Session) -> Reference:
    """The reference: the policy without its adapters, or a frozen second model.

    Under FSDP2 the second model is sharded like the policy; otherwise each process holds all of it. It is not
    prepared by accelerate, which would save it with every checkpoint.
    """
    recipe, model = session.recipe, session.engine.model
    if recipe.model.lora is not None and not recipe.reference:
        return Reference(model)
    spec = recipe.model.model_copy(
        update={
            "lora": None,
            "gradient_checkpointing": False,
            "model": recipe.reference or recipe.model.model,
        }
    )
    frozen = load_reference(spec, session.accelerator.device, temperature=recipe.sampling.temperature)
    if sharding(model) == "FSDP2":
        shard_layers(frozen)
    return Reference(model, frozen)


def shard_layers(frozen: TrainModel) -> None:
    """Shard a frozen model over all processes, layer by layer (FSDP2), in place."""
    from torch.distributed.fsdp import fully_shard

    inner = bare(frozen).model
    for layer in (*inner.language_model.layers, *inner.visual.blocks):
        fully_shard(layer)
    fully_shard(frozen)


def run_rl(session: Session) -> bool:
    """Train until the last step or until asked to stop; a checkpoint is saved either way.

    Returns:
        whether the run is complete (then `final/` is written), False if it was stopped.
    """
    with open_parts(session) as parts:
        session.evaluate = held_out(session, parts.judge, parts.roller.drawer)
        session.log.begin("rl", session.start, session.steps)
        for fed in feed(session):
            seed_step(session.recipe.seed, fed.step, session.accelerator.process_index)
            tick = Tick(data=fed.waited_s)
            row = rl_step(session, parts, fed, tick)
            if end_step(session, fed.step + 1, row, tick):
                break
        return finish(session)


def rl_step(session: Session, parts: RlParts, fed: Fed, tick: Tick) -> dict[str, Any]:
    """One rollout batch and its updates; returns the line to log, its times apart."""
    recipe = session.recipe
    with tick.timed("rollout"):
        rollouts = parts.roller.roll(fed)
        if recipe.objective.entry.shuffles:
            rollouts.shuffled = parts.roller.roll_shuffled(fed)
        ticket, asked = parts.roller.submit(fed, rollouts)
    inputs = fed.prompts.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    batches = _parts(session, fed, inputs)
    with tick.timed("logps"):
        old = parts.old_logps(batches) if recipe.rl.updates > 1 else None
        reference = parts.reference_logps(batches) if recipe.loss.beta > 0 else None
    with tick.timed("judge"):
        rollouts.settle(ticket, asked)
    table = rewards_of(
        rollouts.graded,
        recipe.rewards,
        recipe.rl.group_size,
        objective=recipe.objective,
        shuffled=rollouts.shuffled,
    )
    tally = _tally(parts, rollouts, table, fed)
    mask = torch.arange(int(inputs.lengths.max()) if len(inputs.lengths) else 1) < inputs.lengths[:, None]
    reached = _streams(session, rollouts, table, mask)
    with tick.timed("update"):
        updated = [
            _update(session, pieces, _Learn(reached, mask, old, reference), tally)
            for _ in range(recipe.rl.iterations)
            for pieces in batches
        ]
    with tick.timed("sync"):
        parts.roller.drawer.sync(session.engine.model)
    record_samples(session, fed, rollouts, table, reached)
    return _row(session, updated, tally, parts)


class _Learn:
    """Inputs of the loss beside the policy's log-probabilities; tables are [N, C], N rows of this process."""

    def __init__(
        self, reached: list[Stream], mask: Tensor, old: Tensor | None, reference: Tensor | None
    ) -> None:
        self.streams, self.mask, self.old, self.reference = reached, mask, old, reference

    def loss(self, piece: Piece, told: TokenLogProbs, session: Session, whole: Denominators) -> LossResult:
        """What one micro-batch contributes to the loss of the global batch."""
        device, width, lo, hi = told.logps.device, told.logps.shape[1], piece.lo, piece.hi

        def rows(table: Tensor | None) -> Tensor | None:
            return None if table is None else table[lo:hi, :width].to(device)

        # Masks and advantages of exactly the rows of this micro-batch; `width` is its own longest completion.
        mine = [Stream(s.name, s.mask[lo:hi, :width], s.advantage[lo:hi]).to(device) for s in self.streams]
        return policy_loss(
            told.logps,
            rows(self.old),
            rows(self.reference),
            mine,
            completion_mask=told.mask,
            spec=session.recipe.loss,
            denominators=whole,
            entropy=told.entropy,
        )


def _parts(session: Session, fed: Fed, inputs: Any) -> list[list[Piece]]:
    """The micro-batches of each minibatch: whole groups, the same number in every process."""
    found = []
    for number in range(session.parts):
        lo, hi = fed.part(number, session.share)
        found.append(
            cut(
                inputs,
                lo,
                hi,
                groups=session.recipe.batch.micro,
                pieces=session.engine.pieces,
                blank=session.blank(),
            )
        )
    return found


def _streams(session: Session, rollouts: Rollouts, table: RewardTable, mask: Tensor) -> list[Stream]:
    width = mask.shape[1]
    return streams(
        session.recipe.objective,
        table,
        pad_masks([one.perception for one in rollouts.masks], width),
        pad_masks([one.reasoning for one in rollouts.masks], width),
        completion_mask=mask,
        spec=session.recipe.loss,
    )


def _update(session: Session, pieces: list[Piece], learn: _Learn, tally: Tally) -> Updated:
    """One optimizer update from one minibatch."""
    local = [denominators(learn.mask[piece.lo : piece.hi]) for piece in pieces]
    # Counts of the whole minibatch, over micro-batches and ranks: means of means would weigh short batches
    # more.
    counts = torch.tensor([[d.sequences, d.tokens] for d in local], dtype=torch.float64).sum(dim=0)
    whole = Denominators(*(int(count) for count in session.engine.sums(counts).tolist()))

    def loss_of(piece: Piece, told: TokenLogProbs) -> Tensor:
        result = learn.loss(piece, told, session, whole)
        tally.losses(result.metrics)
        return result.loss

    return session.engine.update(pieces, loss_of, entropy=True)


def _tally(parts: RlParts, rollouts: Rollouts, table: RewardTable, fed: Fed) -> Tally:
    tally = Tally()
    tally.rewards(table, count_collapsed(table))
    tally.lengths(rollouts.graded, rollouts.rolled)
    tally.add("skipped", len(fed.skipped))
    if parts.judge is not None:
        tally.judging(parts.judge.take_stats())
    return tally


def _row(session: Session, updated: list[Updated], tally: Tally, parts: RlParts) -> dict[str, Any]:
    row = tally.row(session.engine.sums)
    row["policy_loss"] = row.pop("policy") / len(updated)
    if parts.judge is None:
        row = {name: value for name, value in row.items() if not name.startswith("judge/")}
    return {
        "loss": sum(one.loss for one in updated) / len(updated),
        "lr": updated[-1].lr,
        "grad_norm": max(one.grad_norm for one in updated),
        **row,
    }
