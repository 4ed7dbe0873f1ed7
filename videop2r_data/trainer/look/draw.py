"""Draws panels as small multiples: the raw curve faint, its running mean on top, one legend for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from videop2r_data.plots import DASHED, DOTTED, SOLID, Look, run_colour, run_dashes
from videop2r_data.trainer.look.curves import (
    PLAIN,
    SUM,
    Array,
    Curve,
    Line,
    P,
    Panel,
    R,
    RunCurves,
    mean_curve,
    smooth,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
COLUMNS, WIDE, HIGH, HEAD = 3, 3.35, 2.05, 0.45
"""Panels per row; inches of a panel, and of the line above them."""
FEW = 24
"""Curves of at most so many points are drawn as they are, with their points."""
_SPIKE = 6.0
"""How many times the value that nine in ten stay below; what is higher is a spike."""
_NAME = 36

_DASHES: dict[str, Any] = {P: SOLID, R: DASHED, SUM: DOTTED, PLAIN: SOLID}
"""A segment is told by its dashes as well as by its colour."""

Arms = dict[str, list[RunCurves]]
"""Label -> the runs that carry it (seeds of one setting)."""


def draw_panels(arms: Arms, panels: Sequence[Panel], look: Look, *, window: float | None = None) -> Figure:
    """One figure of all panels.

    Args:
        arms: runs by label; several runs under one label are drawn thin, their mean thick.
        panels: at least one.
        look: colours.
        window: steps of the running mean; None: a twentieth of the run.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    high = rows * HIGH + HEAD
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - HEAD / high), w_pad=0.06, h_pad=0.06)
    figure = Figure(
        figsize=(max(columns * WIDE, 2 * WIDE), high), dpi=DPI, facecolor=look.paper, layout=layout
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_axis_off()
            continue
        _panel(axes, panels[place], arms, look, window)
        if place + columns >= len(panels):
            axes.set_xlabel("step", color=look.scale, fontsize=8)
    _legend(figure, arms, panels, look)
    return figure


def _panel(axes: Axes, panel: Panel, arms: Arms, look: Look, window: float | None) -> None:
    axes.set_facecolor(look.paper)
    axes.set_title(panel.title, loc="left", fontsize=9.5, color=look.ink, fontweight="bold", pad=5)
    axes.set_title(panel.unit, loc="right", fontsize=7.5, color=look.scale, pad=5)
    axes.grid(True, color=look.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(look.scale)
    axes.tick_params(colors=look.scale, labelsize=7.5, length=0, pad=3)
    axes.locator_params(axis="both", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: tick(value))
    thick: list[Curve] = []
    faint: list[Curve] = []
    for number, (_, runs) in enumerate(arms.items()):
        for line in panel.lines:
            found = [curve for run in runs if (curve := run.get(line.key)) is not None]
            if found:
                mean, under = _arm(axes, found, _stroke(look, line, number, len(arms)), window)
                thick.append(mean)
                faint += under
    _limits(axes, panel, _finite(thick), _finite(faint), look)


def _colours(look: Look) -> dict[str, str]:
    return {P: look.perception, R: look.reasoning, SUM: look.both, PLAIN: look.perception}


def _stroke(look: Look, line: Line, number: int, arms: int) -> dict[str, Any]:
    if arms == 1:
        return {"color": _colours(look)[line.process], "linestyle": _DASHES[line.process]}
    return {"color": run_colour(look, number), "linestyle": run_dashes(look, number)}


def _arm(
    axes: Axes, curves: list[Curve], stroke: dict[str, Any], window: float | None
) -> tuple[Curve, list[Curve]]:
    """Draw the runs of one label; returns the thick curve and the faint ones."""
    few = max(len(curve.steps) for curve in curves) <= FEW
    means = [Curve(c.steps, c.values if few and window is None else smooth(c, window)) for c in curves]
    thick = mean_curve(means)
    faint = means if len(curves) > 1 else curves
    if len(curves) > 1 or not few:
        for curve in faint:
            axes.plot(curve.steps, curve.values, linewidth=0.75, alpha=0.32, color=stroke["color"])
    marks: dict[str, Any] = {"marker": "o", "markersize": 3} if few else {}
    axes.plot(thick.steps, thick.values, linewidth=1.7, **stroke, **marks)
    return thick, faint


def _finite(curves: Sequence[Curve]) -> Array:
    """All finite values of some curves."""
    return np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])


