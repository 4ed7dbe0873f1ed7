"""The metrics of an RL step: sums and counts that ranks add up, then the keys of `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from videop2r_data.trainer.judging.base import JudgeStats
from videop2r_data.trainer.process.advantages import Collapsed
from videop2r_data.trainer.process.rewards import Graded, RewardTable
from videop2r_data.trainer.rollout.base import RolledOut

_MEANS = (
    *(f"reward/{part}_{k}" for part in ("accuracy", "format", "length", "total") for k in "pr"),
    "reward/total",
    "reward/plain",
    "length/p",
    "length/r",
    "length/all",
    "kl",
    "entropy",
    "ratio",
    "clip_fraction",
    "clip_fraction/p",
    "clip_fraction/r",
    "clip_fraction/all",
)
_COUNTS = (
    "policy",
    "nonfinite",
    "collapsed/p",
    "collapsed/r",
    "collapsed/sum",
    "collapsed/plain",
    "groups",
    "rollouts",
    "unscored/p",
    "unscored/r",
    "truncated",
    "tokens",
    "skipped",
    "judge/asked",
    "judge/cached",
    "judge/late",
    "judge/failed",
)
"""Every rank hands in the same names in the same order, whether it has something to say or not."""


class Tally:
    """Adds up; one per process and step."""

    def __init__(self) -> None:
        self._sums = dict.fromkeys((*_MEANS, *_COUNTS), 0.0)
        self._over = dict.fromkeys(_MEANS, 0.0)

    def add(self, name: str, total: float, over: float = 1.0) -> None:
        """Add a sum over `over` things (ignored for counts)."""
        self._sums[name] += total
        if name in self._over:
            self._over[name] += over

    def mean(self, name: str, values: Tensor, where: Tensor) -> None:
        """Add values [N] where a mask [N] holds."""
        self.add(name, float(values[where].double().sum()), float(where.sum()))

    def losses(self, metrics: Mapping[str, Tensor]) -> None:
        """Add what `policy_loss` tells."""
        for name, (total, count) in ((n, pair.tolist()) for n, pair in metrics.items()):
            self.add(name, total, count)

    def rewards(self, table: RewardTable, found: Collapsed) -> None:
        """Add the rewards of whole groups."""
        parts, everyone = table.components, torch.ones_like(table.scored_p)
        for k, scored, total in (
            ("p", table.scored_p, table.perception),
            ("r", table.scored_r, table.reasoning),
        ):
            self.mean(f"reward/accuracy_{k}", parts[f"accuracy_{k}"], scored)
            self.mean(f"reward/format_{k}", parts[f"format_{k}"], everyone)
            self.mean(f"reward/length_{k}", parts[f"length_{k}"], scored)
            self.mean(f"reward/total_{k}", total, scored)
            self.add(f"unscored/{k}", float((~scored).sum()))
        self.mean("reward/total", table.total, table.scored_total)
        self.mean("reward/plain", table.plain, table.scored_r)
        for name in ("p", "r", "sum", "plain"):
            self.add(f"collapsed/{name}", getattr(found, name))
        self.add("groups", found.groups)

    def lengths(self, graded: Iterable[Graded], rolled: Iterable[RolledOut]) -> None:
        """Add lengths in tokens and how rollouts ended."""
        for grades, one in zip(graded, rolled, strict=True):
            self.add("length/p", grades.tokens_p)
            self.add("length/r", grades.tokens_r)
            self.add("length/all", len(one.ids))
            self.add("tokens", len(one.ids))
            self.add("rollouts", 1)
            self.add("truncated", not one.finished)

    def judging(self, stats: JudgeStats) -> None:
        """Add the judge's counts."""
        for name in ("asked", "cached", "late", "failed"):
            self.add(f"judge/{name}", getattr(stats, name))

    def row(self, sums: Callable[[Tensor], Tensor]) -> dict[str, float | int]:
        """The metrics of all processes; a mean over nothing is left out.

        Args:
            sums: adds tensors of all processes up.
        """
        local = torch.tensor([*self._sums.values(), *self._over.values()], dtype=torch.float64)
        everyone = sums(local).tolist()
        totals = dict(zip(self._sums, everyone, strict=False))
        over = dict(zip(self._over, everyone[len(totals) :], strict=True))
        row: dict[str, float | int] = {}
        for name, total in totals.items():
            if name in over:
                if over[name]:
                    row[name] = total / over[name]
            else:
                row[name] = total if name == "policy" else int(total)
        return row
