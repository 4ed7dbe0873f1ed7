"""The map of perception and reasoning: a point per text, with how well the two separate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videop2r_data.cards.projection import ProjectionData
from videop2r_data.plots.frame import label, new_figure
from videop2r_data.plots.palette import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _how(data: ProjectionData) -> str:
    vectors = f"embeddings of {label(data.model, 40)}" if data.embedding == "model" else "TF-IDF and SVD"
    plane = "UMAP" if data.method == "umap" else "first two principal axes"
    return f"{vectors} ({data.dimensions} dimensions), {plane}"


def projection_caption(data: ProjectionData) -> str:
    """A few sentences for the card."""
    s = data.separation
    return (
        f"Perception and reasoning of {data.rows_sampled:,} of {data.rows_with_both:,} rows: {_how(data)}. "
        f"Measured on the vectors, not on the picture: mean silhouette (cosine) {s.silhouette_cosine:.2f}; "
        f"on {s.held_out_rows:,} held-out rows a nearest-centroid classifier tells the two apart with an "
        f"accuracy of {100 * s.nearest_centroid_accuracy:.1f} %, a linear probe with "
        f"{100 * s.linear_probe_accuracy:.1f} % (chance: 50 %). "
        "The opening words that the prompt asks for were removed first."
    )


def draw_projection(data: ProjectionData, look: Look) -> Figure:
    """A scatter of both, and the figures of separation beside it."""
    rows = f"{data.rows_sampled:,} of {data.rows_with_both:,} rows of {data.config}"
    told = f"{rows}, two texts each; {_how(data)}"
    figure = new_figure("Map of perception and reasoning", told, look, high=3.9)
    axes, side = figure.subplots(1, 2, width_ratios=[2.35, 1])
    _points(axes, data, look)
    _side(side, data, look)
    return figure


def _points(axes: Axes, data: ProjectionData, look: Look) -> None:
    import numpy as np

    axes.set_facecolor(look.paper)
    for spine in axes.spines.values():
        spine.set(color=look.grid)
    axes.set_xticks([])
    axes.set_yticks([])
    size = 9 if data.rows_sampled > 1200 else 14 if data.rows_sampled > 300 else 22
    both = [
        (data.perception, look.perception, "o", "perception"),
        (data.reasoning, look.reasoning, "D", "reasoning"),
    ]
    points = np.array(data.perception + data.reasoning)
    colours = np.repeat([colour for _, colour, _, _ in both], data.rows_sampled)
    # drawn in a mixed order, in a few layers: the last class must not hide the first
    order = np.random.default_rng(0).permutation(len(points))
    for part in np.array_split(order, 12):
        for place, (_, _, mark, _) in enumerate(both):
            chosen = part[(part >= data.rows_sampled) == bool(place)]
            axes.scatter(
                points[chosen, 0], points[chosen, 1], s=size * (0.8 if mark == "D" else 1), c=colours[chosen],
                marker=mark, alpha=0.62, linewidths=0,
            )  # fmt: skip
    for _, colour, mark, name in both:
        axes.scatter([], [], s=34, c=colour, marker=mark, label=name)
    axes.margins(0.04)


def _side(axes: Axes, data: ProjectionData, look: Look) -> None:
    s = data.separation
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(0, 1, "separation", fontsize=9, fontweight="bold", color=look.ink, va="top")
    lines = (
        (f"{100 * s.linear_probe_accuracy:.1f} %", "linear probe,\nheld-out accuracy"),
        (f"{100 * s.nearest_centroid_accuracy:.1f} %", "nearest centroid,\nheld-out accuracy"),
        (f"{s.silhouette_cosine:.2f}", "mean silhouette,\ncosine, from −1 to 1"),
    )
    for place, (number, words) in enumerate(lines):
        top = 0.9 - 0.2 * place
        axes.text(0, top, number, fontsize=14, color=look.ink, va="top")
        axes.text(0, top - 0.075, words, fontsize=7.8, color=look.muted, va="top", linespacing=1.15)
    notes = f"{s.held_out_rows:,} rows held out, chance 50 %;\nmeasured on the vectors,\nnot on the picture"
    axes.text(0, 0.27, notes, fontsize=7.4, color=look.muted, va="top", linespacing=1.2)
    handles, names = axes.figure.axes[0].get_legend_handles_labels()
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(-0.06, -0.02), frameon=False, fontsize=8.5,
        labelcolor=look.ink, handletextpad=0.2, borderaxespad=0,
    )  # fmt: skip
