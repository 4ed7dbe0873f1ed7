"""Reinforcement learning: PA-GRPO, its ablations, T-GRPO; `rl_step` is a step on one screen [paper §3.3].

Per step: prompts -> G rollouts of each -> a stream of the trace for each token -> observations to the
judge, as each of them ends, which works while the others are drawn and the old and reference
log-probabilities are computed -> answers and verdicts to rewards -> advantages per stream and group
-> clipped loss over counts of the global batch -> clip -> AdamW -> weights to the rollout engine.

A group is never split: it is drawn, rewarded and trained on in one process and one micro-batch.
"""

from __future__ import annotations

import itertools
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Frames
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.judging.model import make_judge
from videop2r_data.trainer.memory import guarded
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel
from videop2r_data.trainer.model.load import Reference, load_reference
from videop2r_data.trainer.model.weights import bare, inferring, sharding
from videop2r_data.trainer.process.advantages import Stream, pad_masks, streams
from videop2r_data.trainer.process.loss import Denominators, LossResult, denominators, mismatch, policy_loss
from videop2r_data.trainer.rollout.base import RolloutEngine, prompt_room
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.run.ahead import Draws
from videop2r_data.trainer.run.alarms import Alarms
from videop2r_data.trainer.run.between import Tick, held_out, train_loop
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally, record_samples
from videop2r_data.trainer.run.session import Fed, Session
from videop2r_data.trainer.run.step import Piece, Updated, line_of
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import LossSpec

JUDGE_CACHE = "judge-cache"
_PATCH = 14  # pixels, the side of what PAPO makes black, or leaves


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
        alarms = Alarms(roller, seer)
        with closing(Draws(roller, alarms)) as draws:
            before = draws.sync if recipe.rl.ahead else lambda: None
            evaluate = held_out(session, alarms.judge, drawer, before)
            return train_loop(session, draws, partial(rl_step, draws, reference), evaluate)


def make_drawer(session: Session) -> RolloutEngine:
    """The rollout engine that the recipe names."""
    recipe, model, tokenizer = session.recipe, session.engine.model, session.policy.tokenizer
    spec, sampling, vllm = recipe.model, recipe.sampling, recipe.vllm
    if sampling.backend == "hf":
        return HfEngine(model, tokenizer, sampling, logps=recipe.correction is not None)
    if sampling.backend == "vllm":
        from videop2r_data.trainer.rollout.vllm_engine import VllmEngine

        return VllmEngine(model, tokenizer, sampling, vllm, model=spec.model, revision=spec.revision)
    from videop2r_data.trainer.rollout.vllm_server import VllmServerEngine

    return VllmServerEngine(model, tokenizer, sampling, vllm)


