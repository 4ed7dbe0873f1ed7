"""The figure of a study: accuracy over what was varied, and over the tokens and seconds that it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.evaluation.studies import CellFigure, Study, lines_of
from videop2r_data.plots import (
    DARK,
    LIGHT,
    Look,
    label,
    need_matplotlib,
    new_figure,
    plain_axes,
    png_bytes,
    run_stroke,
    thousands,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 2.3
"""Inches of a row of panels."""
MOST = 8
"""Benchmarks that are drawn."""
_COSTS = {"": "", "tokens read": "input_tokens", "seconds of a call, median": "seconds_p50"}
"""What runs along the bottom of each panel of a row -> field of `CellFigure`; empty: what was varied."""


def plot_study(study: Study, folder: Path, *, dark: bool = False) -> Path:
    """Write `study.png`: equal studies, equal bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    need_matplotlib()
    path = folder / "study.png"
    path.write_bytes(png_bytes(draw_study(study, DARK if dark else LIGHT)))
    return path


def draw_study(study: Study, look: Look) -> Figure:
    """A row of three panels for each benchmark: by setting, by tokens read, by seconds of a call."""
    shown = study.protocols[:MOST]
    about = f"{label(study.model, 40)}: mean score in per cent, 95 % interval; dotted: the question alone"
    title = f"{label(study.name, 40)}: {study.spec.kind}"
    figure = new_figure(title, about, look, high=ROW * max(1, len(shown)))
    panels = figure.subplots(max(1, len(shown)), 3, squeeze=False)
    for (benchmark, protocol), row in zip(shown, panels, strict=True):
        lines = lines_of(study, benchmark, protocol)
        for axes, told in zip(row, _COSTS, strict=True):
            plain_axes(axes, look, grid="y", title="" if told else label(benchmark))
            _draw(axes, lines, told, look)
            axes.set_xlabel(told or study.spec.along)
    handles, names = panels[0][0].get_legend_handles_labels()
    if len(names) > 1:
        panels[0][0].legend(handles, names, fontsize=6.5, frameon=False, labelcolor=look.muted)
    return figure


def _draw(axes: Axes, lines: Mapping[str, Sequence[tuple[float, CellFigure]]], told: str, look: Look) -> None:
    """One panel; what was not measured says so."""
    for number, (name, points) in enumerate(lines.items()):
        along = [(getattr(found, _COSTS[told]) if told else at, found) for at, found in points]
        placed = [(x, found) for x, found in along if x is not None]
        if not placed:
            continue
        shares = [(f.value or 0.0, f.low, f.high) for _, f in placed]
        low = [100 * max(0.0, v - (v if a is None else a)) for v, a, _ in shares]
        high = [100 * max(0.0, (v if b is None else b) - v) for v, _, b in shares]
        axes.errorbar(
            [x for x, _ in placed], [100 * v for v, _, _ in shares], yerr=[low, high], marker="o",
            markersize=3, linewidth=1.2, capsize=2, label=label(name or "score"), **run_stroke(look, number),
        )  # fmt: skip
    blind = [found.question_only for points in lines.values() for _, found in points]
    if blind and blind[0] is not None:
        axes.axhline(100 * blind[0], color=look.muted, linewidth=1, linestyle=":")
    if not axes.containers:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, color=look.muted,
                  transform=axes.transAxes)  # fmt: skip
    elif told == "tokens read":
        thousands(axes.xaxis, bins=3)
