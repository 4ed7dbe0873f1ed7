"""Which curves stand in which panel: those of the paper [paper Fig. 6, Fig. 15] and what surrounds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from videop2r_data.trainer.look.curves import RunCurves

Scale = Literal["free", "share", "zero", "count"]
"""Vertical axis: as the data are; 0 to 1; from 0 up; from 0 up and never cut."""
COLLAPSED = "Collapsed groups"
P, R, SUM, PLAIN = "perception", "reasoning", "sum", ""


@dataclass(frozen=True)
class Line:
    """One curve of a panel: a metric, and which process it is of."""

    key: str
    process: str = PLAIN


@dataclass(frozen=True)
class Panel:
    """One small chart."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: Scale = "zero"


def _both(title: str, unit: str, stem: str, scale: Scale = "zero", *, total: str = "") -> Panel:
    lines = [Line(f"{stem}p", P), Line(f"{stem}r", R)]
    if total:
        lines.append(Line(total, SUM))
    return Panel(title, unit, tuple(lines), scale)


RL = (
    _both("Accuracy reward", "mean", "reward/accuracy_", "share"),
    _both("Format reward", "mean", "reward/format_", "share"),
    _both("Length", "tokens, mean", "length/"),
    _both("Length reward", "mean", "reward/length_"),
    _both("Total reward", "mean", "reward/total_", total="reward/total"),
    _both(COLLAPSED, "groups", "collapsed/", "count", total="collapsed/sum"),
    Panel("KL to the reference", "nats per token", (Line("kl"),)),
    _both("Clipped ratios", "share of tokens", "clip_fraction/", total="clip_fraction"),
    Panel("Entropy", "nats per token", (Line("entropy"),)),
    _both("Unscored rollouts", "rollouts", "unscored/", "count"),
    Panel("Gradient norm", "before clipping", (Line("grad_norm"),)),
    Panel("Time per step", "seconds", (Line("time/step_s"),)),
)
SFT = (
    Panel("Loss", "nats per token", (Line("loss"),), "free"),
    Panel("Learning rate", "", (Line("lr"),)),
    Panel("Gradient norm", "before clipping", (Line("grad_norm"),)),
    Panel("Speed", "tokens per second", (Line("tokens_per_s"),)),
)
COMPARED = (
    "reward/accuracy_p", "reward/accuracy_r", "reward/total",
    "reward/format_p", "reward/format_r", "kl",
    "length/p", "length/r", "entropy",
    "collapsed/p", "collapsed/r", "collapsed/sum",
    "clip_fraction", "unscored/p", "grad_norm",
)  # fmt: skip
"""What runs are compared by, one curve per panel, perception and reasoning side by side."""
_HELD_OUT = (
    Panel("Held out: answer accuracy", "mean", (Line("eval/accuracy"),), "share"),
    Panel("Held out: sufficient perception", "share", (Line("eval/sufficiency"),), "share"),
    Panel("Held out: think-answer mismatch", "share", (Line("eval/mismatch"),)),
    Panel("Held out: valid format", "share", (Line("eval/format"),), "share"),
    Panel("Held out: loss", "nats per token", (Line("eval/loss"),), "free"),
)


def panels_for(runs: Sequence[RunCurves], *, split: bool) -> list[Panel]:
    """The panels that these runs can fill, in the order of the paper.

    Args:
        runs: at least one.
        split: one panel per curve, for runs that are compared: the colour then tells the run.
    """
    rl = any(run.kind == "rl" for run in runs)
    wanted = [*(_one_by_one() if rl and split else RL if rl else SFT), *_HELD_OUT]
    panels = []
    for panel in wanted:
        lines = tuple(line for line in panel.lines if _drawn(runs, line.key))
        if lines:
            panels.append(replace(panel, lines=lines))
    return panels


def _one_by_one() -> list[Panel]:
    """One panel per curve of `COMPARED`."""
    found = {line.key: replace(p, title=_title(p, line), lines=(line,)) for p in RL for line in p.lines}
    return [found[key] for key in COMPARED]


def _title(panel: Panel, line: Line) -> str:
    if line.process == PLAIN or (line.process == SUM and panel.title != COLLAPSED):
        return panel.title  # of both processes together: the plain words
    return f"{panel.title.removesuffix(' groups')}: {line.process}"


def _drawn(runs: Sequence[RunCurves], key: str) -> bool:
    """Whether a curve says anything: that nothing was ever unscored needs no panel."""
    found = [curve for run in runs if (curve := run.get(key)) is not None]
    if key.startswith("unscored/"):
        return any(bool((curve.values > 0).any()) for curve in found)
    return bool(found)
