"""Findings, trial calls and their table, for terminals of any width and for pipes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.render_tables import plural

if TYPE_CHECKING:
    from videop2r_data.builders.findings import DoctorReport, Finding, ServerLook, TrialCall

STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "error": "bold red"}
_LABEL = 9


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


def render_findings(findings: Iterable[Finding], console: Console, *, indent: int = 2) -> None:
    """One entry each: state, what was found, and what to do."""
    for finding in findings:
        if finding.about == "call" and finding.state == "ok":
            continue  # the line of the call itself says more
        label = Text(" " * indent + f"{finding.state:<{_LABEL}}", style=STYLES[finding.state])
        hanging(console, finding.message, indent=indent + _LABEL, first=label)
        if finding.hint:
            mark = Text(" " * (indent + _LABEL) + "-> ")
            hanging(console, finding.hint, indent=indent + _LABEL + 3, first=mark)


def render_servers(servers: Iterable[ServerLook], console: Console) -> None:
    """Each server with its calls and findings."""
    for server in servers:
        console.print(Text(_named(server), style="bold"), soft_wrap=True)
        for call in server.calls:
            hanging(console, call_line(call), indent=2 + _LABEL, first=Text(f"  {'call':<{_LABEL}}"))
        render_findings(server.findings, console)


def call_line(call: TrialCall) -> str:
    """A call in one line."""
    shown = call.data_type if not call.frames else f"{call.data_type}, {plural(call.frames, 'frame')}"
    return (
        f"{shown}: {call.input_tokens:,} tokens in, {call.output_tokens:,} out, "
        f"{call.seconds:.1f} s, ${call.usd:.4f}"
    )


def render_doctor(report: DoctorReport, console: Console) -> None:
    """Settings, a table of the calls, then what each server said and what to change."""
    console.print(Text("setup", style="bold"))
    render_findings(report.setup, console)
    for server in report.servers:
        console.print(Text(_named(server), style="bold"), soft_wrap=True)
        render_findings(server.findings, console)
        for call in server.calls:  # their figures stand in the table
            said = " ".join(call.reply.split())
            hanging(console, said[:200], indent=2 + _LABEL, first=Text(f"  {'reply':<{_LABEL}}"))
    calls = [(server, call) for server in report.servers for call in server.calls]
    if calls:
        _table(calls, console)
    console.print(f"{plural(len(calls), 'call')}, ${report.calls_usd:,.4f}")
    wrong = [f for f in report.setup if f.state == "error"]
    wrong += [f for server in report.servers for f in server.findings if f.state == "error"]
    if wrong:
        console.print(Text(f"a build would fail: {plural(len(wrong), 'error')}", style="bold red"))
    else:
        console.print("[bold green]a build can begin[/]")


def _table(calls: list[tuple[ServerLook, TrialCall]], console: Console) -> None:
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD, padding=(0, 0))
    for name in ("step", "shown", "tokens in", "out", "longest", "context", "seconds", "dollars"):
        table.add_column(name, justify="left" if name in ("step", "shown") else "right", no_wrap=True)
    for server, call in calls:
        table.add_row(
            server.step,
            f"{call.data_type} {call.frames}" if call.frames else call.data_type,
            f"{call.input_tokens:,}",
            f"{call.output_tokens:,}",
            f"{server.needed:,}" if server.needed else "-",
            f"{server.context:,}" if server.context else "-",
            f"{call.seconds:.1f}",
            f"{call.usd:.4f}",
        )
    console.print(table)


def _named(server: ServerLook) -> str:
    where = f", {server.address}" if server.address else ""
    return f"{server.step}: {server.model} ({server.kind}{where})"
