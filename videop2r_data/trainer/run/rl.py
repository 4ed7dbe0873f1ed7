"""Reinforcement learning: PA-GRPO, its ablations, T-GRPO; `rl_step` is a step on one screen [paper §3.3].

Per step: prompts -> G rollouts of each -> a stream of the trace for each token -> observations to the
judge, as each of them ends, which works while the others are drawn and the old and reference
log-probabilities are computed -> answers and verdicts to
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

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Frames
from videop2r_data.trainer.data.batch import ModelInputs
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import Reference, load_reference
from videop2r_data.trainer.model.weights import bare, inferring, sharding
from videop2r_data.trainer.process.advantages import Stream, pad_masks, streams
from videop2r_data.trainer.process.loss import Denominators, LossResult, denominators, mismatch, policy_loss
from videop2r_data.trainer.process.rewards import RewardTable
from videop2r_data.trainer.rollout.base import RolloutEngine, prompt_room
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.ahead import Draws
from videop2r_data.trainer.run.alarms import Alarms
from videop2r_data.trainer.run.between import Tick, held_out, train_loop
from videop2r_data.trainer.run.redraw import Redrawn, rewarded
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
        asked = judge if "sufficiency" in judging.asked else None
        measure = held_out(session, asked, drawer)
        with closing(Draws(roller, Alarms(roller, seer))) as draws:

            def evaluate(step: int) -> dict[str, float]:
                if recipe.rl.ahead:
                    draws.sync()
                return measure(step) if measure else {}

            return train_loop(
                session, draws, partial(rl_step, draws, reference), evaluate if measure else None
            )


def make_drawer(session: Session) -> RolloutEngine:
    """The rollout engine that the recipe names.

    Raises:
        ConfigError: it does not fit how the policy is distributed.
        MissingExtraError: vLLM is not installed.
    """
    recipe, model, tokenizer = session.recipe, session.engine.model, session.policy.tokenizer
    if recipe.sampling.backend == "hf":
        return HfEngine(model, tokenizer, recipe.sampling, logps=recipe.correction is not None)
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


def rl_step(draws: Draws, reference: Reference | None, fed: Fed, tick: Tick) -> dict[str, Any]:
    """One rollout batch and its updates; returns the line to log, its times apart.

    Args:
        draws: has the graded groups of rollouts, and the alarms, which change nothing but the line.
        reference: the model of the KL term; None without a KL term.
        fed: the prompts.
        tick: gets the times.
    """
    session, roller, alarms = draws.session, draws.roller, draws.alarms
    recipe = session.recipe
    fresh, reading, _ = draws.take(fed, tick)
    fed, rollouts = fresh.fed, fresh.rollouts
    inputs = fed.prompts.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    # the micro-batches of each minibatch: whole groups, the same number in every process
    batches = [
        session.cut(inputs, *fed.part(number, session.share)) for number in range(recipe.rl.minibatches)
    ]
    with tick.timed("logps"):
        again = recipe.rl.updates > 1 and recipe.correction != "ratio"
        old = _old_logps(session, batches) if again else None
        held = None if reference is None else _reference_logps(session, batches, reference)
        blind = _blind_logps(session, fed, rollouts) if recipe.loss.perception > 0 else None
    with tick.timed("judge"):
        rollouts.settle(recipe.judging)
        alarms.submit(reading)
    table = rewarded(roller, rollouts)
    tally = _tally(fresh, table, recipe)
    mask = torch.arange(int(inputs.lengths.max()) if len(inputs.lengths) else 1) < inputs.lengths[:, None]
    owned = {
        s.name: pad_masks([one.weights[s.name] for one in rollouts.masks], mask.shape[1])
        for s in table.streams
    }
    reached = streams(
        recipe.objective,
        table,
        owned,
        completion_mask=mask,
        spec=recipe.loss,
        sums=session.engine.sums,
    )
    drawn = _drawn_logps(rollouts, recipe, mask.shape[1])
    learn = _Learn(reached, mask, drawn if recipe.correction == "ratio" else old, held, blind, drawn)
    parts = {"all": mask} | {s.key: owned[s.name] > 0 for s in table.streams}
    with tick.timed("update"):
        updated = [
            _update(session, pieces, learn, tally, {} if again else parts)
            for again in range(recipe.rl.iterations)
            for pieces in batches
        ]
    draws.done(tick)
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
    drawn: Tensor | None = None

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
            drawn_logps=rows(self.drawn) if spec.correction == "tis" else None,
        )


def _drawn_logps(rollouts: Rollouts, recipe: TrainRecipe, width: int) -> Tensor | None:
    """[N, C] the engine's own log-probabilities; None: it records none.

    Raises:
        ConfigError: it records none, and the loss is corrected by them.
    """
    found = [one.logps for one in rollouts.rolled if one.logps is not None]
    if len(found) == len(rollouts.rolled):
        return pad_masks(found, width)
    if recipe.correction is None:
        return None
    raise ConfigError(
        f"correction {recipe.correction!r} needs the engine's log-probabilities, and it tells none",
        where="sampling.backend",
        hint=f"start vLLM's server with --logprobs-mode {recipe.sampling.logprobs_mode}",
    )


def _update(
    session: Session, pieces: list[Piece], learn: _Learn, tally: Tally, parts: dict[str, Tensor]
) -> Updated:
    """One optimizer update from one minibatch; in `parts` (name -> [N, C] bool) trainer and engine are
    compared."""
    local = [denominators(learn.mask[piece.lo : piece.hi]) for piece in pieces]
    # Counts of the whole minibatch, over micro-batches and ranks: means of means would weigh short batches
    # more.
    counts = session.engine.sums(torch.tensor(local, dtype=torch.float64).sum(dim=0))
    whole = Denominators(*map(int, counts.tolist()))._replace(longest=session.recipe.sampling.max_new_tokens)

    def loss_of(piece: Piece, told: TokenLogProbs) -> Tensor:
        """The objective over one piece of the batch."""
        result = learn.loss(piece, told, session.recipe.loss, whole)
        if learn.drawn is not None:
            at = slice(piece.lo, piece.hi), slice(told.logps.shape[1])
            for key, where in parts.items():
                tally.mismatch(key, mismatch(told.logps.cpu(), learn.drawn[at], where[at]))
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
    row = tally.row(session.engine.sums, session.engine.largest)
    row["policy_loss"] = row.pop("policy") / len(updated)
    if not judged:
        row = {name: value for name, value in row.items() if not name.startswith("judge/")}
    return {**line_of(updated), **row}
