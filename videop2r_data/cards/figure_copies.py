"""Near-copies: how many rows say nearly the same as another one, by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videop2r_data.cards.figure_frame import new_figure, plain_axes, share
from videop2r_data.cards.palette import Look, mix
from videop2r_data.cards.stats_copies import HASHES, LEVELS, SHINGLE, Copies
from videop2r_data.schemas.base import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DEPTHS = (0.22, 0.48, 0.76, 1.0)


class CopiesData(Model):
    """What the figure shows."""

    config: str
    same_question: int
    """Rows whose question, options and path repeat an earlier row's up to case, white space and punctuation."""
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
    """One sentence for the card."""
    told = ", ".join(
        f"{name} {copies.rows['0.8']:,} of {copies.texts:,}" for name, copies in data.columns.items()
    )
    return (
        "Rows with a near-copy (another row of estimated Jaccard similarity 0.8 or more over shingles of "
        f"{data.shingle} words, MinHash of {data.hashes}; a lower bound): {told}. "
        f"{data.same_question:,} rows repeat question, options and path up to case and punctuation."
    )


def draw_copies(data: CopiesData, look: Look) -> Figure:
    """A block per column, a bar per level of similarity."""
    texts = max(copies.texts for copies in data.columns.values())
    told = (
        f"rows of {data.config} with another row at least so similar (Jaccard, {data.shingle}-word shingles)"
    )
    high = 0.98 * len(data.columns) + 0.1
    figure = new_figure("Near-copies", told, look, high=high)
    grid = figure.subplots(len(data.columns), 1, sharex=True, squeeze=False)
    most = max(max(c.rows.values()) / c.texts for c in data.columns.values())
    for axes, (name, copies) in zip(grid.flat, data.columns.items(), strict=True):
        _block(axes, name, copies, look)
    last = grid.flat[-1]
    last.set_xlim(0, (most or 1 / texts) * 1.5)
    last.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    last.locator_params(axis="x", nbins=5)
    return figure


def _block(axes: Axes, name: str, copies: Copies, look: Look) -> None:
    grouped = (
        f"  ({copies.groups:,} group{'s' if copies.groups != 1 else ''} at 0.8)" if copies.groups else ""
    )
    plain_axes(axes, look, grid="x", title=name)
    for y, (level, depth) in enumerate(zip(LEVELS, _DEPTHS, strict=True)):
        rows = copies.rows[f"{level:g}"]
        axes.barh(y, rows / copies.texts, height=0.7, color=mix(look.paper, look.perception, depth))
        axes.annotate(
            f"{rows:,}  {share(rows, copies.texts)}{grouped if level == 0.8 else ''}", (rows / copies.texts, y),
            xytext=(4, 0), textcoords="offset points", ha="left", va="center", fontsize=7.6, color=look.muted,
        )  # fmt: skip
    axes.set_yticks(range(len(LEVELS)), [f"≥ {level:g}" if level < 1 else "1 (same)" for level in LEVELS])
    axes.set_ylim(len(LEVELS) - 0.5, -0.5)
    axes.tick_params(axis="y", labelcolor=look.ink, labelsize=7.6)
