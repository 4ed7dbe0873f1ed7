"""Metrics of a run as curves over its steps, and which curves stand in which panel of a chart.

Values that are not finite numbers are gaps, never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videop2r_data.errors import SourceError

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


def read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The JSON objects of a file of a run, in order, and the lines before the last that are none, from 1.

    Damage must not keep anybody from looking at a run, nor that it is being written: a torn last line is
    dropped, and `NaN`, which is no JSON, is read as null. SourceError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        kind = "rl" if path.name == SAMPLES else "sft or rl"
        raise SourceError(
            f"cannot read it: {error.strerror or error}",
            where=str(path),
            hint=f"name the folder of a run of p2r-train {kind} that has made a step",
        ) from None
    rows: list[dict[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    return rows, damaged


# Curves.


Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One metric of one run."""

    steps: Array
    """[n], rising."""
    values: Array
    """[n]; NaN where the run wrote none."""

    @property
    def finite(self) -> Array:
        """The values that can be drawn."""
        return self.values[np.isfinite(self.values)]

    def at(self, steps: Array) -> Array:
        """The values at some of its steps."""
        return self.values[np.searchsorted(self.steps, steps)]


@dataclass(frozen=True)
class RunCurves:
    """All metrics of one run."""

    name: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    damaged: int = 0
    """Lines that could not be read."""

    def get(self, key: str) -> Curve | None:
        """The curve of a key, or None if the run has none that could be drawn."""
        curve = self.curves.get(key)
        return curve if curve is not None and len(curve.finite) else None

    @property
    def kind(self) -> str:
        """`rl` if the run has rewards, else `sft`."""
        return "rl" if any(key.startswith("reward/") for key in self.curves) else "sft"


def read_curves(run: Path, name: str = "") -> RunCurves:
    """The curves in a run's folder, or in its `metrics.jsonl` itself; an empty `name` is that of the folder.

    SourceError: there is no such file, or no step in it.
    """
    path = run if run.is_file() else run / METRICS
    rows, damaged = read_lines(path)
    curves = curves_of(rows)
    if not curves:
        raise SourceError("no step in it yet", where=str(path), hint="wait for the first step of the run")
    return RunCurves(name or path.resolve().parent.name, curves, len(damaged))


def curves_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """The curves of all numeric keys; where a step occurs twice (a run was resumed), its last line counts."""
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        numbers = {key: number for key, value in row.items() if (number := _number(value)) is not None}
        step = numbers.pop("step", math.nan)
        if math.isfinite(step):
            for key, number in numbers.items():
                points.setdefault(key, {})[step] = number
    return {key: Curve(*np.array(sorted(found.items()), dtype=float).T) for key, found in points.items()}


def _number(value: Any) -> float | None:
    """A finite number; NaN, a gap, for null and other floats; None for anything else."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return None


def smooth(curve: Curve, window: float | None = None) -> Array:
    """Mean over a window of steps around each step, of the finite values in it; float64 [n].

    The window is cut at both ends (never padded) and does not depend on how far apart the steps lie.
    `window` is its whole width in steps; None: a twentieth of the run. Below 1 nothing is smoothed.
    """
    steps, values = curve.steps, curve.values
    if not len(steps):
        return values
    width = (steps[-1] - steps[0]) / 20 if window is None else window
    low = np.searchsorted(steps, steps - width / 2, side="left")
    high = np.searchsorted(steps, steps + width / 2, side="right")
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    n = count[high] - count[low]
    means = (total[high] - total[low]) / np.maximum(n, 1)
    return np.where(n > 0, means, np.nan)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over runs (seeds) at each step that all of them have; NaN where one of them has a gap."""
    steps = reduce(np.intersect1d, (curve.steps for curve in curves))
    return Curve(steps, np.mean([curve.at(steps) for curve in curves], axis=0))


def with_shares(runs: Sequence[RunCurves]) -> tuple[list[RunCurves], str]:
    """Collapsed groups in a unit in which the runs can be compared, and its name.

    Numbers, if all steps of all runs have equally many groups; else shares of the groups of each step.
    """
    sizes = {float(v) for run in runs if (found := run.get("groups")) for v in found.finite}
    if len(sizes) == 1:
        return list(runs), f"of {sizes.pop():,.0f} groups"
    if not sizes or any(run.get("groups") is None for run in runs if run.get("collapsed/sum") is not None):
        return list(runs), "groups"
    shared: list[RunCurves] = []
    for run in runs:
        groups, curves = run.get("groups"), dict(run.curves)
        for key, curve in run.curves.items():
            if key.startswith("collapsed/") and groups is not None:
                steps = np.intersect1d(curve.steps, groups.steps)
                whole = groups.at(steps)
                curves[key] = Curve(steps, curve.at(steps) / np.where(whole > 0, whole, np.nan))
        shared.append(replace(run, curves=curves))
    return shared, "share of groups"


# Panels: those of the paper [paper Fig. 6, Fig. 15], and what helps to read them.


Scale = Literal["free", "share", "zero", "count"]
"""Vertical axis: as the data are; 0 to 1; from 0 up; from 0 up and never cut."""
P, R, SUM, PLAIN = "perception", "reasoning", "sum", ""


class Line(NamedTuple):
    """One curve of a panel: a metric, which process it is of, or what it is called in its panel alone."""

    key: str
    process: str = PLAIN
    label: str = ""


