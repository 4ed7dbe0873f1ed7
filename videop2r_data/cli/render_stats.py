"""Print the figures of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.render_tables import bar, bar_width, figure, plural, type_table

if TYPE_CHECKING:
    from videop2r_data.cards.stats import Stats
    from videop2r_data.cards.stats_text import Distribution, Spread, TopWords


def render_stats(stats: Stats, console: Console) -> None:
    """Print all tables."""
    console.print(Text(stats.where, style="bold"), soft_wrap=True)
    console.print(", ".join(f"{name} {plural(count, 'row')}" for name, count in stats.rows.items()))
    if stats.table:
        console.print()
        console.print(
            type_table(
                stats.table, title="accepted" if "sft" in stats.rows else "questions", width=console.width
            )
        )
    _counts(console, "sources", stats.sources)
    _histogram(console, "perception, words", stats.perception_words)
    _histogram(console, "reasoning, words", stats.reasoning_words)
    _spreads(console, "perception, words by group", stats.perception_by)
    _spreads(console, "reasoning, words by group", stats.reasoning_by)
    _histogram(console, "reward", stats.rewards)
    _counts(console, "attempt that was kept, counted from 0", stats.attempts)
    _spreads(console, "media of accepted rows", {"frames": stats.frames, "seconds": stats.seconds})
    _counts(console, "not accepted, stage/reason", stats.funnel)
    _words(console, "perception", stats.perception_top)
    _words(console, "reasoning", stats.reasoning_top)
    console.print()
    console.print(f"near-duplicate questions: {stats.near_duplicates:,}")


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def _counts(console: Console, title: str, counts: dict[str, int]) -> None:
    if not counts:
        return
    table, total = _table(title), sum(counts.values())
    table.add_column("", overflow="fold", max_width=40)
    table.add_column("rows", justify="right")
    table.add_column("")
    long = bar_width(console.width, 4 + min(40, max(map(len, counts))) + len(f"{max(counts.values()):,}"), 24)
    for name, count in counts.items():
        table.add_row(Text(name or "(none)"), f"{count:,}", bar(count / total, long))
    console.print()
    console.print(table)


def _histogram(console: Console, title: str, found: Distribution) -> None:
    if not found.count:
        return
    table, most = (
        _table(f"{title}: mean {figure(found.mean)}, median {figure(found.p50)}"),
        max(found.bins.values()),
    )
    table.add_column("from", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("")
    long = bar_width(console.width, 4 + max(4, *map(len, found.bins)) + max(4, len(f"{most:,}")))
    for edge, count in found.bins.items():
        table.add_row(edge, f"{count:,}", bar(count / most, long))
    console.print()
    console.print(table)


def _spreads(console: Console, title: str, spreads: dict[str, Spread]) -> None:
    shown = {name: spread for name, spread in spreads.items() if spread.count}
    if not shown:
        return
    table = _table(title)
    table.add_column("", overflow="fold", max_width=24)
    for name in ("rows", "mean", "min", "5 %", "median", "95 %", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, s in shown.items():
        figures = (s.mean, s.min, s.p5, s.p50, s.p95, s.max)
        table.add_row(Text(name), f"{s.count:,}", *(figure(value) for value in figures))
    console.print()
    console.print(table)


def _words(console: Console, title: str, words: TopWords) -> None:
    if not words.tokens:
        return
    head = f"{title}: {words.tokens:,} words, {words.types:,} different, most frequent: "
    console.print()
    console.print(Text(head, style="bold") + Text(", ".join(f"{w} {n:,}" for w, n in words.top.items())))
