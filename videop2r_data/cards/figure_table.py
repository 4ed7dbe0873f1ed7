"""The paper's table of a data set: modality by problem type [paper table 1], tinted by size."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from videop2r_data.plots.frame import label, new_figure, share
from videop2r_data.plots.palette import Look, ink_on, mix
from videop2r_data.schemas import Model, ProblemType

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.42
MOST = 8
"""Modalities and problem types that are shown; the format has three and seven."""
OTHER_TYPES, OTHER_MODALITIES = "other types", "other"


class TableData(Model):
    """What the figure shows."""

    config: str
    """Whose rows were counted."""
    rows: int
    table: dict[str, dict[str, int]]
    """Modality -> problem type -> rows."""

    @classmethod
    def of(cls, config: str, counts: Counter[tuple[str, str, str]]) -> TableData:
        """From (source, modality, problem type) -> rows."""
        table: dict[str, dict[str, int]] = {}
        for (_, data_type, kind), number in sorted(summed_up(counts).items(), key=lambda item: item[0][1:]):
            row = table.setdefault(data_type, {})
            row[kind] = row.get(kind, 0) + number
        return cls(config=config, rows=counts.total(), table=table)


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
    figure = new_figure("Composition", told, look, high=ROW * (len(rows) + 1.85))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-1.1, len(columns) + 1)
    axes.set_ylim(len(rows) + 1, -0.85)
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
    _cells(axes, data, columns, look, small)
    return figure


def _cells(axes: Axes, data: TableData, columns: list[str], look: Look, size: float) -> None:
    from matplotlib.patches import Rectangle

    rows = list(data.table)
    most = max(n for row in data.table.values() for n in row.values())
    place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
    for y, row in enumerate(rows):
        for x, kind in enumerate(columns):
            number = data.table[row].get(kind, 0)
            if not number:
                axes.text(x + 0.5, y + 0.5, "–", color=look.muted, **place)
                continue
            depth = 0.14 + 0.76 * math.log1p(number) / math.log1p(most)
            ground = mix(look.paper, look.perception, depth)
            axes.add_patch(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, facecolor=ground, linewidth=0))
            axes.text(x + 0.5, y + 0.5, f"{number:,}", color=ink_on(ground), **place)
    axes.plot([0.04, len(columns) + 0.96], [len(rows)] * 2, color=look.muted, linewidth=0.8)
    down = [sum(data.table[row].get(kind, 0) for row in rows) for kind in columns]
    sums = [(x, len(rows), number) for x, number in enumerate([*down, data.rows])]
    sums += [(len(columns), y, sum(data.table[row].values())) for y, row in enumerate(rows)]
    for x, y, number in sums:
        axes.text(x + 0.5, y + 0.5, f"{number:,}", color=look.ink, fontweight="bold", **place)


def problem_types(table: dict[str, dict[str, int]]) -> list[str]:
    """Problem types of a table in the paper's order, then others by name.

    >>> problem_types({"image": {"OCR": 1, "x": 1}, "video": {"numerical": 2}})
    ['numerical', 'OCR', 'x']
    """
    found = {kind for row in table.values() for kind in row}
    known = [kind.value for kind in ProblemType if kind.value in found]
    return known + sorted(found - set(known) - {OTHER_TYPES}) + [OTHER_TYPES] * (OTHER_TYPES in found)


def few(counts: Counter[str], other: str) -> dict[str, str]:
    """Name -> the name that it is shown by: the largest eight, or seven and what stands for the others.

    >>> few(Counter({"a": 2, "b": 1}), "other")
    {'a': 'a', 'b': 'b'}
    """
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    kept = ranked if len(ranked) <= MOST else ranked[: MOST - 1]
    return {name: name if name in kept else other for name in ranked}


def summed_up(counts: Counter[tuple[str, str, str]]) -> Counter[tuple[str, str, str]]:
    """(source, modality, problem type) -> rows, with at most eight modalities and eight types."""
    modalities: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for (_, data_type, kind), number in counts.items():
        modalities[data_type] += number
        kinds[kind] += number
    shown, typed = few(modalities, OTHER_MODALITIES), few(kinds, OTHER_TYPES)
    found: Counter[tuple[str, str, str]] = Counter()
    for (source, data_type, kind), number in counts.items():
        found[source, shown[data_type], typed[kind]] += number
    return found


def shares(table: dict[str, dict[str, int]]) -> str:
    """Modalities with their shares, the largest first.

    >>> shares({"image": {"OCR": 1}, "video": {"OCR": 3}})
    'video 75.0 %, image 25.0 %'
    """
    sums = {name: sum(row.values()) for name, row in table.items()}
    whole = sum(sums.values())
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{label(name, 12)} {share(number, whole)}" for name, number in ordered)
