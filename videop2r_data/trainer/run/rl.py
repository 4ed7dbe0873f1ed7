"""Reinforcement learning: PA-GRPO, its ablations, T-GRPO; `rl_step` is a step on one screen [paper §3.3].

Per step: prompts -> G rollouts of each -> a stream of the trace for each token -> observations to the
judge, which works while the old and reference log-probabilities are computed -> answers and verdicts to
rewards -> advantages per stream and group -> clipped loss over counts of the global batch -> clip -> AdamW
-> weights to the rollout engine.

A group is never split: it is drawn, rewarded and trained on in one process and one micro-batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from videop2r_data.schemas import Frames
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import Reference, load_reference
from videop2r_data.trainer.model.weights import bare, inferring, sharding
from videop2r_data.trainer.process.advantages import Stream, pad_masks, streams
from videop2r_data.trainer.process.loss import Denominators, LossResult, denominators, policy_loss
from videop2r_data.trainer.process.rewards import RewardTable
from videop2r_data.trainer.rollout.base import RolloutEngine, prompt_room
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.alarms import Alarms
from videop2r_data.trainer.run.between import Tick, held_out, train_loop
from videop2r_data.trainer.run.redraw import Redrawn, redrawn, rewarded
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally, record_samples
from videop2r_data.trainer.run.session import Fed, Session
from videop2r_data.trainer.run.step import Piece, Updated, line_of
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import LossSpec

JUDGE_CACHE = "judge-cache"
_PATCH = 14
"""Side in pixels of what PAPO makes black, or leaves."""


def run_rl(session: Session) -> bool:
    """Train; what it returns is said in `train_loop`.

    Raises:
        ConfigError, MissingExtraError: a part does not fit the settings or is not installed.
    """
    recipe = session.recipe
    judging, cache = recipe.judging, recipe.folder / JUDGE_CACHE
    ask = partial(make_judge, judging, cache=cache, tell=session.log.note, media=recipe.data.media)
    judge = ask(asks=judging.asked)
    sees = recipe.alarms.seeing and "faithfulness" not in judging.asked
    seer = ask(asks=("faithfulness",)) if sees else None
    with guarded("engine"):
        made = make_drawer(session)
    with closing(made) as drawer, judge or nullcontext(), seer or nullcontext():
        session.collator.allow(*prompt_room(drawer, recipe.sampling))
        roller = Roller(session, drawer, judge)
        with guarded("reference"):
            reference = make_reference(session) if recipe.loss.beta > 0 else None
        step = partial(rl_step, roller, reference, Alarms(roller, seer))
        asked = judge if "sufficiency" in judging.asked else None
        return train_loop(session, step, held_out(session, asked, drawer))


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

        policy = recipe.model
        return VllmEngine(
            model, tokenizer, recipe.sampling, recipe.vllm, model=policy.model, revision=policy.revision
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
    named = recipe.reference or recipe.model.model
    chosen = recipe.model.reference_dtype
    spec = recipe.model.model_copy(
        update={
            "lora": None,
            "gradient_checkpointing": False,
            "model": named,
            "dtype": recipe.model.dtype if chosen == "policy" else chosen,
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


def rl_step(
    roller: Roller, reference: Reference | None, alarms: Alarms, fed: Fed, tick: Tick
) -> dict[str, Any]:
    """One rollout batch and its updates; returns the line to log, its times apart.

    Args:
        roller: draws and grades groups of rollouts.
        reference: the model of the KL term; None without a KL term.
        alarms: of the run; they change nothing but the line.
        fed: the prompts.
        tick: gets the times.
    """
    session = roller.session
    recipe = session.recipe
    with tick.timed("rollout"):
        rollouts = roller.roll(fed)
        if recipe.objective.entry.shuffles:
            rollouts.shuffled = roller.roll_shuffled(fed)
        roller.submit(fed, rollouts)
        fresh = redrawn(roller, fed, rollouts) if recipe.rl.redraws else Redrawn(fed, rollouts)
        fed, rollouts = fresh.fed, fresh.rollouts
        reading = alarms.draw(fed, rollouts)
    inputs = fed.prompts.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    # the micro-batches of each minibatch: whole groups, the same number in every process
    batches = [
        session.cut(inputs, *fed.part(number, session.share)) for number in range(recipe.rl.minibatches)
    ]
    with tick.timed("logps"):
        old = _old_logps(session, batches) if recipe.rl.updates > 1 else None
        held = None if reference is None else _reference_logps(session, batches, reference)
        blind = _blind_logps(session, fed, rollouts) if recipe.loss.perception > 0 else None
    with tick.timed("judge"):
        rollouts.settle(recipe.judging)
        alarms.submit(reading)
    table = rewarded(roller, rollouts)
    tally = _tally(fresh, table, recipe)
    mask = torch.arange(int(inputs.lengths.max()) if len(inputs.lengths) else 1) < inputs.lengths[:, None]
    reached = _streams(session, rollouts, table, mask)
    with tick.timed("update"):
        learn = _Learn(reached, mask, old, held, blind)
        updated = [
            _update(session, pieces, learn, tally) for _ in range(recipe.rl.iterations) for pieces in batches
        ]
    with tick.timed("sync"):
        roller.drawer.sync(session.engine.model)
    record_samples(session, fed, rollouts, table, reached)
    with tick.timed("judge"):
        alarms.settle(fed, rollouts, reading, tally)
    return alarms.told(fed.step + 1, _row(session, updated, tally, judged=roller.judge is not None))


@torch.no_grad()  # type: ignore[untyped-decorator]
def _old_logps(session: Session, batches: list[list[Piece]]) -> Tensor:
    """[N, C] log-probabilities under the policy that drew the rollouts.

    Needed only if rollouts serve several updates: at the first update the policy is still the old one.
    """
    with inferring(session.engine.model):
        return _logps(session, batches, session.engine.model)


@torch.no_grad()  # type: ignore[untyped-decorator]
def _reference_logps(session: Session, batches: list[list[Piece]], reference: Reference) -> Tensor:
    with session.accelerator.autocast():
        return _logps(session, batches, reference.logps)


def _blind_logps(session: Session, fed: Fed, rollouts: Rollouts) -> Tensor:
    """[N, C] log-probabilities of the rollouts for a policy that sees little of their clips."""
    recipe, prompts = session.recipe, fed.prompts
    frames = [
        blackened(seen, recipe.loss.blackened, derive(recipe.seed, "black", fed.step, session.place(local)))
        for seen, local in zip(prompts.frames, fed.places, strict=True)
    ]
    dark = session.collator(prompts.examples, frames)
    inputs = dark.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    parts = [fed.part(number, session.share) for number in range(recipe.rl.minibatches)]
    return _old_logps(session, [session.cut(inputs, *part) for part in parts])


def blackened(frames: Frames | None, share: float, seed: int) -> Frames | None:
    """The frames with a share of their patches of 14 x 14 pixels black, others in every frame [PAPO]."""
    if frames is None or frames.array is None:
        return frames
    count, height, width = frames.array.shape[:3]
    black = np.random.default_rng(seed).random((count, -(-height // _PATCH), -(-width // _PATCH))) < share
    pixels = black.repeat(_PATCH, 1).repeat(_PATCH, 2)[:, :height, :width, None]
    return replace(frames, array=np.where(pixels, np.uint8(0), frames.array))


def _logps(
    session: Session, batches: list[list[Piece]], logps_of: Callable[[ModelInputs], TokenLogProbs]
) -> Tensor:
    """[N, C] log-probabilities of all passes; blank ones run too, because gathering sharded weights is
    collective."""
    parts = []
    for piece in itertools.chain.from_iterable(batches):
        found = logps_of(piece.inputs.to(session.accelerator.device)).logps.float().cpu()
        if not piece.blank:
            parts.append((piece, found))
    rows = max((piece.hi for piece, _ in parts), default=0)
    width = max((found.shape[1] for _, found in parts), default=0)
    table = torch.zeros(rows, width)
    for piece, found in parts:
        table[piece.lo : piece.hi, : found.shape[1]] = found
    return table


class _Learn(NamedTuple):
    """Inputs of the loss beside the policy's log-probabilities; tables are [N, C], N rows of this process."""

    streams: list[Stream]
    mask: Tensor
    old: Tensor | None
    reference: Tensor | None
    blind: Tensor | None = None

    def loss(self, piece: Piece, told: TokenLogProbs, spec: LossSpec, whole: Denominators) -> LossResult:
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
            spec=spec,
            denominators=whole,
            entropy=told.entropy,
            blind_logps=rows(self.blind),
        )


