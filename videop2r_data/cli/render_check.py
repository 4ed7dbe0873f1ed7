"""What `p2r-data check` prints."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from videop2r_data.cli.render_findings import hanging, render_findings, render_servers
from videop2r_data.cli.render_tables import plural, size

if TYPE_CHECKING:
    from videop2r_data.builders.check_report import CheckReport, MediaFault, MediaStats, SourceCheck

EXAMPLES = 5
"""Files per reason, bad rows and warnings that are printed; `--report` writes all of them."""


def render_check(report: CheckReport, console: Console) -> None:
    """Per source what can be used, what cannot, and which rows need it; then what else a build needs."""
    for source in report.sources:
        _source(source, console)
    if report.setup:
        console.print(Text("setup", style="bold"))
        render_findings(report.setup, console)
    render_servers(report.servers, console)
    how = "every frame decoded" if report.deep else "a quick look; --deep decodes every frame"
    rows = f"{report.rows_ok:,} of {plural(report.rows, 'row')} and "
    if all(source.kind == "folder" for source in report.sources):
        rows = ""
    usable = f"{report.files_ok:,} of {plural(report.files, 'file')} can be used"
    hanging(console, f"{rows}{usable} ({how})", indent=0)
    calls = sum(len(server.calls) for server in report.servers)
    if calls:
        console.print(f"{plural(calls, 'trial call')}: ${report.calls_usd:,.4f}")
    states = Counter(f.state for f in report.setup)
    states.update(f.state for server in report.servers for f in server.findings)
    states["error"] += sum(source.error is not None for source in report.sources)
    odd = states["warning"] + sum(source.warned for source in report.sources)
    if states["error"]:
        console.print(Text(f"a build would fail: {plural(states['error'], 'error')}", style="bold red"))
    elif report.ok and odd:
        console.print(f"[bold green]nothing wrong[/], {plural(odd, 'warning')}")
    elif report.ok:
        console.print("[bold green]nothing wrong[/]")


def _source(source: SourceCheck, console: Console) -> None:
    from videop2r_data.builders.findings import Finding

    console.print(Text(f"{source.name} ({source.kind})", style="bold"), soft_wrap=True)
    if source.error:
        message, _, hint = source.error.partition("\n")
        read = "" if not source.rows else "cannot be read to its end: "
        found = Finding(about="pool", state="error", message=read + message, hint=" ".join(hint.split()))
        render_findings([found], console)
    under = f" under {source.media_root}" if source.media_root else ""
    counted = plural(source.rows, "row") + ", " if source.kind != "folder" else ""
    console.print(Text(f"  {counted}{plural(source.files, 'media file')}{under}"), soft_wrap=True)
    if source.note:
        console.print(Text(f"  {source.note}"), soft_wrap=True)
    if source.left_out:
        console.print(f"  {plural(source.left_out, 'file')} of other endings left out")
    for kind, stats in (("video", source.videos), ("image", source.images)):
        if stats is not None:
            hanging(console, f"{plural(stats.files, kind)}: {_spread(stats)}", indent=2)
    if source.times:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in source.times.items())
        hanging(console, f"frame times: {kinds}", indent=2)
    if source.bad_rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in source.bad_rows.items())
        hanging(console, f"{plural(sum(source.bad_rows.values()), 'bad row')}: {reasons}", indent=2)
    for bad in source.bad_examples[:EXAMPLES]:
        name = f" ({bad.problem_id})" if bad.problem_id else ""
        hanging(console, f"row {bad.row:,}{name}: {bad.detail}", indent=4)
    for fault in source.faults:
        _fault(fault, console, rows=source.kind != "folder")
    _warnings(source, console)


def _fault(fault: MediaFault, console: Console, *, rows: bool) -> None:
    """A reason with its first files, and what each of them says."""
    needed = f", needed by {plural(fault.rows, 'row')}" if rows else ""
    head = Text(f"  {fault.reason.value}", style="red")
    console.print(head + Text(f": {plural(fault.files, 'file')}{needed}"))
    for bad in fault.examples[:EXAMPLES]:
        ids = f" (needed by {', '.join(bad.sample_ids)})" if rows else ""
        hanging(console, f"{bad.path}: {bad.detail}{ids}", indent=4)
    if fault.files > EXAMPLES:
        console.print(f"    and {fault.files - EXAMPLES:,} more")


def _warnings(source: SourceCheck, console: Console) -> None:
    """Files that can be used, with something odd about them: how often, and the first of each."""
    if not source.warned:
        return
    head = Text("  warnings", style="yellow")
    console.print(head + Text(f": {plural(source.warned, 'usable file')}"))
    for kind, count in source.warning_kinds.items():
        hanging(console, f"{plural(count, 'file')}: {kind}", indent=4)
    for found in source.warnings[:EXAMPLES]:
        hanging(console, f"{found.path}: {'; '.join(found.warnings)}", indent=4)
    if source.warned > EXAMPLES:
        console.print(f"    and {source.warned - EXAMPLES:,} more")


def _spread(stats: MediaStats) -> str:
    text = f"{size(stats.bytes)}, median {stats.width.median:.0f}x{stats.height.median:.0f} pixels"
    if stats.duration_s is not None:
        low, high = f"{stats.duration_s.min:,.1f}", f"{stats.duration_s.max:,.1f}"
        text += f", {low} s" if low == high else f", {low} to {high} s"
    return text
