"""What the commands print with: lines, JSON, tables and numbers, for terminals of any width and for pipes.

Questions, traces, paths and servers' messages come from outside: their control characters are shown,
never sent.
"""

from __future__ import annotations

import logging
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from videop2r_data.schemas import visible

_C1_AND_BIDI = re.compile("[\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]")


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """One plain line, visible."""
    typer.echo(visible(text), err=err, nl=nl)


def print_json(value: Any) -> None:
    """One JSON document on stdout; what could steer a terminal is escaped, and so the value is the same."""
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    sys.stdout.buffer.write(_C1_AND_BIDI.sub(_escaped, text).encode() + b"\n")
    sys.stdout.buffer.flush()


def print_traceback(error: BaseException) -> None:
    """The traceback of an error on stderr, visible."""
    sys.stderr.write(visible("".join(traceback.format_exception(error))))


class VisibleFormatter(logging.Formatter):
    """A log line, visible: libraries log what servers say."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted record."""
        return visible(super().format(record))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


class SafeConsole(Console):
    """A console that shows control characters of what is printed instead of sending them.

    Questions, traces, paths and servers' messages come from outside. The console's own colours and cursor
    moves are segments of their own and stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, each text visible."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                text = visible(segment.text)
                yield segment if text is segment.text else Segment(text, segment.style)


# Tables, bars and numbers for people.


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


def hanging(console: Console, text: str, *, indent: int, first: Text | None = None) -> None:
    """Print text wrapped at spaces with a hanging indent; a path or a command is never broken.

    Args:
        console: where to.
        text: words.
        indent: columns before each line but the first, which has `first` there.
        first: what stands before the first line.
    """
    lines = textwrap.wrap(
        text, max(20, console.width - indent), break_long_words=False, break_on_hyphens=False
    ) or [""]
    head = first if first is not None else Text(" " * indent)
    console.print(head + Text(lines[0]), soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(" " * indent + line), soft_wrap=True)


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
