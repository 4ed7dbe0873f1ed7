"""Every decision of the miniature in one place: settings of the world, both stages, arms, judges, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from videop2r_data.trainer.settings import OBJECTIVES

Start = Literal["sft", "agnostic", "random"]
"""What RL goes on from: process-aware SFT, SFT without observations, or random weights ("RL only")."""


@dataclass(frozen=True)
class Setting:
    """One world with the SFT that is made in it.

    Attributes:
        about: what it is for, in words.
        pixels: clips are frames of pixels; else glimpses, a noisy one-hot vector for each digit.
        noise: standard deviation of the Gaussian noise on every entry.
        likely: share of questions whose answer is the likely one of their kind; 0: no answer is likelier.
        slip: share of values in which the SFT teacher slips, each process on its own.
        sft_updates: of 128 clips, the learning rate falling to its end.
        sft_stop: SFT ends as soon as sampled answers on validation clips are right in this share; 0: never.
        rl_updates: of one run.
        gated: RL starts only where the gate holds.
    """

    about: str
    pixels: bool
    noise: float
    slip: float
    sft_updates: int
    rl_updates: int
    likely: float = 0.0
    sft_stop: float = 0.0
    gated: bool = True


SETTINGS = {
    "P2": Setting("pixels; what limits the answers is sight", True, 0.55, 0.02, 4000, 500),
    "S": Setting(
        "pixels; SFT is stopped while the rules are half learnt", True, 0.45, 0.02, 4000, 500, sft_stop=0.48
    ),
    "G": Setting("glimpses: no pixels, so sight costs nothing to compute", False, 0.4, 0.02, 4000, 500),
    "Q": Setting(
        "pixels that are hard to see, one answer of five right in 60 %: the test of the judges",
        True, 0.9, 0.05, 4000, 500, likely=0.6, gated=False,
    ),
}  # fmt: skip
MAIN, JUDGED = ("P2", "S"), "Q"
"""Settings of the main table, and that of the judges."""


@dataclass(frozen=True)
class Arm:
    """One way to go on from a start.

    Attributes:
        name: in tables.
        objective: of the project's table; empty: the start itself.
        start: what it goes on from.
        stale: rollouts come from the policy of so many updates before, and the loss corrects for it.
        redraws: rounds of dynamic sampling, beside what the objective's publication fixes.
    """

    name: str
    objective: str = ""
    start: Start = "sft"
    stale: int = 0
    redraws: int = 0


SAME = {"no-length": "all traces of this world have one length: the same numbers as pa-grpo, by a test"}
"""Objectives that need no run of their own here, and why."""
FIRST = ("pa-grpo", "grpo", "no-separation")
"""The main pairs; they run before everything else."""


def arms() -> dict[str, Arm]:
    """All arms by name, the main pairs first; objectives come from the project's table."""
    names = [*FIRST, *(name for name in OBJECTIVES if name not in (*FIRST, *SAME))]
    listed = [
        Arm("sft"),
        *(Arm(name, name) for name in names),
        Arm("pa-grpo-stale", "pa-grpo", stale=1),
        Arm("pa-grpo-redraws", "pa-grpo", redraws=10),
        Arm("rl-only", "pa-grpo", start="random"),
        Arm("agnostic-sft", start="agnostic"),
        Arm("agnostic-grpo", "grpo", start="agnostic"),
    ]
    return {arm.name: arm for arm in listed}


JUDGES: dict[str, tuple[str, ...]] = {
    "seeing": ("true",),
    "blind": ("sufficient",),
    "blind+claim": ("sufficient", "claim"),
    "blind+seeing": ("sufficient", "true"),
}
"""Judge -> the verdicts that must all be yes: see `judges.py`."""
ERRORS = (0.0, 0.05, 0.1, 0.2)
"""Shares of verdicts that are turned round, each on its own."""


@dataclass(frozen=True)
class Scale:
    """How much is spent.

    Attributes:
        prompts, group: of one RL update.
        seeds: that pass the gate, for the main pairs and all other arms.
        judge_seeds: for each judge.
        candidates: seeds that are tried for it.
        tuning: seeds on which learning rates are chosen; none of the others.
        rates: learning rates of RL among which each arm chooses.
        share: of the updates of a setting.
        clips: held-out clips of a final measurement; a point of a curve takes half of them.
        long: updates of the long run.
        long_seeds: seeds of it.
    """

    prompts: int = 128
    group: int = 8
    seeds: int = 8
    judge_seeds: int = 4
    candidates: int = 24
    tuning: tuple[int, ...] = (1000, 1001)
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    share: float = 1.0
    clips: int = 8000
    long: int = 5000
    long_seeds: int = 2


FULL = Scale()
QUICK = Scale(
    prompts=16, seeds=1, judge_seeds=1, candidates=1, tuning=(1000,), rates=(1e-3,), share=0.005, clips=400,
    long=20, long_seeds=1,
)  # fmt: skip
KL = 0.01
"""Weight of the KL term."""
RL_RATE = 1e-3
"""Where none was chosen: the judges' runs and the long one, which compare judges and time, not objectives."""
DRAWS = 4
"""Sampled traces of each clip in a final measurement; two in a point of a curve."""
POINTS = 10
"""Measurements on the curve of a run."""
EVERY = 25
"""Updates between readings of the alarms, and over which training figures are averaged."""


@dataclass(frozen=True)
class Cell:
    """One run of RL, or the start itself.

    Attributes:
        setting: key of `SETTINGS`.
        arm: name of an arm.
        seed: of the weights, the clips and all draws.
        rate: learning rate of RL.
        judge, error: who pays perception.
        updates: of RL.
        purpose: `main`, `tune`, `rates`, `judges` or `long`.
    """

    setting: str
    arm: str
    seed: int
    purpose: str = "main"
    rate: float = RL_RATE
    judge: str = "seeing"
    error: float = 0.0
    updates: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        judge = f"{self.judge}-{100 * self.error:g}"
        return f"{self.setting}/{self.purpose}/{self.arm}--{judge}--{self.rate:g}--{self.seed}"


def updates_of(setting: str, scale: Scale) -> int:
    """Of an RL run."""
    return max(2, round(SETTINGS[setting].rl_updates * scale.share))


def judge_cells(seeds: list[int], scale: Scale) -> Iterator[Cell]:
    """The test of the judges, the telling ones first."""
    base = Cell(JUDGED, "pa-grpo", 0, "judges", updates=updates_of(JUDGED, scale))
    for seed in seeds:
        yield replace(base, arm="grpo", seed=seed)
    for error in ERRORS:
        for judge in JUDGES:
            # Without errors a true observation is sufficient, and both judges together are the seeing one.
            if error or judge != "blind+seeing":
                yield from (replace(base, seed=seed, judge=judge, error=error) for seed in seeds)
