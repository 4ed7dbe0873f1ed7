"""What the commands print with: lines, JSON, tables and numbers, for terminals of any width and for pipes.

Questions, traces, paths and servers' messages come from outside: their control characters are shown,
never sent.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import textwrap
import time
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import typer
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from videop2r_data.schemas import ProblemType, visible

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

PIPED_EVERY_S = 60.0
"""Seconds between two lines of progress when piped."""
_C1_AND_BIDI = re.compile("[\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\U000e0000-\U000e007f]")


def say(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print one plain line, its control characters made visible."""
    typer.echo(visible(text), err=err, nl=nl)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout; what could steer a terminal is written as a JSON escape."""
    import orjson

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    text = _C1_AND_BIDI.sub(lambda found: json.dumps(found.group())[1:-1], text)
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.buffer.flush()


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an error on stderr, its control characters made visible."""
    sys.stderr.write(visible("".join(traceback.format_exception(error))))


class VisibleFormatter(logging.Formatter):
    """Makes control characters of log lines visible: libraries log what servers reply."""

    def format(self, record: logging.LogRecord) -> str:
        """The log line."""
        return visible(super().format(record))


class SafeConsole(Console):
    """A console that makes control characters of printed text visible.

    The console's own colours and cursor moves are control segments and stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, control characters in their texts made visible."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                text = visible(segment.text)
                yield segment if text is segment.text else Segment(text, segment.style)


class LiveLine:
    """A progress line: live on a terminal, printed now and then when piped.

    Args:
        console: where to; stderr, so that stdout stays for results.
        first: description of the line until something is known.
        columns: of rich's progress bar.
        fields: first values of the columns' own fields.
    """

    def __init__(self, console: Console, first: str, *columns: ProgressColumn, **fields: Any) -> None:
        from rich.progress import Progress

        self.console = console
        self.live = console.is_terminal
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task(first, total=None, **fields)
        self.printed = time.monotonic()
        """When a line was printed last."""

    def __enter__(self) -> Self:
        if self.live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self._bar.stop()

    def update(self, **changes: Any) -> None:
        """Change the live line."""
        self._bar.update(self._task, **changes)

    def restart(self, **changes: Any) -> None:
        """Begin a new count of the live line."""
        self._bar.reset(self._task, **changes)
        self.printed = time.monotonic()

    def is_time(self, seconds: float = PIPED_EVERY_S) -> bool:
        """Whether so many seconds have passed since this was last true."""
        now = time.monotonic()
        if now - self.printed < seconds:
            return False
        self.printed = now
        return True


class Told(LiveLine):
    """What is looked at and how much of it is done; piped, its beginning, its end, and now and then between.

    Args:
        console: where to.
        first: what is told until something is known.
        unit: what is counted.
    """

    def __init__(self, console: Console, first: str, unit: str = "") -> None:
        from rich.progress import SpinnerColumn, TextColumn

        # names of pools and sources come from outside: they are no markup
        super().__init__(console, first, SpinnerColumn(), TextColumn("{task.description}", markup=False))
        self._unit, self._last = unit, ""

    def count(self, what: str, done: int, total: int | None) -> None:
        """Show how much is done, of how much if that is known."""
        of = "" if total is None else f" of {total:,}"
        text = f"{what}: {done:,}{of} {self._unit}".rstrip() if done else what
        self.update(description=text)
        if not self.live and (what != self._last or done == total or self.is_time()):
            self._last = what
            self.console.print(text, markup=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Show what is waited for now."""
        self.update(description=text)
        if not self.live:
            self.console.print(text, markup=False, soft_wrap=True)


# Tables, bars and numbers for people.


ORDER = tuple(kind.value for kind in ProblemType)
_SHORT = {kind.value: kind.traits.short or kind.value for kind in ProblemType}
_GAP = 2


def table(
    *heads: str,
    title: str | None = None,
    left: tuple[int, ...] = (0,),
    fold: int | None = None,
    most: int | None = None,
    **column: Any,
) -> Table:
    """A table without rows yet.

    Args:
        heads: of the columns; a line is below them unless there is a title.
        title: above the table.
        left: which columns are justified left, the others right.
        fold: the column whose words are broken where the table is too wide.
        most: characters that this column is wide at most.
        column: settings of the other columns.
    """
    made = Table(box=None if title else box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    made.title_style = "bold"
    for i, head in enumerate(heads):
        own: dict[str, Any] = {"overflow": "fold", "max_width": most} if i == fold else column
        made.add_column(head, justify="left" if i in left else "right", **own)
    return made


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
    made = table(*lines[0], title=title, no_wrap=True)
    for line in lines[1:]:
        made.add_row(*line, style="bold" if not signed and line is lines[-1] else "")
    return made


def bar(share: float, width: int = 24) -> str:
    """A bar for a share of 0 to 1; anything above 0 shows.

    >>> bar(0.5, 4), bar(0.001, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    eighths = max(round(share * width * 8), int(share > 0))
    return "█" * (eighths // 8) + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths % 8]


def bar_width(columns: int, taken: int, most: int = 40) -> int:
    """Columns of a full bar beside `taken` columns of text: 4 to `most`."""
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


def size(count: int) -> str:
    """Bytes in powers of 1,000, with one decimal.

    >>> size(999), size(12_345), size(999_950), size(310_000_000_000)
    ('999 B', '12.3 kB', '1.0 MB', '310.0 GB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:  # 999.95 would be printed as 1000.0
        value, units = value / 1000, units[1:]
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


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


def _width(lines: list[list[str]]) -> int:
    return sum(max(map(len, column)) + _GAP for column in zip(*lines, strict=True)) - _GAP


def _rank(kind: str) -> tuple[int, str]:
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), kind)


def _number(value: int | None, *, signed: bool) -> str:
    if not value:
        return "-"
    return f"{value:+,}" if signed else f"{value:,}"
