"""The table of data type x problem type, bars and figures, for terminals of any width."""

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
_GAP = 2


def type_table(
    counts: dict[str, dict[str, int]], *, title: str, signed: bool = False, width: int = 80
) -> Table:
    """Rows by data type and problem type, with sums [paper, table of the data].

    Args:
        counts: data type -> problem type -> rows.
        title: above the table.
        signed: differences: no sums, a sign before each number.
        width: columns of the terminal; where the table is wider it is turned, with one line per problem type.
    """
    kinds = sorted({k for row in counts.values() for k in row}, key=_rank)
    lines = [["", *(_SHORT.get(kind, kind) for kind in kinds)]]
    lines += [
        [name or "(none)", *(_number(row.get(kind), signed=signed) for kind in kinds)]
        for name, row in sorted(counts.items())
    ]
    if not signed:
        sums = [sum(row.get(kind, 0) for row in counts.values()) for kind in kinds]
        lines.append(["sum", *(f"{n:,}" for n in sums)])
        totals = [sum(row.values()) for _, row in sorted(counts.items())]
        for line, total in zip(lines, ["sum", *totals, sum(totals)], strict=True):
            line.append(total if isinstance(total, str) else f"{total:,}")
    if _width(lines) > width:
        lines = [list(line) for line in zip(*lines, strict=True)]
    return _table(lines, title, last_bold=not signed)


def bar(share: float, width: int = 24) -> str:
    """A bar for a share of 0 to 1; anything above 0 shows.

    >>> bar(0.5, 4), bar(0.001, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = round(share * width * 8)
    if share > 0 and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def bar_width(columns: int, taken: int, most: int = 40) -> int:
    """How long a full bar may be beside `taken` columns, so that no bar is cut."""
    return max(4, min(most, columns - taken))


def figure(value: float) -> str:
    """A number for people: thousands separated, about three digits.

    >>> figure(12345.6), figure(28.04), figure(0.8567), figure(16.0)
    ('12,346', '28.0', '0.857', '16')
    """
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes for people, in powers of 1,000.

    >>> size(999), size(12_345), size(8_700_000), size(1.1e12)
    ('999 B', '12.3 KB', '8.7 MB', '1.1 TB')
    """
    if count < 1000:
        return f"{count:,.0f} B"
    for unit in ("KB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:,.1f} TB"


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "row"), plural(1200, "row"), plural(2, "query", "queries")
    ('1 row', '1,200 rows', '2 queries')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _table(lines: list[list[str]], title: str, *, last_bold: bool) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, name in enumerate(lines[0]):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for line in lines[1:]:
        table.add_row(*line, style="bold" if last_bold and line is lines[-1] else "")
    return table


def _width(lines: list[list[str]]) -> int:
    return sum(max(map(len, column)) + _GAP for column in zip(*lines, strict=True)) - _GAP


def _rank(kind: str) -> tuple[int, str]:
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)


def _number(value: int | None, *, signed: bool) -> str:
    if not value:
        return "-"
    return f"{value:+,}" if signed else f"{value:,}"
