"""`p2r-data check` and `doctor`: what to mend before anything is spent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    JsonOpt,
    OutOpt,
    RecipeArg,
    WorkOpt,
    err_console,
    same_build,
    shell,
    show,
)
from videop2r_data.cli.terminal import Told, hanging, plural, say, size, table
from videop2r_data.recipes import list_recipes, read_recipe

if TYPE_CHECKING:
    from videop2r_data.builders.checks import (
        CheckReport,
        DoctorReport,
        FileLine,
        Finding,
        MediaFault,
        MediaStats,
        OnFile,
        ServerLook,
        SourceCheck,
        TrialCall,
    )

_FILES = "media files"


def check(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, the name of a packaged one, or a folder of clips and images."),
    ] = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame, not only the headers.")] = False,
    no_calls: Annotated[
        bool, typer.Option("--no-calls", help="Ask no server: neither its models nor a trial call.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="JSONL", help="Write a line for every file and every row that cannot be used."),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Look at all that a build needs before anything is spent: rows, media, settings, folders, servers.

    Each server gets one trial call per kind of media, with one frame, and a judge one with text: the cost is
    shown. All findings at once, each with what to do.

    Exit code 0: nothing wrong. 1: a row or a file cannot be used, or a build would fail.
    """
    from videop2r_data.builders import Workspace
    from videop2r_data.builders.checks import check_folder, check_recipe

    following = ""
    if Path(recipe).is_dir() and recipe not in list_recipes():  # `demo/` is the folder
        with _lines(report) as on_file, Told(err_console(), "looking at the folder", _FILES) as told:
            found = asyncio.run(check_folder(Path(recipe), deep=deep, progress=told.count, on_file=on_file))
    else:
        read, base = read_recipe(recipe)
        place = Workspace.at(out or Path(read.name), base=base, work=work)
        with _lines(report) as on_file, Told(err_console(), "looking at the pool", _FILES) as told:
            found = asyncio.run(
                check_recipe(
                    read,
                    place,
                    deep=deep,
                    calls="none" if no_calls else "one-frame",
                    progress=told.count,
                    tell=told.tell,
                    on_file=on_file,
                )
            )
        following = _next_step(found, same_build(recipe, out, work))
    show(found, render_check, as_json=json)
    if not json:
        if report is not None:
            say(f"every file: {shell(report)}")
        elif not found.ok and found.files_ok < found.files:
            say("every file with its detail: --report FILE.jsonl")
        if following:
            say(following)
    raise typer.Exit(OK if found.ok else FINDINGS)


def doctor(
    recipe: RecipeArg = "demo", out: OutOpt = None, work: WorkOpt = None, json: JsonOpt = False
) -> None:
    """Ask every server of a recipe a real question, with all frames, and say what to change.

    Looks at settings, keys, prompts, folders, models and context lengths as `check` does, and of the media at
    those of one row alone. A model in this process is loaded. The calls are paid, and are not kept.

    Exit code 0: a build can begin. 1: it would fail.
    """
    from videop2r_data.builders import Workspace, checks

    read, base = read_recipe(recipe)
    place = Workspace.at(out or Path(read.name), base=base, work=work)
    with Told(err_console(), "looking at the recipe") as told:
        found = asyncio.run(checks.doctor(read, place, tell=told.tell))
    show(found, render_doctor, as_json=json)
    if not json:
        again = "next: mend what is marked `error`, then p2r-data doctor"
        say(f"{'next: p2r-data check' if found.ok else again} {same_build(recipe, out, work)}")
    raise typer.Exit(OK if found.ok else FINDINGS)


def _next_step(found: CheckReport, typed: str) -> str:
    from videop2r_data.builders.checks import no_error

    if found.ok:
        return f"next: p2r-data estimate {typed} --pilot 50"
    if not no_error(found.setup) or not all(server.ok for server in found.servers):
        return f"next: mend what is marked `error`, then p2r-data check {typed}"
    if found.rows_ok and not any(source.error for source in found.sources):
        return (
            "A build goes on without the others and keeps them, with the reason, in the config `rejected`.\n"
            f"next: mend them, or p2r-data estimate {typed} --pilot 50"
        )
    return f"next: mend the source, then p2r-data check {typed}"


@contextmanager
def _lines(path: Path | None) -> Iterator[OnFile | None]:
    """The function that writes a line of `--report`, or None without a path; an existing file is replaced."""
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(line: FileLine) -> None:
            file.write(line.model_dump_json() + "\n")

        yield write


