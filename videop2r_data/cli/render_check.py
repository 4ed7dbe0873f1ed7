"""What `p2r-data check` prints."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.builders.check_report import CheckReport, MediaStats, SourceCheck
from videop2r_data.cli.render_tables import plural, size


def render_check(report: CheckReport, console: Console) -> None:
    """Tables per source: what can be used, what cannot, and which rows need it."""
    for source in report.sources:
        _source(source, console)
    how = "every frame decoded" if report.deep else "a quick look; --deep decodes every frame"
    console.print(
        f"{report.rows_ok:,} of {plural(report.rows, 'row')} and {report.files_ok:,} of "
        f"{plural(report.files, 'file')} can be used ({how})"
    )
    if report.ok:
        console.print("[bold green]nothing wrong[/]")


def _source(source: SourceCheck, console: Console) -> None:
    console.print(Text(f"{source.name} ({source.kind})", style="bold"))
    if source.error:
        told = source.error.replace("\n", "\n  ")
        console.print(Text(f"  cannot be read to its end: {told}", style="red"), soft_wrap=True)
    under = f" under {source.media_root}" if source.media_root else ""
    console.print(
        f"  {plural(source.rows, 'row')}, {plural(source.files, 'media file')}{under}", soft_wrap=True
    )
    for kind, stats in (("video", source.videos), ("image", source.images)):
        if stats is not None:
            console.print(Text(f"  {plural(stats.files, kind)}: {_spread(stats)}"))
    if source.bad_rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in source.bad_rows.items())
        console.print(f"  {plural(sum(source.bad_rows.values()), 'bad row')}: {reasons}")
    for bad in source.bad_examples[:5]:
        name = f" ({bad.problem_id})" if bad.problem_id else ""
        console.print(Text(f"    row {bad.row:,}{name}: {bad.detail}"), soft_wrap=True)
    if source.faults:
        _faults(source, console)


def _faults(source: SourceCheck, console: Console) -> None:
    table = Table(box=None, pad_edge=False, title="  files that cannot be used", title_justify="left")
    table.add_column("    reason", no_wrap=True)
    for name in ("files", "rows that need them"):
        table.add_column(name, justify="right")
    for fault in source.faults:
        table.add_row(f"    {fault.reason.value}", f"{fault.files:,}", f"{fault.rows:,}")
    console.print(table)
    console.print("  for example")
    for fault in source.faults:
        first = fault.examples[0]
        needs = ", ".join(first.sample_ids)
        console.print(Text(f"    {fault.reason.value}: {first.path}, needed by {needs}"), soft_wrap=True)


def _spread(stats: MediaStats) -> str:
    text = f"{size(stats.bytes)}, median {stats.width.median:.0f}x{stats.height.median:.0f} pixels"
    if stats.duration_s is not None:
        low, high = f"{stats.duration_s.min:,.1f}", f"{stats.duration_s.max:,.1f}"
        text += f", {low} s" if low == high else f", {low} to {high} s"
    return text
