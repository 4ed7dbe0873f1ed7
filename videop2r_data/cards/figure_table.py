"""The paper's table of a data set: modality by problem type [paper table 1], tinted by size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from videop2r_data.cards.figure_frame import label, new_figure, share
from videop2r_data.cards.palette import Look, ink_on, mix
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.sample import ProblemType

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.42
_MOST = 8
"""Problem types that get a column; the format has seven."""


class TableData(Model):
    """What the figure shows."""

    config: str
    """Whose rows were counted."""
    rows: int
    table: dict[str, dict[str, int]]
    """Modality -> problem type -> rows."""

    @classmethod
    def of(cls, config: str, table: dict[str, dict[str, int]]) -> TableData:
        """From the table of `Stats`."""
        return cls(config=config, rows=sum(sum(row.values()) for row in table.values()), table=table)


def table_caption(data: TableData) -> str:
    """One sentence for the card."""
    kinds = {kind for row in data.table.values() for kind in row}
    return (
        f"Rows of `{data.config}` by modality and problem type: {data.rows:,} rows, "
        f"{len(data.table)} modalities, {len(kinds)} problem types."
    )


def draw_table(data: TableData, look: Look) -> Figure:
    """Cells with their counts; the darker, the more rows (logarithmic)."""
    columns = problem_types(data.table)
    rows = list(data.table)
    told = f"rows of {data.config} by modality and problem type, {data.rows:,} in all"
    figure = new_figure("Composition", told, look, high=ROW * (len(rows) + 2) + 0.1)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-1.1, len(columns) + 1)
    axes.set_ylim(len(rows) + 1, -1)
    small = 8.5 if len(columns) < 7 else 7.5
    for x, kind in enumerate([*columns, "sum"]):
        name = label(kind, 20).replace(" ", "\n", 1)
        axes.text(
            x + 0.5, -0.42, name, ha="center", va="center", fontsize=small - 0.5, color=look.muted,
            linespacing=1.05,
        )  # fmt: skip
    for y, row in enumerate([*rows, "sum"]):
        weight = "bold" if row == "sum" else "normal"
        axes.text(
            -0.1, y + 0.5, label(row, 12), ha="right", va="center", fontsize=9, color=look.ink,
            fontweight=weight,
        )  # fmt: skip
    _cells(axes, data, rows, columns, look, small)
    return figure


def _cells(axes: Axes, data: TableData, rows: list[str], columns: list[str], look: Look, size: float) -> None:
    most = max((n for row in data.table.values() for n in row.values()), default=1)
    for y, row in enumerate(rows):
        for x, kind in enumerate(columns):
            _cell(axes, x, y, data.table[row].get(kind, 0), most, look, size)
    line = {"color": look.muted, "linewidth": 0.8}
    axes.plot([0.04, len(columns) + 0.96], [len(rows)] * 2, **line)
    down = [sum(data.table[row].get(kind, 0) for row in rows) for kind in columns]
    for x, number in enumerate([*down, data.rows]):
        _number(axes, x + 0.5, len(rows) + 0.5, number, look, size)
    for y, row in enumerate(rows):
        _number(axes, len(columns) + 0.5, y + 0.5, sum(data.table[row].values()), look, size)


def _number(axes: Axes, x: float, y: float, number: int, look: Look, size: float) -> None:
    axes.text(x, y, f"{number:,}", ha="center", va="center", fontsize=size, color=look.ink, fontweight="bold")


def _cell(axes: Axes, x: int, y: int, number: int, most: int, look: Look, size: float) -> None:
    from matplotlib.patches import Rectangle

    if not number:
        axes.text(x + 0.5, y + 0.5, "–", ha="center", va="center", fontsize=size, color=look.muted)
        return
    depth = 0.14 + 0.76 * math.log1p(number) / math.log1p(most)
    ground = mix(look.paper, look.perception, depth)
    axes.add_patch(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, facecolor=ground, linewidth=0))
    axes.text(x + 0.5, y + 0.5, f"{number:,}", ha="center", va="center", fontsize=size, color=ink_on(ground))


def problem_types(table: dict[str, dict[str, int]]) -> list[str]:
    """Problem types of a table in the paper's order, then others by name; at most so many as can be shown.

    >>> problem_types({"image": {"OCR": 1, "x": 1}, "video": {"numerical": 2}})
    ['numerical', 'OCR', 'x']
    """
    found = {kind for row in table.values() for kind in row}
    known = [kind.value for kind in ProblemType if kind.value in found]
    return (known + sorted(found - set(known)))[:_MOST]


def shares(table: dict[str, dict[str, int]]) -> str:
    """Modalities with their shares, the largest first.

    >>> shares({"image": {"OCR": 1}, "video": {"OCR": 3}})
    'video 75.0 %, image 25.0 %'
    """
    sums = {name: sum(row.values()) for name, row in table.items()}
    whole = sum(sums.values())
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label(name, 12)} {share(number, whole)}" for name, number in ordered)
