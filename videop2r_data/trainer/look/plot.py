"""`p2r-train plot`: the curves of runs as a PNG, and the numbers behind it as JSON.

Small multiples: the raw curve faint, its running mean on top, one legend for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from videop2r_data.errors import SourceError
from videop2r_data.plots import (
    DARK,
    DASHED,
    DOTTED,
    LIGHT,
    SOLID,
    Look,
    blank_figure,
    label,
    need_matplotlib,
    plain_axes,
    png_bytes,
    run_stroke,
    short_number,
)
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
    panels_for,
    read_curves,
    smooth,
    with_shares,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = 64
"""Colours of the PNG's palette: curves on a plain ground need no more, and the file is a third."""
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
Strokes = dict[str, dict[str, Any]]
"""Process -> colour and dashes, in matplotlib's words: told apart by either."""


class Plotted(NamedTuple):
    """What was written."""

    png: Path
    data: Path
    panels: tuple[str, ...]
    """Titles of the panels, in reading order."""
    damaged: int
    """Lines of all runs that could not be read."""


def plot_runs(
    runs: Sequence[tuple[str, Path]],
    out: Path,
    *,
    dark: bool = False,
    window: float | None = None,
    keys: Sequence[str] = (),
) -> Plotted:
    """Draw the curves of one run, or compare several.

    One run: perception and reasoning in one panel. Several: a panel per curve, a colour per run; runs with
    one name are seeds of one setting, drawn thin under their mean.

    Args:
        runs: (label, folder or metrics file); an empty label is the folder's name.
        out: the PNG; the numbers go beside it, with the ending `.json`.
        dark: light on dark.
        window: steps of the running mean; None: a twentieth of the run.
        keys: draw only these metrics; empty: all that the runs have.

    Raises:
        SourceError: a run has no metrics, or none of `keys`.
        MissingExtraError: matplotlib is not installed.
    """
    found, unit = with_shares([read_curves(path, name) for name, path in runs])
    arms: Arms = {}
    for run in found:
        arms.setdefault(run.name, []).append(run)
    panels = [
        panel._replace(unit=unit) if panel.lines[0].key.startswith("collapsed/") else panel
        for panel in _wanted(panels_for(found, split=len(arms) > 1), keys, found)
    ]
    need_matplotlib()
    figure = draw_panels(arms, panels, DARK if dark else LIGHT, window=window)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png_bytes(figure, colours=COLOURS, exact_paper=False))
    data = out.with_suffix(".json")
    data.write_bytes(orjson.dumps(_numbers(found, panels, window), option=orjson.OPT_INDENT_2))
    return Plotted(out, data, tuple(panel.title for panel in panels), sum(run.damaged for run in found))


def _wanted(panels: list[Panel], keys: Sequence[str], runs: Sequence[RunCurves]) -> list[Panel]:
    where = ", ".join(run.name for run in runs)
    if not keys and not panels:
        raise SourceError("no metric that could be drawn", where=where)
    known = {key for run in runs for key in run.curves if run.get(key) is not None}
    if missing := [key for key in keys if key not in known]:
        raise SourceError(f"no metric {missing[0]!r}; there are {', '.join(sorted(known))}", where=where)
    chosen = [panel for panel in panels if not keys or any(line.key in keys for line in panel.lines)]
    drawn = {line.key for panel in chosen for line in panel.lines}
    return chosen + [Panel(key, "", (Line(key),), "free") for key in keys if key not in drawn]


def _numbers(runs: Sequence[RunCurves], panels: Sequence[Panel], window: float | None) -> dict[str, Any]:
    """What was drawn: raw and smoothed values per run and metric; a gap is null."""

    def told(curve: Curve) -> dict[str, Any]:
        """One curve as JSON can hold it."""
        smoothed = np.round(smooth(curve, window), 6)
        columns = {"steps": curve.steps, "values": curve.values, "smoothed": smoothed}
        return {name: [v if math.isfinite(v) else None for v in c.tolist()] for name, c in columns.items()}

    shown = [{"title": p.title, "unit": p.unit, "keys": [line.key for line in p.lines]} for p in panels]
    keys = [line.key for panel in panels for line in panel.lines]
    curves = [{key: told(c) for key in keys if (c := run.get(key)) is not None} for run in runs]
    drawn = [{"name": run.name, "curves": some} for run, some in zip(runs, curves, strict=True)]
    return {"panels": shown, "runs": drawn}


