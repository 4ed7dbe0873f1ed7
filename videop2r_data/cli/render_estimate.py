"""What `p2r-data estimate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.common import shell
from videop2r_data.cli.render_findings import hanging
from videop2r_data.cli.render_tables import plural

if TYPE_CHECKING:
    from videop2r_data.builders.estimate import Estimate
    from videop2r_data.builders.pilot import Pilot, PilotTrace

SHOWN_CHARS = 600
"""Of a trace; `--json` has more of it."""


def render_estimate(report: Estimate, recipe: str, console: Console) -> None:
    """Yield and traces of a pilot, the price of each step, and the next command."""
    console.print(f"{plural(report.rows, 'row')} in the pool, {report.bad_rows:,} of them cannot be used")
    if report.pilot is not None:
        _pilot(report.pilot, console)
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    for name in ("step", "calls", "tokens in", "tokens out", "US dollars"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in report.steps:
        money = "no price" if not step.priced else _range(step.usd, step.usd_low, step.usd_high)
        table.add_row(
            f"{step.step}\n{step.model}",
            f"{step.calls:,}",
            f"{step.input_tokens:,}",
            f"{step.output_tokens:,}",
            money,
        )
    console.print(table)
    priced = any(step.priced for step in report.steps)
    if priced:
        each = f", ${report.usd / report.kept:,.4f} a row" if report.kept else ""
        console.print(f"in all: ${_range(report.usd, report.usd_low, report.usd_high)}{each}")
    else:
        console.print("in all: nothing to pay, as the recipe gives no `price` for its backends")
    for note in report.notes:
        hanging(console, f"note: {note}", indent=6, first=Text(""))
    if report.stopped:
        console.print("to go on, run the same command again: every finished call is kept")
        return
    if not report.ok:
        what = "no row of the pool can be used" if report.pilot is None else "the pilot kept nothing"
        console.print(Text(f"do not build yet: {what}", style="bold red"))
        command = "check" if report.pilot is None else "doctor"
        console.print(f"next: p2r-data {command} {shell(recipe)}", soft_wrap=True, markup=False)
        return
    limit = max(1, round(report.usd_high * 1.1))
    budget = f" --max-cost {limit}" if report.usd else ""
    console.print(f"next: p2r-data build {shell(recipe)}{budget}", soft_wrap=True, markup=False)


def _pilot(pilot: Pilot, console: Console) -> None:
    share = ""
    if pilot.rows > pilot.unanswered:
        share = f" ({pilot.kept_share:.0%}, 95 %: {pilot.kept_low:.0%} to {pilot.kept_high:.0%})"
    console.print(
        f"pilot: {plural(pilot.rows, 'row')}, {pilot.kept:,} kept{share}, ${pilot.usd:,.4f} spent",
        soft_wrap=True,
    )
    for reason, count in pilot.reasons.items():
        console.print(Text(f"  {count:>5,} {reason}"))
    for trace in pilot.traces:
        _trace(trace, console)


def _trace(trace: PilotTrace, console: Console) -> None:
    style = "green" if trace.outcome == "kept" else "yellow"
    became = trace.outcome + (f", {trace.reason}" if trace.reason else "")
    console.print(Text("  ") + Text(f"{trace.sample_id}: {became}", style=style), soft_wrap=True)
    cut = " …" if len(trace.output) > SHOWN_CHARS else ""
    for name, text in (
        ("asked", trace.problem),
        ("right", trace.reference),
        ("wrote", trace.output[:SHOWN_CHARS] + cut),
        ("why", trace.detail if trace.outcome != "kept" else ""),
        ("judge", trace.judge if trace.judge != trace.detail else ""),
    ):
        if text.strip():
            hanging(console, " ".join(text.split()), indent=10, first=Text(f"    {name:<6}", style="dim"))


def _range(middle: float, low: float, high: float) -> str:
    return f"{middle:,.2f}" if low == high else f"{middle:,.2f} ({low:,.2f}-{high:,.2f})"