def make_reference(session: Session) -> Reference:
    """The policy without its adapters, or a frozen second model: sharded like the policy under FSDP2, else
    whole in each process. accelerate does not prepare it, which would save it with every checkpoint."""
    recipe, spec, model = session.recipe, session.recipe.model, session.engine.model
    if spec.lora is not None and not recipe.reference:
        return Reference(model)
    dtype = spec.dtype if spec.reference_dtype == "policy" else spec.reference_dtype
    named = spec.model_copy(update={"model": recipe.reference or spec.model, "dtype": dtype})
    frozen = load_reference(named, session.accelerator.device, temperature=recipe.sampling.temperature)
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
    """One rollout batch and its updates; returns the line to log, its times apart. The alarms change nothing
    but that line; without a KL term there is no reference."""
    session, roller, alarms = draws.session, draws.roller, draws.alarms
    recipe = session.recipe
    fed, rollouts, reading, _ = draws.take(fed, tick)
    inputs = fed.prompts.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    batches = session.cut(inputs, fed)
    with tick.timed("logps"):
        # At the first update the policy is still the old one.
        again = recipe.rl.updates > 1 and recipe.correction != "ratio"
        old = _logps(session, batches) if again else None
        held = _logps(session, batches, reference) if reference else None
        blind = _blind_logps(session, fed, rollouts) if recipe.loss.perception > 0 else None
    with tick.timed("judge"):
        rollouts.settle(recipe.judging)
        alarms.submit(reading)
    table, tally = roller.rewarded(rollouts), Tally(recipe)
    tally.rewards(table)
    tally.rollouts(rollouts)
    tally.add("skipped", len(fed.skipped))
    if recipe.rl.redraws:
        tally.add("redrawn", rollouts.redrawn)
        tally.add("replaced", rollouts.replaced)
    mask = torch.arange(int(inputs.lengths.max()) if len(inputs.lengths) else 1) < inputs.lengths[:, None]
    owned = {
        s.name: pad_masks([one.weights[s.name] for one in rollouts.masks], mask.shape[1])
        for s in table.streams
    }
    sums = session.engine.sums
    reached = streams(recipe.objective, table, owned, completion_mask=mask, spec=recipe.loss, sums=sums)
    drawn = _drawn_logps(rollouts, recipe, mask.shape[1])
    learn = _Learn(reached, mask, drawn if recipe.correction == "ratio" else old, held, blind, drawn)
    parts = {"all": mask} | {s.key: owned[s.name] > 0 for s in table.streams}
    with tick.timed("update"):
        updated = [
            _update(session, pieces, learn, tally, {} if number else parts)
            for number in range(recipe.rl.iterations)
            for pieces in batches
        ]
    if not recipe.rl.ahead:
        with tick.timed("sync"):
            draws.sync()
    record_samples(session, fed, rollouts, table, reached)
    with tick.timed("judge"):
        alarms.settle(fed, rollouts, reading, tally)
    row = tally.row(judged=roller.judge is not None)
    row["policy_loss"] = row.pop("policy") / len(updated)
    return alarms.told(fed.step + 1, {**line_of(updated), **row})


@torch.no_grad()  # type: ignore[untyped-decorator]
def _logps(session: Session, batches: list[list[Piece]], reference: Reference | None = None) -> Tensor:
    """[N, C] log-probabilities under the reference, or under the policy as it is now."""
    model, device = session.engine.model, session.accelerator.device
    parts = []
    # blank passes run too, because gathering sharded weights is collective
    with inferring(model) if reference is None else session.accelerator.autocast():
        for piece in itertools.chain.from_iterable(batches):
            told = (reference.logps if reference else model)(piece.inputs.to(device))
            if not piece.blank:
                parts.append((piece, told.logps.float().cpu()))
    rows = max((piece.hi for piece, _ in parts), default=0)
    width = max((found.shape[1] for _, found in parts), default=0)
    table = torch.zeros(rows, width)
    for piece, found in parts:
        table[piece.lo : piece.hi, : found.shape[1]] = found
    return table


def _blind_logps(session: Session, fed: Fed, rollouts: Rollouts) -> Tensor:
    """[N, C] log-probabilities of the rollouts for a policy that sees little of their clips."""
    recipe, prompts = session.recipe, fed.prompts
    frames = [
        blackened(seen, recipe.loss.blackened, derive(recipe.seed, "black", fed.step, place))
        for seen, place in zip(prompts.frames, fed.places, strict=True)
    ]
    dark = session.collator(prompts.examples, frames)
    inputs = dark.with_completions([one.ids for one in rollouts.rolled], recipe.rl.group_size)
    return _logps(session, session.cut(inputs, fed))


def blackened(frames: Frames | None, share: float, seed: int) -> Frames | None:
    """The frames with a share of their patches of 14 x 14 pixels black, others in every frame [PAPO]."""
    if frames is None or frames.array is None:
        return frames
    count, height, width = frames.array.shape[:3]
    black = np.random.default_rng(seed).random((count, -(-height // _PATCH), -(-width // _PATCH))) < share
    pixels = black.repeat(_PATCH, 1).repeat(_PATCH, 2)[:, :height, :width, None]
    return replace(frames, array=np.where(pixels, np.uint8(0), frames.array))


class _Learn(NamedTuple):
    """Inputs of the loss beside the policy's log-probabilities: [N, C], N rows of this process."""

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
    """[N, C] the engine's own log-probabilities; None if it records none, and none are needed."""
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
    # over micro-batches and ranks: means of means would weigh short batches more
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
