"""Who pays perception: rules that stand for judges, with errors of a known size, and what they would cost.

    sufficient  the rules, applied to the observation, lead to the right answer: all that a judge can tell
                which reads question, answer and observation, and does not see the clip ("blind")
    true        every digit is what the clip shows ("seeing"); a true observation is sufficient
    claim       one digit of the three, drawn at random, is what the clip shows

A judge asks one or two of these and pays 1 if all are yes. Each verdict is turned round with the judge's
error, on its own. As in the trainer, what needs the clip is asked only where the other one said yes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from benchmarks.miniature.settings import JUDGES
from benchmarks.miniature.world import BASE, DIGITS, Clips, solve


@dataclass
class Judge:
    """Decides, and counts.

    Attributes:
        name: key of `JUDGES`.
        error: share of the verdicts of each question that are turned round.
        calls: texts, and texts with the clip, that a model would have been asked: equal observations of a
            question are asked about once. What is seen is two calls: one text for the claims, one with the
            clip for their verdicts; a single claim needs the second only.
    """

    name: str
    error: float
    generator: Generator
    calls: dict[str, int] = field(default_factory=lambda: {"text": 0, "clip": 0})

    def pay(self, said: Tensor, clips: Clips, group: int) -> Tensor:
        """[N] bool for [N, 3] observations of N clips, in groups of equal ones."""
        places = torch.arange(len(said)) // group * BASE**DIGITS
        keys = places + (said * BASE ** torch.arange(DIGITS)).sum(dim=1)
        paid = torch.ones(len(said), dtype=torch.bool)
        for part in JUDGES[self.name]:
            asked = len(torch.unique(keys[paid]))
            self.calls["clip"] += asked if part != "sufficient" else 0
            self.calls["text"] += asked if part != "claim" else 0
            paid &= self.verdict(part, said, clips)
        return paid

    @property
    def reads(self) -> bool:
        """It decides sufficiency: the alarms ask it about empty and shuffled clips."""
        return "sufficient" in JUDGES[self.name]

    def verdict(self, part: str, said: Tensor, clips: Clips) -> Tensor:
        """[N] bool: one question, errors included."""
        if part == "sufficient":
            found = solve(said, clips.question) == clips.answer
        elif part == "true":
            found = (said == clips.digits).all(dim=1)
        else:
            chosen = torch.randint(DIGITS, (len(said), 1), generator=self.generator)
            found = (said.gather(1, chosen) == clips.digits.gather(1, chosen))[:, 0]
        if self.error:
            found = found ^ (torch.rand(len(said), generator=self.generator) < self.error)
        return found
