"""What `p2r-data check` prints."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.builders.check_report import CheckReport, MediaStats, SourceCheck


def render_check(report: CheckReport, console: Console) -> None:
    """Tables per source: what can be used, what cannot, and which rows need it."""
    for source in report.sources:
        _source(source, console)
    how = "every frame decoded" if report.deep else "headers only; --deep decodes every frame"
    console.print(
        f"{report.rows_ok:,} of {report.rows:,} rows and {report.files_ok:,} of {report.files:,} files "
        f"can be used ({how})"
    )
    if report.ok:
        console.print("[bold green]nothing wrong[/]")


def _source(source: SourceCheck, console: Console) -> None:
    console.print(Text(f"{source.name} ({source.kind})", style="bold"))
    if source.error:
        console.print(Text(f"  cannot be read to its end: {source.error}", style="red"))
    console.print(f"  {source.rows:,} rows, {source.files:,} media files under {source.media_root or '-'}")
    for kind, stats in (("videos", source.videos), ("images", source.images)):
        if stats is not None:
            console.print(Text(f"  {kind}: {_spread(stats)}"))
    for reason, count in source.bad_rows.items():
        console.print(f"  {count:,} bad rows: {reason}")
    for bad in source.bad_examples[:5]:
        console.print(Text(f"    row {bad.row} ({bad.problem_id or '?'}): {bad.detail}"))
    if source.faults:
        _faults(source, console)


def _faults(source: SourceCheck, console: Console) -> None:
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    table.add_column("reason")
    table.add_column("files", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("for example")
    for fault in source.faults:
        first = fault.examples[0]
        needs = ", ".join(first.sample_ids)
        table.add_row(
            fault.reason.value,
            f"{fault.files:,}",
            f"{fault.rows:,}",
            Text(f"{first.path}, needed by {needs}"),
        )
    console.print(table)


def _spread(stats: MediaStats) -> str:
    text = (
        f"{stats.files:,} files, {stats.bytes / 1e6:,.1f} MB, "
        f"{stats.width.median:.0f}x{stats.height.median:.0f} in the middle"
    )
    if stats.duration_s is not None:
        text += f", {stats.duration_s.min:.1f}-{stats.duration_s.max:.1f} s"
    return text
