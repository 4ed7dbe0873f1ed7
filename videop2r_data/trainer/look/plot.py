"""`p2r-train plot`: the curves of runs as a PNG, and the numbers behind it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from videop2r_data.errors import SourceError
from videop2r_data.plots import DARK, LIGHT, need_matplotlib, png_bytes
from videop2r_data.trainer.look.curves import (
    Line,
    Panel,
    RunCurves,
    panels_for,
    read_curves,
    smooth,
    with_shares,
)
from videop2r_data.trainer.look.draw import Arms, draw_panels

COLOURS = 64
"""Colours of the PNG's palette: curves on a plain ground need no more, and the file is a third."""


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
    found, unit = with_shares([read_curves(path, label) for label, path in runs])
    arms: Arms = {}
    for run in found:
        arms.setdefault(run.name, []).append(run)
    panels = [
        replace(panel, unit=unit) if panel.lines[0].key.startswith("collapsed/") else panel
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
    if not keys:
        if not panels:
            raise SourceError("no metric that could be drawn", where=", ".join(run.name for run in runs))
        return panels
    known = {key for run in runs for key in run.curves if run.get(key) is not None}
    missing = [key for key in keys if key not in known]
    if missing:
        raise SourceError(
            f"no metric {missing[0]!r}; there are {', '.join(sorted(known))}",
            where=", ".join(run.name for run in runs),
        )
    chosen = [panel for panel in panels if any(line.key in keys for line in panel.lines)]
    drawn = {line.key for panel in chosen for line in panel.lines}
    return chosen + [Panel(key, "", (Line(key),), "free") for key in keys if key not in drawn]


def _numbers(runs: Sequence[RunCurves], panels: Sequence[Panel], window: float | None) -> dict[str, Any]:
    """What was drawn: raw and smoothed values per run and metric; a gap is null."""
    keys = [line.key for panel in panels for line in panel.lines]
    return {
        "panels": [
            {"title": panel.title, "unit": panel.unit, "keys": [line.key for line in panel.lines]}
            for panel in panels
        ],
        "runs": [
            {
                "name": run.name,
                "curves": {
                    key: {
                        "steps": _listed(curve.steps),
                        "values": _listed(curve.values),
                        "smoothed": _listed(np.round(smooth(curve, window), 6)),
                    }
                    for key in keys
                    if (curve := run.get(key)) is not None
                },
            }
            for run in runs
        ],
    }


def _listed(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