def _streams(session: Session, rollouts: Rollouts, table: RewardTable, mask: Tensor) -> list[Stream]:
    width = mask.shape[1]
    return streams(
        session.recipe.objective,
        table,
        {s.name: pad_masks([one.weights[s.name] for one in rollouts.masks], width) for s in table.streams},
        completion_mask=mask,
        spec=session.recipe.loss,
        sums=session.engine.sums,
    )


def _update(session: Session, pieces: list[Piece], learn: _Learn, tally: Tally) -> Updated:
    """One optimizer update from one minibatch."""
    local = [denominators(learn.mask[piece.lo : piece.hi]) for piece in pieces]
    # Counts of the whole minibatch, over micro-batches and ranks: means of means would weigh short batches
    # more.
    counts = session.engine.sums(torch.tensor(local, dtype=torch.float64).sum(dim=0))
    whole = Denominators(*map(int, counts.tolist()))._replace(longest=session.recipe.sampling.max_new_tokens)

    def loss_of(piece: Piece, told: TokenLogProbs) -> Tensor:
        result = learn.loss(piece, told, session.recipe.loss, whole)
        for name, pair in result.metrics.items():
            tally.add(name, *pair.tolist())
        return result.loss

    return session.engine.update(pieces, loss_of, entropy=True)


def _tally(fresh: Redrawn, table: RewardTable, recipe: TrainRecipe) -> Tally:
    rollouts = fresh.rollouts
    tally = Tally(table.streams, recipe.judging.asked, ("redrawn", "replaced") if recipe.rl.redraws else ())
    tally.rewards(table)
    tally.lengths(rollouts.graded, rollouts.rolled)
    tally.add("skipped", len(fresh.fed.skipped))
    tally.judged(rollouts.judged)
    if recipe.rl.redraws:
        tally.add("redrawn", fresh.drawn)
        tally.add("replaced", fresh.replaced)
    return tally


def _row(session: Session, updated: list[Updated], tally: Tally, *, judged: bool) -> dict[str, Any]:
    row = tally.row(session.engine.sums)
    row["policy_loss"] = row.pop("policy") / len(updated)
    if not judged:
        row = {name: value for name, value in row.items() if not name.startswith("judge/")}
    return {**line_of(updated), **row}
