"""Near-copies: how many rows say nearly the same as another one, by column."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from videop2r_data.cards.stats_copies import HASHES, LEVELS, SHINGLE, Copies
from videop2r_data.plots.frame import new_figure, share
from videop2r_data.plots.palette import Look, ink_on, mix
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.46


class CopiesData(Model):
    """What the figure shows."""

    config: str
    same_question: int
    """Rows whose question, options and path repeat an earlier row's up to case and punctuation."""
    hashes: int
    shingle: int
    """Words."""
    columns: dict[str, Copies]

    @classmethod
    def of(cls, config: str, same_question: int, columns: dict[str, Copies]) -> CopiesData:
        """From what `CopyWatch` found; columns without a text are left out."""
        found = {name: copies for name, copies in columns.items() if copies.texts}
        return cls(config=config, same_question=same_question, hashes=HASHES, shingle=SHINGLE, columns=found)


def copies_caption(data: CopiesData) -> str:
    """A few sentences for the card."""
    told = ", ".join(
        f"{name} {copies.rows['0.8']:,} of {copies.texts:,}" for name, copies in data.columns.items()
    )
    return (
        "Rows with a near-copy (another row of estimated Jaccard similarity 0.8 or more over shingles of "
        f"{data.shingle} words, MinHash of {data.hashes}; a lower bound): {told}. "
        f"{data.same_question:,} rows repeat question, options and path up to case and punctuation."
    )


def draw_copies(data: CopiesData, look: Look) -> Figure:
    """A row per column of texts, a cell per level of similarity; the darker, the larger its share."""
    rows = list(data.columns.items())
    measure = f"Jaccard of {data.shingle}-word shingles"
    told = f"rows of {data.config} with another row at least so similar ({measure})"
    figure = new_figure("Near-copies", told, look, high=ROW * (len(rows) + 1) + 0.1)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-1.62, len(LEVELS) + 2)
    axes.set_ylim(len(rows) + 0.05, -0.85)
    heads = [f"≥ {level:g}" if level < 1 else "same" for level in LEVELS]
    for x, head in enumerate([*heads, "groups\nat 0.8", "texts\ncompared"]):
        axes.text(
            x + 0.5, -0.38, head, ha="center", va="center", fontsize=8, color=look.muted, linespacing=1.05
        )
    for y, (name, copies) in enumerate(rows):
        axes.text(-0.1, y + 0.5, name, ha="right", va="center", fontsize=9, color=look.ink)
        for x, level in enumerate(LEVELS):
            _cell(axes, (x, y), copies.rows[f"{level:g}"], copies.texts, look)
        for x, number in enumerate((copies.groups, copies.texts)):
            axes.text(
                len(LEVELS) + x + 0.5, y + 0.5, f"{number:,}", ha="center", va="center", fontsize=8.5,
                color=look.ink if number else look.muted,
            )  # fmt: skip
    return figure


def _cell(axes: Axes, at: tuple[int, int], number: int, texts: int, look: Look) -> None:
    from matplotlib.patches import Rectangle

    x, y = at
    # by decades: 0.01 % of the rows is hardly tinted, all of them are full
    depth = 0.06 if not number else 0.12 + 0.78 * max(0.0, 1 + math.log10(number / texts) / 4)
    ground = mix(look.paper, look.perception if number else look.fill, depth)
    axes.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, facecolor=ground, linewidth=0))
    ink = ink_on(ground) if number else look.muted
    axes.text(
        x + 0.5,
        y + (0.36 if number else 0.5),
        f"{number:,}",
        ha="center",
        va="center",
        fontsize=8.5,
        color=ink,
    )
    if number:
        axes.text(x + 0.5, y + 0.71, share(number, texts), ha="center", va="center", fontsize=7, color=ink)
