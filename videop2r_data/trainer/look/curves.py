"""Metrics of a run as curves over its steps, and which curves stand in which panel of a chart.

A curve is a function of the step: where a step occurs twice (a run resumed from a checkpoint), its last line
counts.
Values that are not finite numbers are gaps, never 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from videop2r_data.errors import SourceError

# Lines of a run, read also while it writes them. Damage must not keep anybody from looking at a run: a torn
# last line is dropped, other lines that are no JSON object are counted, and `NaN`, which is no JSON, is read
# as a gap.


METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class Lines(NamedTuple):
    """What a file of lines holds."""

    rows: list[dict[str, Any]]
    damaged: int
    """Lines before the last that are no JSON object."""


def read_lines(path: Path) -> Lines:
    """The JSON objects of a file, in order.

    Raises:
        SourceError: the file is missing or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"cannot read it: {error.strerror or error}",
            where=str(path),
            hint="name the folder of a run of p2r-train sft or rl that has made a step",
        ) from None
    rows: list[dict[str, Any]] = []
    damaged = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _read(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            damaged += 1
    return Lines(rows, damaged)


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None


# Curves.


Array = NDArray[np.float64]
SMOOTH_SHARE = 1 / 20
"""Width of the window of the smoothed curve, as a share of the run."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run.

    Attributes:
        steps: float64 [n], rising.
        values: float64 [n]; NaN where the run wrote none.
    """

    steps: Array
    values: Array

    @property
    def finite(self) -> Array:
        """The values that can be drawn; float64."""
        return self.values[np.isfinite(self.values)]


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
    """Read a run's folder, or its `metrics.jsonl` itself.

    Args:
        run: folder or file.
        name: label of the run; empty: the folder's name.

    Raises:
        SourceError: there is no such file, or no step in it.
    """
    path = run if run.is_file() else run / METRICS
    lines = read_lines(path)
    curves = curves_of(lines.rows)
    if not curves:
        raise SourceError("no step in it yet", where=str(path), hint="wait for the first step of the run")
    return RunCurves(name or path.resolve().parent.name, curves, lines.damaged)


def curves_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """The curves of all numeric keys.

    >>> found = curves_of([{"step": 1, "kl": 0.5}, {"step": 2, "kl": 0.7}, {"step": 2, "kl": 0.6}])
    >>> found["kl"].values.tolist()
    [0.5, 0.6]
    """
    points: dict[str, dict[float, float]] = {}
    for row in rows:
        step = _number(row.get("step"))
        if step is None:
            continue
        for key, value in row.items():
            if key == "step":
                continue
            number = _number(value)
            if number is not None:
                points.setdefault(key, {})[step] = number
            elif value is None or isinstance(value, float):
                points.setdefault(key, {})[step] = math.nan
    return {
        key: Curve(np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
        for key, found in points.items()
    }


def smooth(curve: Curve, window: float | None = None) -> Array:
    """Mean over a window of steps around each step, of the finite values in it; float64 [n].

    The window is cut at both ends (never padded) and does not depend on how far apart the steps lie.

    Args:
        curve: n points.
        window: whole width in steps; None: a twentieth of the run. Below 1 nothing is smoothed.
    """
    steps, values = curve.steps, curve.values
    if not len(steps):
        return values
    width = (steps[-1] - steps[0]) * SMOOTH_SHARE if window is None else window
    low = np.searchsorted(steps, steps - width / 2, side="left")
    high = np.searchsorted(steps, steps + width / 2, side="right")
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    n = count[high] - count[low]
    means = (total[high] - total[low]) / np.maximum(n, 1)
    return np.where(n > 0, means, np.nan)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over runs (seeds) at each step that all of them have; NaN where one of them has a gap.

    >>> a, b = Curve(np.array([1.0, 2.0]), np.array([0.0, 1.0])), Curve(np.array([2.0]), np.array([3.0]))
    >>> mean_curve([a, b]).steps.tolist(), mean_curve([a, b]).values.tolist()
    ([2.0], [2.0])
    """
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    rows = [curve.values[np.searchsorted(curve.steps, steps)] for curve in curves]
    return Curve(steps, np.mean(rows, axis=0) if len(steps) else np.array([]))


def with_shares(runs: Sequence[RunCurves]) -> tuple[list[RunCurves], str]:
    """Collapsed groups in a unit in which the runs can be compared, and its name.

    Numbers, if all steps of all runs have equally many groups; else shares of the groups of each step.
    """
    sizes = {float(v) for run in runs if (found := run.get("groups")) for v in found.finite}
    if len(sizes) == 1:
        return list(runs), f"of {sizes.pop():,.0f} groups"
    if not sizes or any(run.get("groups") is None for run in runs if run.get("collapsed/sum") is not None):
        return list(runs), "groups"
    return [_shared(run) for run in runs], "share of groups"


def _shared(run: RunCurves) -> RunCurves:
    groups = run.get("groups")
    if groups is None:
        return run
    curves = dict(run.curves)
    for key in [key for key in curves if key.startswith("collapsed/")]:
        curve = run.get(key)
        if curve is not None:
            steps = np.intersect1d(curve.steps, groups.steps)
            counts = curve.values[np.searchsorted(curve.steps, steps)]
            whole = groups.values[np.searchsorted(groups.steps, steps)]
            curves[key] = Curve(steps, counts / np.where(whole > 0, whole, np.nan))
    return replace(run, curves=curves)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


# Panels: those of the paper [paper Fig. 6, Fig. 15], and what helps to read them.


Scale = Literal["free", "share", "zero", "count"]
"""Vertical axis: as the data are; 0 to 1; from 0 up; from 0 up and never cut."""
COLLAPSED = "Collapsed groups"
P, R, SUM, PLAIN = "perception", "reasoning", "sum", ""


@dataclass(frozen=True)
class Line:
    """One curve of a panel: a metric, which process it is of, or what it is called in its panel alone."""

    key: str
    process: str = PLAIN
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One small chart."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: Scale = "zero"


_PROCESS = {"p": P, "r": R}
"""Key of a stream -> its name; other streams are called by their keys."""
_TOTAL = "reward/total_"


def streams_in(runs: Sequence[RunCurves]) -> list[str]:
    """Keys of the streams that runs were rewarded for: `p` and `r`, as far as they have them, first."""
    keys = {key.removeprefix(_TOTAL) for run in runs for key in run.curves if key.startswith(_TOTAL)}
    return sorted(keys, key=lambda key: (key not in _PROCESS, key)) or list(_PROCESS)


_ALARMS = (
    Panel(
        "Sufficient, by clip",
        "share",
        (
            Line("alarm/own", label="own clip"),
            Line("alarm/empty", label="empty clip"),
            Line("alarm/shuffled", label="another's clip"),
        ),
        "share",
    ),
    Panel(
        "Accuracy, by usual answer",
        "mean",
        (
            Line("alarm/usual_right", label="usual answer right"),
            Line("alarm/usual_wrong", label="usual answer wrong"),
        ),
        "share",
    ),
    Panel("Claims seen in the clip", "share", (Line("alarm/seen"),), "share"),
    Panel("Alarms that are up", "alarms", (Line("alarm/raised"),), "count"),
)


def _rl(keys: Sequence[str]) -> tuple[Panel, ...]:
    """The panels of RL, for streams with these keys."""

    def each(title: str, unit: str, stem: str, scale: Scale = "zero", *, total: str = "") -> Panel:
        lines = tuple(Line(f"{stem}{key}", _PROCESS.get(key, key)) for key in keys)
        return Panel(title, unit, (*lines, Line(total, SUM)) if total else lines, scale)

    return (
        each("Accuracy reward", "mean", "reward/accuracy_", "share"),
        each("Format reward", "mean", "reward/format_", "share"),
        each("Length", "tokens, mean", "length/"),
        each("Length reward", "mean", "reward/length_"),
        each("Total reward", "mean", _TOTAL, total="reward/total"),
        each(COLLAPSED, "groups", "collapsed/", "count", total="collapsed/sum"),
        Panel("KL to the reference", "nats per token", (Line("kl"),)),
        each("Clipped ratios", "share of tokens", "clip_fraction/", total="clip_fraction"),
        Panel("Entropy", "nats per token", (Line("entropy"),)),
        each("Unscored rollouts", "rollouts", "unscored/", "count"),
        Panel("Gradient norm", "before clipping", (Line("grad_norm"),)),
        Panel("Time per step", "seconds", (Line("time/step_s"),)),
        *_ALARMS,
    )


SFT = (
    Panel("Loss", "nats per token", (Line("loss"),), "free"),
    Panel("Learning rate", "", (Line("lr"),)),
    Panel("Gradient norm", "before clipping", (Line("grad_norm"),)),
    Panel("Speed", "tokens per second", (Line("tokens_per_s"),)),
)


def _compared(keys: Sequence[str]) -> list[str]:
    """What runs are compared by, one curve per panel, the streams side by side."""

    def each(stem: str) -> list[str]:
        return [f"{stem}{key}" for key in keys]

    return [
        *each("reward/accuracy_"), "reward/total",
        *each("reward/format_"), "kl",
        *each("length/"), "entropy",
        *each("collapsed/"), "collapsed/sum",
        "clip_fraction", f"unscored/{keys[0]}", "grad_norm",
        *(line.key for panel in _ALARMS for line in panel.lines),
    ]  # fmt: skip


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
    keys = streams_in(runs)
    wanted: tuple[Panel, ...] = _rl(keys) if rl else SFT
    if rl and split:
        found = {one.key: replace(p, title=_title(p, one), lines=(one,)) for p in wanted for one in p.lines}
        wanted = tuple(found[key] for key in _compared(keys))
    panels = []
    for panel in (*wanted, *_HELD_OUT):
        lines = tuple(line for line in panel.lines if _drawn(runs, line.key))
        if lines:
            panels.append(replace(panel, lines=lines))
    return panels


def _title(panel: Panel, line: Line) -> str:
    if line.label:
        return f"{panel.title.partition(',')[0]}: {line.label}"
    if line.process == PLAIN or (line.process == SUM and panel.title != COLLAPSED):
        return panel.title  # of both processes together: the plain words
    return f"{panel.title.removesuffix(' groups')}: {line.process}"


def _drawn(runs: Sequence[RunCurves], key: str) -> bool:
    """Whether a curve has values; counts of unscored rollouts and of alarms only if there were any."""
    found = [curve for run in runs if (curve := run.get(key)) is not None]
    if key.startswith("unscored/") or key == "alarm/raised":
        return any(bool((curve.values > 0).any()) for curve in found)
    return bool(found)