# What `check` prints.


EXAMPLES = 5
"""Files per reason, bad rows and warnings that are printed; `--report` writes all of them."""


def render_check(report: CheckReport, console: Console, what: str = "a build") -> None:
    """Print per source the usable and the bad files and rows, then settings and servers, then the verdict on
    `what` needs them."""
    for source in report.sources:
        _source(source, console)
    if report.setup:
        console.print(Text("setup", style="bold"))
        render_findings(report.setup, console)
    for server in report.servers:
        console.print(Text(_named(server), style="bold"), soft_wrap=True)
        for call in server.calls:
            hanging(console, _call_line(call), indent=2 + _LABEL, first=Text(f"  {'call':<{_LABEL}}"))
        render_findings(server.findings, console)
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
        console.print(Text(f"{what} would fail: {plural(states['error'], 'error')}", style="bold red"))
    elif report.ok and odd:
        console.print(f"[bold green]nothing wrong[/], {plural(odd, 'warning')}")
    elif report.ok:
        console.print("[bold green]nothing wrong[/]")


def _source(source: SourceCheck, console: Console) -> None:
    from videop2r_data.builders.checks import Finding

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
    """Print one kind of fault: its count, and the first `EXAMPLES` files with their error."""
    needed = f", needed by {plural(fault.rows, 'row')}" if rows else ""
    head = Text(f"  {fault.reason.value}", style="red")
    console.print(head + Text(f": {plural(fault.files, 'file')}{needed}"))
    for bad in fault.examples[:EXAMPLES]:
        ids = f" (needed by {', '.join(bad.sample_ids)})" if rows else ""
        hanging(console, f"{bad.path}: {bad.detail}{ids}", indent=4)
    if fault.files > EXAMPLES:
        console.print(f"    and {fault.files - EXAMPLES:,} more")


def _warnings(source: SourceCheck, console: Console) -> None:
    """Print warnings about usable files: a count per kind, and the first `EXAMPLES` files."""
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


# What `doctor` prints, and `check` of servers: findings, trial calls and their table.


STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "error": "bold red"}
_LABEL = 9


def render_findings(findings: Iterable[Finding], console: Console, *, indent: int = 2) -> None:
    """Print each finding: state, message, and the hint in a line of its own."""
    for finding in findings:
        if finding.about == "call" and finding.state == "ok":
            continue  # the line of the call itself says more
        label = Text(" " * indent + f"{finding.state:<{_LABEL}}", style=STYLES[finding.state])
        hanging(console, finding.message, indent=indent + _LABEL, first=label)
        if finding.hint:
            mark = Text(" " * (indent + _LABEL) + "-> ")
            hanging(console, finding.hint, indent=indent + _LABEL + 3, first=mark)


def _call_line(call: TrialCall) -> str:
    shown = call.data_type if not call.frames else f"{call.data_type}, {plural(call.frames, 'frame')}"
    return (
        f"{shown}: {call.input_tokens:,} tokens in, {call.output_tokens:,} out, "
        f"{call.seconds:.1f} s, ${call.usd:.4f}"
    )


def render_doctor(report: DoctorReport, console: Console) -> None:
    """Print the findings about settings, then each server with its replies, then a table of the calls."""
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
    found = [*report.setup, *(finding for server in report.servers for finding in server.findings)]
    wrong = sum(finding.state == "error" for finding in found)
    if wrong:
        console.print(Text(f"a build would fail: {plural(wrong, 'error')}", style="bold red"))
    else:
        console.print("[bold green]a build can begin[/]")


def _table(calls: list[tuple[ServerLook, TrialCall]], console: Console) -> None:
    heads = ("step", "shown", "tokens in", "out", "longest", "context", "seconds", "dollars")
    made = table(*heads, left=(0, 1), no_wrap=True)
    made.padding = (0, 0, 0, 0)
    for server, call in calls:
        made.add_row(
            server.step,
            f"{call.data_type} {call.frames}" if call.frames else call.data_type,
            f"{call.input_tokens:,}",
            f"{call.output_tokens:,}",
            f"{server.needed:,}" if server.needed else "-",
            f"{server.context:,}" if server.context else "-",
            f"{call.seconds:.1f}",
            f"{call.usd:.4f}",
        )
    console.print(made)


def _named(server: ServerLook) -> str:
    where = f", {server.address}" if server.address else ""
    return f"{server.step}: {server.model} ({server.kind}{where})"
