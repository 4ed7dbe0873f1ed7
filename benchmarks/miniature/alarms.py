"""The alarms of the trainer, read in the miniature: the same questions, and the rules of `alarms_up`.

At the first update and every 25 updates 8 questions of the batch are shown black frames, and the clip of the
next one of these questions, and the policy writes 2 observations about each. Sufficiency is decided by the
judge of the run, with its errors; in a run whose judge does not decide it the policy itself answers from the
observation, in front of black frames. `alarm/own` is the same of the questions' own rollouts, `alarm/seen`
the share of true digits in two observations of own clips, and `alarm/usual_*` the accuracy of all rollouts by
whether their question's usual answer, counted over training questions, is right.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.miniature.judges import Judge
from benchmarks.miniature.policy import Policy
from benchmarks.miniature.world import BASE, DIGITS, QUESTIONS, Clips, World
from videop2r_data.validators import ALARMS, RAISED, alarms_up

PROMPTS, ROLLOUTS = 8, 2
"""Of a reading: the trainer's defaults."""


class Watch:
    """Takes the readings of a run.

    Args:
        judge: of the run; None: nobody judges.
        world: whose training questions are counted for the usual answers.
    """

    def __init__(self, judge: Judge | None, world: World, seed: int) -> None:
        # Nothing of a reading reaches the training: neither its draws nor the judge's.
        own = Generator().manual_seed(85_000 + seed)
        self.judge = Judge(judge.name, judge.error, own) if judge is not None and judge.reads else None
        self.rows: list[dict[str, Any]] = []
        self.draws = Generator().manual_seed(80_000 + seed)
        asked = world.draw(4096, Generator().manual_seed(90_000 + seed))
        counts = torch.zeros(QUESTIONS, BASE)
        counts.index_put_((asked.question, asked.answer), torch.ones(len(asked.question)), accumulate=True)
        self.usual = counts.argmax(dim=1)

    def read(self, step: int, policy: Policy, clips: Clips, said: Tensor, right: Tensor, group: int) -> None:
        """One reading of the rollouts of an update.

        Args:
            clips: [N], in groups of `group`.
            said: [N, 3] observations.
            right: [N] whether the answers are.
        """
        firsts = torch.arange(0, len(right), group)
        few = min(PROMPTS, len(firsts))
        places = firsts[torch.arange(few) * len(firsts) // few]
        chosen = clips.at(places)
        two = _rows(places, ROLLOUTS)
        row: dict[str, Any] = {"step": step}
        for name, seen in (("empty", chosen.black), ("shuffled", chosen.seen.roll(-1, dims=0))):
            drawn = policy.write(policy.read(seen, chosen.question), self.draws, group=ROLLOUTS)
            _add(row, name, self._suffices(policy, drawn.tokens[:, :DIGITS], clips.at(two)))
        # Where nobody judges, the policy answers from as many observations of own clips as of the others.
        own = _rows(places, group) if self.judge else two
        _add(row, "own", self._suffices(policy, said[own], clips.at(own)))
        _add(row, "seen", (said[two] == clips.digits[two]).float().mean(dim=1))
        holds = clips.answer[firsts] == self.usual[clips.question[firsts]]
        shares = right.float().view(-1, group).mean(dim=1)
        _add(row, "usual_right", shares[holds])
        _add(row, "usual_wrong", shares[~holds])
        up = alarms_up([*self.rows, row])
        self.rows.append(row | {RAISED: len(up), **({ALARMS: up} if up else {})})

    def _suffices(self, policy: Policy, said: Tensor, clips: Clips) -> Tensor:
        """[N] scores of observations."""
        if self.judge is not None:
            return self.judge.verdict("sufficient", said, clips).float()
        written = policy.write(policy.read(clips.black, clips.question), self.draws, said=said)
        return (written.tokens[:, -1] == clips.answer).float()


def _rows(firsts: Tensor, count: int) -> Tensor:
    """The first rollouts of some groups."""
    return (firsts[:, None] + torch.arange(count)).flatten()


def _add(row: dict[str, Any], name: str, scores: Tensor) -> None:
    """A share and how many things it is of, as in a line of the trainer's metrics."""
    if len(scores):
        row[f"alarm/{name}"] = round(scores.float().mean().item(), 4)
        row[f"alarm/{name}_n"] = len(scores)
