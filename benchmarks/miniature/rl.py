"""RL with the project's own rewards, advantages, streams and loss.

What is the miniature's: the policy, the world, drawing traces, and the judge. `rewards_of`, `streams` and
`policy_loss` are those of the trainer, called with the groups of one update.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from benchmarks.miniature.alarms import Watch
from benchmarks.miniature.judges import Judge
from benchmarks.miniature.policy import Policy, Written
from benchmarks.miniature.settings import EVERY, KL, POINTS, Arm, Cell, Scale
from benchmarks.miniature.world import DIGITS, TOKENS, Clips, World, solve
from videop2r_data.trainer.process import (
    Graded,
    RewardTable,
    Stream,
    collapsed,
    denominators,
    policy_loss,
    rewards_of,
    streams,
)
from videop2r_data.trainer.settings import LossSpec, ObjectiveSpec, RewardSpec

_FORMS = {"perception": True, "reasoning": True}
_LENGTHS = {"perception": DIGITS, "reasoning": TOKENS - DIGITS}
_TRACES = {(p, r): Graded(float(p), float(r), _FORMS, True, _LENGTHS) for p in (0, 1) for r in (0, 1)}
"""All that a trace of this world can earn: its form and its length are always the same."""


class Batch(NamedTuple):
    """The rollouts of one update: [N] clips in groups, [N, C] traces, and what they earned."""

    clips: Clips
    written: Written
    paid_p: Tensor
    right: Tensor

    @property
    def said(self) -> Tensor:
        """[N, 3] the observations."""
        return self.written.tokens[:, :DIGITS]


class Learner:
    """One run.

    Args:
        arm, cell: what is run; the objective is that of the arm.
        start: the policy that RL goes on from, and its reference.
    """

    def __init__(self, arm: Arm, cell: Cell, world: World, start: Policy, scale: Scale) -> None:
        self.arm, self.cell, self.world, self.scale = arm, cell, world, scale
        self.policy, self.start = copy.deepcopy(start), start
        self.objective = ObjectiveSpec(name=arm.objective)
        # What the publication of an objective fixes goes before the miniature's own settings.
        fixed = self.objective.entry.settings
        self.rewards, self.loss = RewardSpec(length="off"), LossSpec(**{"beta": KL, **fixed.get("loss", {})})
        self.redraws: int = arm.redraws or fixed.get("rl", {}).get("redraws", 0)
        self.optimizer = torch.optim.AdamW(
            self.policy.parameters(), cell.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )
        # All arms of a seed meet the same clips in the same order: other draws have generators of their own.
        made = (Generator().manual_seed(base + cell.seed) for base in (50_000, 60_000, 70_000, 75_000))
        self.clips, self.draws, judged, self.others = made
        self.judge = Judge(cell.judge, cell.error, judged)
        n = scale.prompts * scale.group
        perception = torch.zeros(n, start.tokens)
        perception[:, : start.tokens - 2] = 1
        self.masks = {"perception": perception, "reasoning": 1 - perception}
        self.mask = torch.ones(n, start.tokens, dtype=torch.bool)
        self.before = copy.deepcopy(start)

    @property
    def judged(self) -> bool:
        """Whether the objective pays a judge at all."""
        pays = any(part.endswith("_p") for part in self.objective.entry.parts)
        return pays and self.start.tokens == TOKENS

    def update(self) -> Batch:
        """Draw, pay, and step once."""
        clips = self.world.draw(self.scale.prompts, self.clips)
        if self.redraws:
            clips, said, paid = self._teaching(clips)
            batch, old = self._batch(clips, self._write(clips, self.policy, said=said), paid), None
        else:
            batch, old = self._rollouts(clips)
        with torch.no_grad():
            reference = self._write(clips, self.start, said=batch.written.tokens).logps
        found = policy_loss(
            batch.written.logps, old, reference, self.streams(batch, clips),
            completion_mask=self.mask, spec=self.loss,
            denominators=denominators(self.mask)._replace(longest=self.start.tokens),
            blind_logps=self._blind(clips, batch.written.tokens),
        )  # fmt: skip
        if self.arm.stale:
            self.before.load_state_dict(self.policy.state_dict())
        self.optimizer.zero_grad()
        found.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        return batch

    def _write(self, clips: Clips, policy: Policy, said: Tensor | None = None) -> Written:
        """Groups of traces, drawn or as they are."""
        read = policy.read(clips.seen, clips.question)
        return policy.write(read, self.draws, group=self.scale.group, said=said)

    def _rollouts(self, clips: Clips) -> tuple[Batch, Tensor | None]:
        """The rollouts, and the log-probabilities of the policy that drew them if that is an older one."""
        if not self.arm.stale:
            return self._batch(clips, self._write(clips, self.policy)), None
        with torch.no_grad():
            drawn = self._write(clips, self.before)
        return self._batch(clips, self._write(clips, self.policy, said=drawn.tokens)), drawn.logps

    def _batch(self, clips: Clips, written: Written, paid: Tensor | None = None) -> Batch:
        """With what the traces earn; `paid` if a judge has said so before."""
        group = self.scale.group
        rows = clips.at(torch.arange(len(clips.question)).repeat_interleave(group))
        if paid is None and self.judged:
            paid = self.judge.pay(written.tokens[:, :DIGITS], rows, group)
        elif paid is None:
            paid = torch.zeros(len(written.tokens), dtype=torch.bool)
        return Batch(rows, written, paid, written.tokens[:, -1] == rows.answer)

    def table(self, batch: Batch, shuffled: list[list[float]] | None = None) -> RewardTable:
        """The project's rewards of whole groups."""
        graded = [_TRACES[p, r] for p, r in zip(batch.paid_p.tolist(), batch.right.tolist(), strict=True)]
        return rewards_of(
            graded, self.rewards, self.scale.group,
            objective=self.objective, shuffled=shuffled, longest=self.start.tokens,
        )  # fmt: skip

    def streams(self, batch: Batch, clips: Clips) -> list[Stream]:
        """What the project's objective makes of the rollouts."""
        table = self.table(batch, self._shuffled(clips) if self.objective.entry.shuffles else None)
        return streams(self.objective, table, self.masks, completion_mask=self.mask, spec=self.loss)

    def _teaching(self, clips: Clips) -> tuple[Clips, Tensor, Tensor]:
        """Dynamic sampling [DAPO]: groups whose rewards are all equal give way to groups of other questions.

        Returns:
            Clips, [N, C] traces and [N] what the judge pays; groups that still teach nothing stay.
        """
        group, digits, question, seen = self.scale.group, *(one.clone() for one in clips)
        with torch.no_grad():
            first = self._batch(clips, self._write(clips, self.policy))
            traces, paid = (
                x.view(len(question), group, -1).clone() for x in (first.written.tokens, first.paid_p)
            )
            flat = self._flat(first).nonzero()[:, 0]
            for _ in range(self.redraws):
                if not len(flat):
                    break
                other = self.world.draw(len(flat), self.others)
                batch = self._batch(other, self._write(other, self.policy))
                better = ~self._flat(batch)
                places, flat = flat[better], flat[~better]
                digits[places], question[places] = other.digits[better], other.question[better]
                seen[places] = other.seen[better]
                traces[places] = batch.written.tokens.view(-1, group, traces.shape[2])[better]
                paid[places] = batch.paid_p.view(-1, group, 1)[better]
        return Clips(digits, question, seen), traces.flatten(0, 1), paid.flatten()

    def _flat(self, batch: Batch) -> Tensor:
        """[B] bool: no sum of rewards that the objective normalises differs within the group."""
        table = self.table(batch)
        sums = [parts for one in self.objective.entry.earned(table.streams) for parts in one.sums]
        return torch.stack([collapsed(*table.earned(parts), table.group_size) for parts in sums]).all(dim=0)

    def _blind(self, clips: Clips, traces: Tensor) -> Tensor | None:
        """What the policy would say to clips that are mostly black, for an objective that asks [PAPO].

        A frame has patches of 4 by 4 pixels here; of glimpses whole vectors are made black.
        """
        if not self.loss.perception:
            return None
        share, seen = self.loss.blackened, clips.seen
        shape = (
            (*seen.shape[:2], *(side // 4 for side in seen.shape[2:]))
            if self.world.pixels
            else seen.shape[:2]
        )
        left = (torch.rand(shape, generator=self.others) >= share).float()
        for axis in range(2, left.ndim):
            left = left.repeat_interleave(4, dim=axis)
        seen = seen * left.reshape(*left.shape, *[1] * (seen.ndim - left.ndim))
        with torch.no_grad():
            return self._write(clips._replace(seen=seen), self.policy, said=traces).logps

    def _shuffled(self, clips: Clips) -> list[list[float]]:
        """Accuracies of the groups that see the frames in another order [T-GRPO]."""
        size = self.objective.temporal.shuffled_size(self.scale.group)
        order = torch.rand(clips.digits.shape, generator=self.draws).argsort(dim=1)
        mixed = clips.seen[torch.arange(len(order))[:, None], order]
        with torch.no_grad():
            written = self.policy.write(self.policy.read(mixed, clips.question), self.draws, group=size)
        right = written.tokens[:, -1].view(-1, size) == clips.answer[:, None]
        accuracies: list[list[float]] = right.float().tolist()
        return accuracies


Measure = Callable[[Policy, int], dict[str, Any]]


def run(
    arm: Arm, cell: Cell, world: World, start: Policy, scale: Scale, measured: Measure
) -> tuple[Policy, dict[str, Any]]:
    """One run of RL: its curve, its training figures, its alarms, its calls.

    Args:
        measured: policy and update -> figures on held-out clips, for the curve.
    """
    began = time.process_time()
    learner = Learner(arm, cell, world, start, scale)
    watch = Watch(learner.judge if learner.judged else None, world, cell.seed)
    points = {round(cell.updates * k / POINTS) for k in range(1, POINTS + 1)}
    curve = [{"step": 0, **measured(learner.policy, 0)}]
    lately: list[tuple[float, ...]] = []
    training = []
    for step in range(1, cell.updates + 1):
        batch = learner.update()
        lately.append(_told(batch))
        if start.tokens == TOKENS and (step == 1 or step % EVERY == 0):
            with torch.no_grad():
                watch.read(step, learner.policy, batch.clips, batch.said, batch.right, scale.group)
        if step % EVERY == 0 or step == cell.updates:
            training.append([step, *(round(sum(x) / len(lately), 4) for x in zip(*lately, strict=True))])
            lately = []
        if step in points:
            curve.append({"step": step, **measured(learner.policy, step)})
    return learner.policy, {
        "curve": curve,
        "training": training,
        "readings": watch.rows,
        "calls": learner.judge.calls,
        "cpu_s": round(time.process_time() - began, 2),
    }


TOLD = ("step", "paid_p", "answers", "observations", "invented")
"""Columns of the training figures."""


def _told(batch: Batch) -> tuple[float, ...]:
    """Shares of paid observations, right answers, true and invented observations in the rollouts."""
    means = [batch.paid_p.float().mean().item(), batch.right.float().mean().item()]
    if batch.written.tokens.shape[1] < TOKENS:
        return (*means, 0.0, 0.0)
    true = (batch.said == batch.clips.digits).all(dim=1)
    invented = ~true & (solve(batch.said, batch.clips.question) == batch.clips.answer)
    return (*means, true.float().mean().item(), invented.float().mean().item())
