"""The figure of a study: accuracy over what was varied, and over the tokens and seconds that it costs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.evaluation.studies import Point, Study, lines_of, shown_protocols
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
_ALONG: dict[str, Callable[[Point], float | None]] = {
    "": lambda point: point.at,
    "tokens read": lambda point: point.figure.input_tokens,
    "seconds of a call, median": lambda point: point.seconds,
}
"""What runs along the bottom of each panel of a row."""


def plot_study(study: Study, folder: Path, *, dark: bool = False) -> tuple[Path, Path]:
    """Write `study.png` and `study.svg`: equal studies, equal bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    need_matplotlib()
    figure = draw_study(study, DARK if dark else LIGHT)
    png, svg = folder / "study.png", folder / "study.svg"
    png.write_bytes(png_bytes(figure))
    svg.write_bytes(_svg(figure))
    return png, svg


def draw_study(study: Study, look: Look) -> Figure:
    """A row of three panels for each benchmark: by setting, by tokens read, by seconds of a call."""
    shown = shown_protocols(study)[:MOST]
    about = f"{label(study.model, 40)}: mean score in per cent, 95 % interval; dotted: the question alone"
    title = f"{label(study.name, 40)}: {study.spec.kind}"
    figure = new_figure(title, about, look, high=ROW * max(1, len(shown)))
    panels = figure.subplots(max(1, len(shown)), 3, squeeze=False)
    for (benchmark, protocol), row in zip(shown, panels, strict=True):
        lines = lines_of(study, benchmark, protocol)
        for axes, told in zip(row, _ALONG, strict=True):
            plain_axes(axes, look, grid="y", title="" if told else label(benchmark))
            _draw(axes, lines, told, look)
            axes.set_xlabel(told or study.along)
    handles, names = panels[0][0].get_legend_handles_labels()
    if len(names) > 1:
        panels[0][0].legend(handles, names, fontsize=6.5, frameon=False, labelcolor=look.muted)
    return figure


def _draw(axes: Axes, lines: Mapping[str, Sequence[Point]], told: str, look: Look) -> None:
    """One panel; what was not measured says so."""
    for number, (name, points) in enumerate(lines.items()):
        placed = [(x, point.figure) for point in points if (x := _ALONG[told](point)) is not None]
        if not placed:
            continue
        shares = [(f.value or 0.0, f.low, f.high) for _, f in placed]
        low = [100 * max(0.0, v - (v if a is None else a)) for v, a, _ in shares]
        high = [100 * max(0.0, (v if b is None else b) - v) for v, _, b in shares]
        axes.errorbar(
            [x for x, _ in placed], [100 * v for v, _, _ in shares], yerr=[low, high], marker="o",
            markersize=3, linewidth=1.2, capsize=2, label=label(name or "score"), **run_stroke(look, number),
        )  # fmt: skip
    blind = [p.figure.question_only for points in lines.values() for p in points]
    if blind and blind[0] is not None:
        axes.axhline(100 * blind[0], color=look.muted, linewidth=1, linestyle=":")
    if not axes.containers:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=8, color=look.muted,
                  transform=axes.transAxes)  # fmt: skip
    elif told == "tokens read":
        thousands(axes.xaxis, bins=3)


def _svg(figure: Figure) -> bytes:
    """The figure as SVG without a time stamp; ids come from a fixed salt."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    settings: dict[Any, Any] = {"svg.hashsalt": "study", "svg.fonttype": "none"}
    with mpl.rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor=figure.get_facecolor())
    return buffer.getvalue()
