"""The figures of the miniature: training curves of the arms, and where they end on held-out clips."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.miniature.report import estimate, table_of
from benchmarks.miniature.settings import ARMS
from videop2r_data.plots import LIGHT, run_stroke
from videop2r_data.trainer.look import plot_runs

KEYS = (
    "reward/accuracy_p",
    "reward/accuracy_r",
    "reward/format_p",
    "reward/format_r",
    "length/p",
    "length/r",
    "collapsed/p",
    "collapsed/r",
    "collapsed/sum",
    "kl",
    "entropy",
    "grad_norm",
)


PANELS = (
    ("score", "answers, mean score"),
    ("exact", "answers exact"),
    ("sufficient", "observations sufficient"),
)


def draw(found: dict[str, dict[int, Any]], folder: Path) -> list[Path]:
    """Write the PNG files; returns their paths."""
    return [_curves(found, folder / "curves.png"), _held_out(found, folder / "held-out.png")]


def _curves(found: dict[str, dict[int, Any]], target: Path) -> Path:
    """The RL arms that start from the process-aware SFT, seeds thin under their mean."""
    arms = [arm.name for arm in ARMS if arm.objective and arm.style == "process" and arm.name in found]
    with tempfile.TemporaryDirectory() as temp:
        runs = []
        for arm in arms:
            for seed, record in sorted(found[arm].items()):
                run = Path(temp) / f"{arm}-{seed}"
                run.mkdir()
                lines = (json.dumps(row) for row in record["curve"])
                (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
                runs.append((arm, run))
        made = plot_runs(runs, Path(temp) / "curves.png", keys=KEYS)
        target.write_bytes(made.png.read_bytes())
    return target


def _held_out(found: dict[str, dict[int, Any]], target: Path) -> Path:
    """Answers and observations on held-out clips: a dot per seed, the mean and its interval over clips."""
    from matplotlib.figure import Figure

    arms = [arm.name for arm in ARMS if arm.name in found]
    figure = Figure(figsize=(11.0, 0.55 * len(arms) + 1.4), dpi=110, layout="constrained")
    for place, (metric, title) in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), place + 1)
        for y, arm in enumerate(arms):
            seeds = sorted(found[arm])
            table = table_of(found[arm], seeds, "sampled", metric)
            if np.isnan(table).all():
                continue
            cell, colour = estimate(table), run_stroke(LIGHT, y)["color"]
            axes.plot(100 * np.nanmean(table, axis=1), [y] * len(seeds), "o", ms=4, mfc="none", mec=colour)
            axes.plot([100 * x for x in cell.clips], [y, y], "-", color=colour, lw=2)
            axes.plot([100 * cell.value], [y], "D", color=colour, ms=6)
        axes.set_yticks(range(len(arms)), arms if place == 0 else [""] * len(arms))
        axes.set_ylim(len(arms) - 0.5, -0.5)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("% over held-out clips, sampled")
        axes.grid(axis="x", color=LIGHT.grid)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
    figure.savefig(target, pil_kwargs={"optimize": True})
    return target
