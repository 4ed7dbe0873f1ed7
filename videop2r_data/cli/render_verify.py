"""Print what `verify` found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.render_tables import bar, bar_width, plural, type_table

if TYPE_CHECKING:
    from videop2r_data.builders.verify.report import Finding, VerifyReport

_LAYOUT = {"ours": "this tool's layout", "official": "the official layout"}


def render_report(report: VerifyReport, console: Console) -> None:
    """Print a report: what was read, the table, the funnel, every finding, the verdict."""
    rows = ", ".join(f"{name} {count:,}" for name, count in report.configs.items()) or "none"
    console.print(Text(report.where, style="bold"), soft_wrap=True)
    revision = f", revision {report.revision}" if report.revision else ""
    console.print(f"{plural(report.files, 'file')} in {_LAYOUT[report.layout]}{revision}; rows: {rows}")
    if report.table:
        console.print()
        title = "accepted" if "sft" in report.configs else "questions"
        console.print(type_table(report.table, title=title, width=console.width))
    if report.paper is not None:
        _paper(report, console)
    if report.funnel:
        _funnel(report, console)
    if report.notes:
        console.print()
        for note in report.notes:
            console.print(Text(f"note: {note}", style="dim"), soft_wrap=True)
    for finding in report.findings:
        console.print()
        _finding(finding, console)
    console.print()
    _verdict(report, console)


def _paper(report: VerifyReport, console: Console) -> None:
    assert report.paper is not None
    console.print()
    if report.paper.table:
        console.print(
            type_table(
                report.paper.table,
                title="difference to the paper's table, cells that differ",
                signed=True,
                width=console.width,
            )
        )
    else:
        console.print("The table is the paper's: 162,062 rows.")


def _funnel(report: VerifyReport, console: Console) -> None:
    total = sum(report.funnel.values())
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items())
    table = Table(
        title=f"not accepted: {outcomes}", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.add_column("stage")
    table.add_column("reason", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("")
    names = max(len(name) for name in report.funnel)
    long = bar_width(console.width, 8 + names + len(f"{max(report.funnel.values()):,}"), 24)
    for name, count in report.funnel.items():
        stage, _, reason = name.partition("/")
        table.add_row(Text(stage), Text(reason), f"{count:,}", bar(count / total, long))
    console.print()
    console.print(table)


def _finding(finding: Finding, console: Console) -> None:
    colour = "red" if finding.severity == "error" else "yellow"
    console.print(
        Text(f"{finding.severity} ", style=f"bold {colour}")
        + Text(finding.code.value, style="bold")
        + Text(f" x {finding.count:,}")
    )
    for place in finding.places:
        row = "" if place.row is None else f", row {place.row:,}"
        field = f', field "{place.field}"' if place.field else ""
        console.print(Text(f"  {place.file}{row}{field}"), soft_wrap=True)
        console.print(Text(f"    got      {_one_line(place.got)}"), soft_wrap=True)
        console.print(Text(f"    expected {_one_line(place.expected)}"), soft_wrap=True)
    if finding.count > len(finding.places):
        console.print(f"  and {finding.count - len(finding.places):,} more")


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _verdict(report: VerifyReport, console: Console) -> None:
    errors = sum(f.count for f in report.findings if f.severity == "error")
    warnings = sum(f.count for f in report.findings if f.severity == "warning")
    speed = (
        f"{plural(report.rows, 'row')} in {report.seconds:,.1f} s; {report.rows_per_s:,.0f} rows/s after "
        f"{report.startup_s:,.1f} s of start-up"
    )
    if not report.locked:
        speed += "; no build.lock.json"
    extra = f", {plural(warnings, 'warning')}" if warnings else ""
    if report.ok:
        console.print(Text("ok", style="bold green") + Text(f"{extra}: {speed}"))
    else:
        console.print(Text(plural(errors, "error"), style="bold red") + Text(f"{extra}: {speed}"))
