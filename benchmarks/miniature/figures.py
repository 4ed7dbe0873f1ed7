"""The curves as PNG: the main pairs over updates and over KL, and the judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.miniature.gather import Record, by_seed
from benchmarks.miniature.settings import FIRST, JUDGED, JUDGES, MAIN
from videop2r_data.plots import LIGHT, run_stroke

_SHOWN = (*FIRST, "gdpo", "no-reasoning", "dapo")


def draw(found: Sequence[Record], folder: Path) -> list[Path]:
    """Write what there are runs for; returns the paths."""
    made = []
    settings = [s for s in MAIN if by_seed(found, setting=s, arm=FIRST[0], purpose="main")]
    if settings:
        made.append(_curves(found, settings, folder / "curves.png"))
    if by_seed(found, setting=JUDGED, purpose="judges", arm="pa-grpo"):
        made.append(_judges(found, folder / "judges.png"))
    return made


def _curves(found: Sequence[Record], settings: Sequence[str], target: Path) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.5, 3.9 * len(settings)), dpi=110, layout="constrained")
    panels = (("step", "answers"), ("kl", "answers"), ("step", "observations"))
    for row, setting in enumerate(settings):
        for place, (x, y) in enumerate(panels):
            axes = figure.add_subplot(len(settings), len(panels), row * len(panels) + place + 1)
            for number, arm in enumerate(_SHOWN):
                own = by_seed(found, setting=setting, arm=arm, purpose="main")
                curves = [one["curve"] for one in own.values() if one["curve"][y][0] is not None]
                if curves:
                    _line(axes, curves, x, y, number, f"{arm} ({len(curves)})")
            axes.set_xlabel("updates" if x == "step" else "KL to the start, nats a trace")
            axes.set_title(f"{setting}: {y} right, sampled, %", fontsize=10)
            _plain(axes)
            if place == 0:
                axes.legend(fontsize=8, frameon=False)
    figure.savefig(target, pil_kwargs={"optimize": True})
    return target


def _line(axes: Any, curves: Sequence[Record], x: str, y: str, number: int, label: str) -> None:
    """The mean over seeds; thin lines are the seeds."""
    stroke = run_stroke(LIGHT, number)
    for curve in curves:
        axes.plot(curve[x], 100 * np.array(curve[y]), lw=0.5, alpha=0.3, **stroke)
    axes.plot(
        np.mean([curve[x] for curve in curves], axis=0),
        100 * np.mean([curve[y] for curve in curves], axis=0),
        lw=1.8, label=label, **stroke,
    )  # fmt: skip


def _judges(found: Sequence[Record], target: Path) -> Path:
    """True and invented observations while each judge pays, without errors; thin vertical: alarm `empty`."""
    from matplotlib.figure import Figure

    purposes = [p for p in ("judges", "long") if by_seed(found, setting=JUDGED, purpose=p, arm="pa-grpo")]
    figure = Figure(figsize=(11.0, 3.7 * len(purposes)), dpi=110, layout="constrained")
    for row, purpose in enumerate(purposes):
        for place, (column, title) in enumerate(((3, "observations right"), (4, "invented observations"))):
            axes = figure.add_subplot(len(purposes), 2, 2 * row + place + 1)
            for number, judge in enumerate(JUDGES):
                own = by_seed(found, setting=JUDGED, purpose=purpose, arm="pa-grpo", judge=judge, error=0.0)
                _blocks(axes, list(own.values()), column, number, judge)
            plain = by_seed(found, setting=JUDGED, purpose=purpose, arm="grpo")
            _blocks(axes, list(plain.values()), column, len(JUDGES), "GRPO, no judge")
            length = "long run" if purpose == "long" else "500 updates"
            axes.set_title(f"{JUDGED}, {length}: {title}, % of rollouts", fontsize=10)
            axes.set_xlabel("updates")
            _plain(axes)
            if place == 0:
                axes.legend(fontsize=8, frameon=False)
    figure.savefig(target, pil_kwargs={"optimize": True})
    return target


def _blocks(axes: Any, own: Sequence[Record], column: int, number: int, label: str) -> None:
    if not own:
        return
    stroke = run_stroke(LIGHT, number)
    tables = np.array([one["training"] for one in own])
    for rows in tables:
        axes.plot(rows[:, 0], 100 * rows[:, column], lw=0.5, alpha=0.3, **stroke)
    mean = tables.mean(axis=0)
    axes.plot(mean[:, 0], 100 * mean[:, column], lw=1.8, label=f"{label} ({len(own)})", **stroke)
    first = [one["alarms"]["empty"][0] for one in own if "empty" in one.get("alarms", {})]
    if first:
        axes.axvline(float(np.median(first)), color=stroke["color"], lw=0.8, ls=":")


def _plain(axes: Any) -> None:
    axes.grid(color=LIGHT.grid)
    axes.spines[["top", "right"]].set_visible(False)