def _limits(axes: Axes, panel: Panel, thick: Array, faint: Array, look: Look) -> None:
    """The range of the vertical axis; a spike far above everything else is cut off and told in words."""
    if panel.scale == "share":
        axes.set_ylim(-0.03, 1.03)
        return
    values = np.concatenate([thick, faint])  # never empty: a curve without a finite value is not drawn
    low, high = float(values.min()), float(values.max())
    usual = float(np.quantile(values, 0.9))
    cut = panel.scale == "zero" and len(values) > 50 and high > _SPIKE * usual > 0
    if cut and low > 0 and thick.max(initial=0.0) > _SPIKE * usual:
        _logarithmic(axes, panel, look)
        return
    top = max(usual * 2, float(thick.max(initial=0.0))) if cut else high
    bottom = low if panel.scale == "free" or low < 0 else 0.0
    room = (top - bottom) * 0.06 or abs(top) * 0.1 or 1.0
    axes.set_ylim(bottom if bottom == 0.0 else bottom - room, top + room)
    if cut and top < high:
        axes.annotate(
            f"peak {tick(float(f'{high:.3g}'))}, not shown", (0.98, 0.95), xycoords="axes fraction",
            ha="right", va="top", fontsize=7, color=look.scale,
        )  # fmt: skip


def _logarithmic(axes: Axes, panel: Panel, look: Look) -> None:
    """For a spike that lifts even the running mean: the only axis that shows it and the rest."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: tick(value))
    axes.minorticks_off()
    unit = f"{panel.unit}, log scale" if panel.unit else "log scale"
    axes.set_title(unit, loc="right", fontsize=7.5, color=look.scale, pad=5)


def _legend(figure: Figure, arms: Arms, panels: Sequence[Panel], look: Look) -> None:
    from matplotlib.lines import Line2D

    if len(arms) > 1:
        strokes = [
            (
                name if len(runs) == 1 else f"{name} (mean of {len(runs)})",
                run_colour(look, i),
                run_dashes(look, i),
            )
            for i, (name, runs) in enumerate(arms.items())
        ]
    else:
        used = {line.process for panel in panels for line in panel.lines}
        strokes = [(name, _colours(look)[name], _DASHES[name]) for name in (P, R, SUM) if name in used]
    title = "" if len(arms) > 1 else short(next(iter(arms)))
    height = figure.get_figheight()
    if title:
        figure.text(
            0.012, 1 - 0.1 / height, title, ha="left", va="top", fontsize=11, color=look.ink, parse_math=False
        )
    if not strokes:
        return
    handles = [Line2D([], [], color=colour, linestyle=dashes, linewidth=2) for _, colour, dashes in strokes]
    legend = figure.legend(
        handles,
        [short(name) for name, _, _ in strokes],
        loc="upper right" if title else "upper left",
        bbox_to_anchor=(0.995 if title else 0.005, 1 - 0.04 / height),
        ncols=min(len(strokes), 4),
        frameon=False,
        fontsize=8.5,
        labelcolor=look.ink,
        handlelength=2.6,
        columnspacing=1.6,
        borderaxespad=0.0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may be called a_$x$


def tick(value: float) -> str:
    """A number beside the axis: short, and whole without a factor above the axis.

    >>> [tick(v) for v in (0.0, 0.25, 150000.0, 2500000.0, 5e-07, 12500.0)]
    ['0', '0.25', '150k', '2.5M', '5e-7', '12.5k']
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}"
    digits, _, power = f"{value:g}".partition("e")
    return f"{digits}e{int(power)}" if power else digits


def short(name: str) -> str:
    """A name that fits the legend."""
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