def draw_panels(arms: Arms, panels: Sequence[Panel], look: Look, *, window: float | None = None) -> Figure:
    """One figure of all panels; several runs under one label are drawn thin, their mean thick."""
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = blank_figure(look, wide=max(columns, 2) * WIDE, high=rows * HIGH, head=HEAD, dpi=DPI, w_pad=0.06)
    strokes = _strokes(look, panels)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if place >= len(panels):
            axes.set_axis_off()
            continue
        _panel(axes, panels[place], arms, look, strokes=strokes, window=window)
        if place + columns >= len(panels):
            axes.set_xlabel("step", color=look.scale, fontsize=8)
    _legend(figure, arms, look, strokes)
    return figure


def _strokes(look: Look, panels: Sequence[Panel]) -> Strokes:
    """Of the processes that the panels have, in the order of the legend: P, R, other streams, their sum."""
    used = dict.fromkeys(line.process for panel in panels for line in panel.lines)
    others = [name for name in used if name not in (P, R, SUM, PLAIN)]
    first = {"color": look.perception, "linestyle": SOLID}
    strokes = {P: first, R: {"color": look.reasoning, "linestyle": DASHED}}
    strokes |= {name: run_stroke(look, place) for place, name in enumerate(others, 2)}
    strokes |= {SUM: {"color": look.both, "linestyle": DOTTED}, PLAIN: first}
    return {name: stroke for name, stroke in strokes.items() if name in used}


def _panel(
    axes: Axes, panel: Panel, arms: Arms, look: Look, *, strokes: Strokes, window: float | None
) -> None:
    plain_axes(axes, look, grid="y", title=panel.title)
    axes.set_title(panel.unit, loc="right", fontsize=7.5, color=look.scale, pad=6)
    axes.locator_params(axis="both", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: short_number(value))
    alone = len(arms) == 1
    drawn: list[tuple[Curve, list[Curve]]] = []
    for number, runs in enumerate(arms.values()):
        for place, line in enumerate(panel.lines):
            found = [curve for run in runs if (curve := run.get(line.key)) is not None]
            own = run_stroke(look, place) if line.label else strokes[line.process]
            # of several runs the colour tells which
            stroke = own if alone else run_stroke(look, number)
            if found:
                drawn.append(_arm(axes, found, stroke, window, line.label if alone else ""))
    if alone and any(line.label for line in panel.lines):
        axes.legend(loc="best", frameon=False, fontsize=7, labelcolor=look.ink)
    thick = np.concatenate([mean.finite for mean, _ in drawn])
    _limits(axes, panel, thick, np.concatenate([c.finite for _, faint in drawn for c in faint]), look)


def _arm(
    axes: Axes, curves: list[Curve], stroke: dict[str, Any], window: float | None, told: str
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
    axes.plot(thick.steps, thick.values, linewidth=1.7, label=told, **stroke, **marks)
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
        axes.yaxis.set_major_formatter(lambda value, _: short_number(value))
        axes.minorticks_off()
        axes.set_ylabel("log scale")
        return
    top = max(usual * 2, float(thick.max(initial=0.0))) if cut else high
    bottom = low if panel.scale == "free" or low < 0 else 0.0
    room = (top - bottom) * 0.06 or abs(top) * 0.1 or 1.0
    axes.set_ylim(bottom if bottom == 0.0 else bottom - room, top + room)
    if cut and top < high:
        axes.annotate(
            f"peak {short_number(float(f'{high:.3g}'))}, not shown", (0.98, 0.95), xycoords="axes fraction",
            ha="right", va="top", fontsize=7, color=look.scale,
        )  # fmt: skip


def _legend(figure: Figure, arms: Arms, look: Look, strokes: Strokes) -> None:
    from matplotlib.lines import Line2D

    height, alone = figure.get_figheight(), len(arms) == 1
    if alone:
        told = [(name, stroke) for name, stroke in strokes.items() if name != PLAIN]
        title = label(next(iter(arms)), _NAME)
        figure.text(0.012, 1 - 0.1 / height, title, ha="left", va="top", fontsize=11, color=look.ink)
    else:
        names = [name if len(runs) == 1 else f"{name} (mean of {len(runs)})" for name, runs in arms.items()]
        told = [(name, run_stroke(look, number)) for number, name in enumerate(names)]
    if not told:
        return
    figure.legend(
        [Line2D([], [], linewidth=2, **stroke) for _, stroke in told],
        [label(name, _NAME) for name, _ in told],
        loc="upper right" if alone else "upper left",
        bbox_to_anchor=(0.995 if alone else 0.005, 1 - 0.04 / height),
        ncols=min(len(told), 4),
        frameon=False,
        fontsize=8.5,
        labelcolor=look.ink,
        handlelength=2.6,
        columnspacing=1.6,
        borderaxespad=0.0,
    )
