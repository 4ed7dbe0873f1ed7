"""The table of data type x problem type, and bars, for 80 columns."""

from __future__ import annotations

from rich.table import Table

ORDER = (
    "multiple choice",
    "numerical",
    "OCR",
    "free-form",
    "regression",
    "temporal grounding",
    "spatial grounding",
)
_SHORT = {"multiple choice": "choice", "temporal grounding": "temporal", "spatial grounding": "spatial"}


def type_table(counts: dict[str, dict[str, int]], *, title: str, signed: bool = False) -> Table:
    """Rows by data type and problem type, with sums [paper, table of the data].

    Args:
        counts: data type -> problem type -> rows.
        title: above the table.
        signed: differences: no sums, a sign before each number.
    """
    kinds = sorted({k for row in counts.values() for k in row}, key=_rank)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for kind in kinds:
        table.add_column(_SHORT.get(kind, kind), justify="right")
    if not signed:
        table.add_column("sum", justify="right")
    for data_type, row in sorted(counts.items()):
        cells = [_number(row.get(kind), signed=signed) for kind in kinds]
        table.add_row(data_type or "(none)", *cells, *([] if signed else [f"{sum(row.values()):,}"]))
    if not signed:
        sums = [sum(row.get(kind, 0) for row in counts.values()) for kind in kinds]
        table.add_row("sum", *(f"{n:,}" for n in sums), f"{sum(sums):,}", style="bold")
    return table


def bar(share: float, width: int = 24) -> str:
    """A bar for a share of 0 to 1; anything above 0 shows.

    >>> bar(0.5, 4), bar(0.001, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = round(share * width * 8)
    if share > 0 and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def _rank(kind: str) -> tuple[int, str]:
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)


def _number(value: int | None, *, signed: bool) -> str:
    if not value:
        return "-"
    return f"{value:+,}" if signed else f"{value:,}"
