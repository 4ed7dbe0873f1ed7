"""Draws panels as small multiples: the raw curve faint, its running mean on top, one legend for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from videop2r_data.plots import DASHED, DOTTED, SOLID, Look, blank_figure, run_stroke
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
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    wide = max(columns, 2) * WIDE
    figure = blank_figure(look, wide=wide, high=rows * HIGH, head=HEAD, dpi=DPI, w_pad=0.06)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_axis_off()
            continue
        _panel(axes, panels[place], arms, look, window=window, others=_others(panels))
        if place + columns >= len(panels):
            axes.set_xlabel("step", color=look.scale, fontsize=8)
    _legend(figure, arms, panels, look)
    return figure


def _panel(
    axes: Axes, panel: Panel, arms: Arms, look: Look, *, window: float | None, others: Sequence[str]
) -> None:
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
    for number, runs in enumerate(arms.values()):
        for place, line in enumerate(panel.lines):
            found = [curve for run in runs if (curve := run.get(line.key)) is not None]
            if found:
                alone = len(arms) == 1
                stroke = _line_stroke(look, line, place, others) if alone else run_stroke(look, number)
                mean, under = _arm(axes, found, stroke, window)
                thick.append(mean)
                faint += under
    if len(arms) == 1:
        _names(axes, panel, look)
    finite = [np.concatenate([curve.finite for curve in curves]) for curves in (thick, faint)]
    _limits(axes, panel, finite[0], finite[1], look)


def _others(panels: Sequence[Panel]) -> list[str]:
    """Streams of other grammars, in the order in which they are drawn."""
    used = dict.fromkeys(line.process for panel in panels for line in panel.lines)
    return [name for name in used if name not in (P, R, SUM, PLAIN)]


def _line_stroke(look: Look, line: Line, place: int, others: Sequence[str]) -> dict[str, Any]:
    """Of a line with a name of its own in its panel, or of a process, which is the same in all panels."""
    return run_stroke(look, place) if line.label else _process_stroke(look, line.process, others)


def _names(axes: Axes, panel: Panel, look: Look) -> None:
    """A legend inside a panel whose lines have names of their own."""
    from matplotlib.lines import Line2D

    named = [(run_stroke(look, place), line.label) for place, line in enumerate(panel.lines) if line.label]
    if named:
        handles = [Line2D([], [], linewidth=1.7, **stroke) for stroke, _ in named]
        labels = [label for _, label in named]
        axes.legend(handles, labels, loc="best", frameon=False, fontsize=7, labelcolor=look.ink)


def _process_stroke(look: Look, process: str, others: Sequence[str]) -> dict[str, Any]:
    """Colour and dashes of a process, in matplotlib's words: told apart by either."""
    plain = (look.perception, SOLID)
    strokes = {P: plain, R: (look.reasoning, DASHED), SUM: (look.both, DOTTED), PLAIN: plain}
    if process in strokes:
        return dict(zip(("color", "linestyle"), strokes[process], strict=True))
    return run_stroke(look, others.index(process))


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
        # A spike that lifts even the running mean: the only axis that shows it and the rest.
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: tick(value))
        axes.minorticks_off()
        unit = f"{panel.unit}, log scale" if panel.unit else "log scale"
        axes.set_title(unit, loc="right", fontsize=7.5, color=look.scale, pad=5)
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


def _legend(figure: Figure, arms: Arms, panels: Sequence[Panel], look: Look) -> None:
    from matplotlib.lines import Line2D

    title, height = "", figure.get_figheight()
    if len(arms) > 1:
        names = [name if len(runs) == 1 else f"{name} (mean of {len(runs)})" for name, runs in arms.items()]
        strokes = [run_stroke(look, number) for number in range(len(arms))]
    else:
        used = {line.process for panel in panels for line in panel.lines}
        others = _others(panels)
        names = [name for name in (P, R, *others, SUM) if name in used]
        strokes = [_process_stroke(look, name, others) for name in names]
        title = short(next(iter(arms)))
        figure.text(0.012, 1 - 0.1 / height, title, ha="left", va="top", fontsize=11, color=look.ink)
    if not strokes:
        return
    figure.legend(
        [Line2D([], [], linewidth=2, **stroke) for stroke in strokes],
        [short(name) for name in names],
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