class Panel(NamedTuple):
    """One small chart."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: Scale = "zero"


_PROCESS = {"p": P, "r": R}
"""Key of a stream -> its name; other streams are called by their keys."""
Row = tuple[str, str, str, Scale]
"""Title, unit, metrics and scale; `*` is each stream, and a metric behind it the sum of the streams."""
_ALARMS: tuple[Row, ...] = (
    ("Sufficient, by clip", "share", "alarm/own alarm/empty alarm/shuffled", "share"),
    ("Accuracy, by usual answer", "mean", "alarm/usual_right alarm/usual_wrong", "share"),
    ("Claims seen in the clip", "share", "alarm/seen", "share"),
    ("Alarms that are up", "alarms", "alarm/raised", "count"),
)
_RL: tuple[Row, ...] = (
    ("Accuracy reward", "mean", "reward/accuracy_*", "share"),
    ("Format reward", "mean", "reward/format_*", "share"),
    ("Length", "tokens, mean", "length/*", "zero"),
    ("Length reward", "mean", "reward/length_*", "zero"),
    ("Total reward", "mean", "reward/total_* reward/total", "zero"),
    ("Collapsed groups", "groups", "collapsed/* collapsed/sum", "count"),
    ("Dynamic sampling", "groups", "redrawn replaced", "count"),
    ("KL to the reference", "nats per token", "kl", "zero"),
    ("KL to a black clip", "nats per token", "kl_blind", "zero"),
    ("Clipped ratios", "share of tokens", "clip_fraction/* clip_fraction", "zero"),
    ("Entropy", "nats per token", "entropy", "zero"),
    ("Unscored rollouts", "rollouts", "unscored/*", "count"),
    ("Trainer and engine", "nats per token, mean", "mismatch/abs_* mismatch/abs_all", "zero"),
    ("KL of engine to trainer", "nats per token", "mismatch/k3_* mismatch/k3_all", "zero"),
    ("Trainer and engine, largest", "nats", "mismatch/max_* mismatch/max_all", "zero"),
    ("Gradient norm", "before clipping", "grad_norm", "zero"),
    ("Time per step", "seconds", "time/step_s", "zero"),
    *_ALARMS,
)
_SFT: tuple[Row, ...] = (
    ("Loss", "nats per token", "loss", "free"),
    ("Learning rate", "", "lr", "zero"),
    ("Gradient norm", "before clipping", "grad_norm", "zero"),
    ("Speed", "tokens per second", "tokens_per_s", "zero"),
)
_HELD_OUT: tuple[Row, ...] = (
    ("Held out: answer accuracy", "mean", "eval/accuracy", "share"),
    ("Held out: sufficient perception", "share", "eval/sufficiency", "share"),
    ("Held out: think-answer mismatch", "share", "eval/mismatch", "zero"),
    ("Held out: valid format", "share", "eval/format", "share"),
    ("Held out: loss", "nats per token", "eval/loss", "free"),
)
_LABELS = {
    "alarm/own": "own clip",
    "alarm/empty": "empty clip",
    "alarm/shuffled": "another's clip",
    "alarm/usual_right": "usual answer right",
    "alarm/usual_wrong": "usual answer wrong",
    "redrawn": "redrawn",
    "replaced": "replaced",
}
_COMPARED = (
    *("reward/accuracy_*", "reward/total", "reward/format_*", "kl", "length/*", "entropy", "collapsed/*"),
    *("collapsed/sum", "redrawn", "replaced", "kl_blind", "clip_fraction", "unscored/1", "grad_norm"),
    *(metric for row in (*_ALARMS, *_HELD_OUT) for metric in row[2].split()),
)
"""What runs are compared by, one curve per panel, the streams side by side; `1` is the first stream."""
_RARE = ("unscored/", "alarm/raised")
"""Drawn only where there were any."""


def panels_for(runs: Sequence[RunCurves], *, split: bool) -> list[Panel]:
    """The panels that these runs can fill, in the order of the paper.

    `split` them into one per curve for runs that are compared: the colour then tells the run.
    """
    rl = any(run.kind == "rl" for run in runs)
    totals = {key for run in runs for key in run.curves if key.startswith("reward/total_")}
    found = {key.removeprefix("reward/total_") for key in totals}
    streams = sorted(found, key=lambda key: (key not in _PROCESS, key)) or list(_PROCESS)
    panels = [_panel(row, streams) for row in (*(_RL if rl else _SFT), *_HELD_OUT)]
    if rl and split:
        alone = {one.key: p._replace(title=_title(p, one), lines=(one,)) for p in panels for one in p.lines}
        metrics = [metric.replace("/1", f"/{streams[0]}") for metric in _COMPARED]
        panels = [alone[m.replace("*", key)] for m in metrics for key in (streams if "*" in m else ("",))]
    known = [(key, curve) for run in runs for key, curve in run.curves.items() if len(curve.finite)]
    drawn = {key for key, curve in known if not key.startswith(_RARE) or bool((curve.values > 0).any())}
    panels = [p._replace(lines=tuple(one for one in p.lines if one.key in drawn)) for p in panels]
    return [panel for panel in panels if panel.lines]


def _panel(row: Row, streams: Sequence[str]) -> Panel:
    title, unit, metrics, scale = row
    lines: list[Line] = []
    for metric in metrics.split():
        if "*" in metric:
            lines += [Line(metric.replace("*", key), _PROCESS.get(key, key)) for key in streams]
        else:
            lines.append(Line(metric, SUM if "*" in metrics else PLAIN, _LABELS.get(metric, "")))
    return Panel(title, unit, tuple(lines), scale)


def _title(panel: Panel, line: Line) -> str:
    if line.label:
        return f"{panel.title.partition(',')[0]}: {line.label}"
    if line.process == PLAIN or (line.process == SUM and not line.key.startswith("collapsed/")):
        return panel.title  # of both processes together: the plain words
    return f"{panel.title.removesuffix(' groups')}: {line.process}"
