"""`p2r-data verify`, `show`, `reproduce` and `demo-report`: the commands on a finished data set."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Never

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli import common
from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    BaseOpt,
    BuiltArg,
    JsonOpt,
    RevisionOpt,
    WhereArg,
    WorkOpt,
    err_console,
)
from videop2r_data.cli.terminal import bar, bar_width, figure, plural, table, type_table

if TYPE_CHECKING:
    from videop2r_data.builders import CallView, ReproduceReport, SampleView
    from videop2r_data.builders.verify import Finding, TraceReport, VerifyReport
    from videop2r_data.demo import DemoReport


def verify(
    where: WhereArg,
    revision: RevisionOpt = None,
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes; 0: one per core.")] = 0,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Only read each row as a trace of this grammar: a packaged name, or a YAML file.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --trace: the column that holds the traces.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Check every row of a data set: parse, score, and hold every field against every other.

    Exit code 1 if anything is wrong.
    """
    if trace is not None:
        _verify_traces(where, trace, column=column, revision=revision, json=json)
    from videop2r_data.builders.verify import verify_release
    from videop2r_data.cards.card import as_written

    with err_console().status("verifying"):
        report = verify_release(where, revision=revision, workers=workers or None, as_written=as_written)
    common.show(report, render_report, as_json=json)
    raise typer.Exit(OK if report.ok else FINDINGS)


def _verify_traces(where: str, trace: str, *, column: str | None, revision: str | None, json: bool) -> Never:
    from videop2r_data.builders.verify import verify_traces
    from videop2r_data.schemas import load_grammar

    with err_console().status("reading"):
        report = verify_traces(where, load_grammar(trace), column=column, revision=revision)
    common.show(report, _render_traces, as_json=json)
    raise typer.Exit(OK if report.ok else FINDINGS)


def _render_traces(report: TraceReport, console: Console) -> None:
    console.print(
        f"{report.where}: {report.traces:,} of {plural(report.rows, 'row')} are traces of {report.grammar}",
        markup=False,
    )
    for what, rows in report.unread.items():
        console.print(f"  {rows:,} not read: {what}", markup=False)
    if report.segments:
        found = table("segment", "found")
        for name, count in report.segments.items():
            found.add_row(name, f"{count:,}")
        console.print(found)
    for name, count in report.values.items():
        console.print(f"  {count:,} values of {name}", markup=False)
    for finding in report.findings:
        console.print(f"{finding.rows:6,}  {finding.what}: {finding.means}", markup=False)
        for place, at, around in finding.places:
            console.print(f"        {place}, character {at}: ...{around}...", markup=False)


def reproduce(folder: BuiltArg, work: WorkOpt = None, base: BaseOpt = None, json: JsonOpt = False) -> None:
    """Rebuild a data set from its lock and journal, with no call, and compare every sha256.

    Exit code 1 if a file differs.
    """
    from videop2r_data import builders
    from videop2r_data.cards.card import write_dataset_card
    from videop2r_data.cli.build import BuildProgress

    place = builders.Workspace.of(folder, work=work, base=base)
    with BuildProgress(err_console()) as progress:
        report = asyncio.run(builders.reproduce(place, card=write_dataset_card, observer=progress))
    common.show(report, _render_files, as_json=json)
    raise typer.Exit(OK if report.same else FINDINGS)


def _render_files(report: ReproduceReport, console: Console) -> None:
    for file in report.files:
        console.print(f"{'same' if file.same else 'DIFFERS':8} {file.path}", soft_wrap=True, markup=False)
    for cause in report.causes:
        console.print(f"  {cause}", markup=False)
    console.print("[bold]every file is the same[/]" if report.same else "[bold red]not the same[/]")


def show(
    folder: BuiltArg,
    sample: Annotated[str, typer.Argument(help="sample_id or problem_id; default: the first row.")] = "",
    work: WorkOpt = None,
    base: BaseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Print one sample with its verdicts and the calls behind it."""
    from videop2r_data.builders import Workspace, look_up

    view = asyncio.run(look_up(Workspace.of(folder, work=work, base=base), sample))
    common.show(view, render_show, as_json=json)


def demo_report(folder: BuiltArg, work: WorkOpt = None, base: BaseOpt = None, json: JsonOpt = False) -> None:
    """Precision and recall of each step against the defects that the demo world planted."""
    from videop2r_data import builders

    place = builders.Workspace.of(folder, work=work, base=base)
    common.show(builders.demo_report(place), render_demo, as_json=json)


# What `verify` prints.


_LAYOUT = {"ours": "this tool's layout", "official": "the official layout"}


def render_report(report: VerifyReport, console: Console) -> None:
    """Print files and rows read, the table, the funnel, every finding, the verdict."""
    rows = ", ".join(f"{name} {count:,}" for name, count in report.configs.items()) or "none"
    console.print(Text(report.where, style="bold"), soft_wrap=True)
    revision = f", revision {report.revision}" if report.revision else ""
    console.print(f"{plural(report.files, 'file')} in {_LAYOUT[report.layout]}{revision}; rows: {rows}")
    if report.table:
        console.print()
        title = "accepted" if "sft" in report.configs else "questions"
        console.print(type_table(report.table, title=title, width=console.width))
    if report.paper is not None:
        console.print()
        if report.paper.table:
            title = "difference to the paper's table, cells that differ"
            console.print(type_table(report.paper.table, title=title, signed=True, width=console.width))
        else:
            console.print("The table is the paper's: 162,062 rows.")
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


def _funnel(report: VerifyReport, console: Console) -> None:
    total = sum(report.funnel.values())
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items())
    made = table("stage", "reason", "rows", "", title=f"not accepted: {outcomes}", left=(0, 1, 3), fold=1)
    names = max(len(name) for name in report.funnel)
    long = bar_width(console.width, 8 + names + len(f"{max(report.funnel.values()):,}"), 24)
    for name, count in report.funnel.items():
        stage, _, reason = name.partition("/")
        made.add_row(Text(stage), Text(reason), f"{count:,}", bar(count / total, long))
    console.print()
    console.print(made)


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
    counts = Counter[str]()
    for finding in report.findings:
        counts[finding.severity] += finding.count
    speed = (
        f"{plural(report.rows, 'row')} in {report.seconds:,.1f} s; {report.rows_per_s:,.0f} rows/s after "
        f"{report.startup_s:,.1f} s of start-up"
    )
    if not report.locked:
        speed += "; no build.lock.json"
    extra = f", {plural(counts['warning'], 'warning')}" if counts["warning"] else ""
    said = Text("ok", "bold green") if report.ok else Text(plural(counts["error"], "error"), "bold red")
    console.print(said + Text(f"{extra}: {speed}"))


# What `show` prints.


_COLOURS = {"observation": "green", "think": "cyan", "answer": "magenta"}
_TOKENS = {
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "cache_read_tokens": "read from cache",
    "cache_write_tokens": "written to cache",
}
_VERDICTS = ("detail", "score", "score_reason", "judgement", "judge_explanation")


def render_show(view: SampleView, console: Console) -> None:
    """Print question and outcome, the segments of the trace, then every call with its whole text."""
    console.print(_head(view))
    for name, text in view.segments.items():
        console.print()
        console.print(Text(name, style="bold"))
        console.print(Text(text, style=_COLOURS.get(name, "")))
    for call in view.calls:
        console.print()
        _call(call, console)


def _head(view: SampleView) -> Table:
    made = Table(show_header=False, box=None, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in view.sample.items():
        if value not in ("", [], None):
            made.add_row(name, Text("\n".join(map(str, value)) if isinstance(value, list) else str(value)))
    made.add_row("outcome", Text(view.outcome + (f" at {view.stage}: {view.reason}" if view.reason else "")))
    for name in _VERDICTS:
        value = getattr(view, name)
        if value not in ("", None):
            made.add_row(name, Text(figure(value) if isinstance(value, float) else str(value)))
    for name, words in view.said:
        made.add_row(name, Text(words))
    if view.calls:
        made.add_row("attempt", Text(f"{view.attempt} (counted from 0)"))
    if view.media:
        shape = f"{view.media['width']}x{view.media['height']} pixels"
        made.add_row("frames", Text(f"{view.media['count']} of {view.media['source_frames']}, {shape}"))
        if view.sample.get("data_type") == "video":
            made.add_row("at seconds", Text(", ".join(f"{t:.2f}" for t in view.media["times_s"])))
    return made


def _call(call: CallView, console: Console) -> None:
    console.rule(Text(f"{call.purpose} by {call.served or call.model}"), align="left")
    facts = [f"{name} {value:g}" for name, value in call.params.items() if value is not None]
    facts += [f"{call.usage[key]:,} {name}" for key, name in _TOKENS.items() if call.usage.get(key)]
    if call.finish_reason and call.finish_reason != "stop":
        facts.append(f"ended by {call.finish_reason}")
    console.print(Text(f"key {call.key}", style="dim"), soft_wrap=True)
    if facts:
        console.print(Text(", ".join(facts), style="dim"))
    for message in call.messages:
        frames = " (frames before the text)" if message["media"] else ""
        _text_block(f"{message['role']}{frames}", message["text"], console)
    _text_block("reply", call.answer or f"(none: {call.refused})", console)


def _text_block(head: str, text: str, console: Console) -> None:
    console.print()
    console.print(Text(f"{head}:", style="bold"))
    console.print(Text(text))


# What `demo-report` prints.


def render_demo(report: DemoReport, console: Console) -> None:
    """Precision and recall of each step, then every planted kind, then what was missed."""
    console.print(
        f"synthetic world, profile {report.profile}: {report.judged:,} rows, {report.failed:,} failed"
    )
    console.print(_demo_table(report.rows()))
    if report.judge_note:
        console.print(f"{report.judge_note}\n")
    console.print(_demo_table(report.defect_rows(), left=(0, 2)))
    for miss in report.misses:
        console.print(
            Text(f"missed {miss.problem_id} ({miss.kind}, {miss.defect}): {miss.expected}, got {miss.got}")
        )
    if report.slipped:
        console.print(f"{len(report.slipped):,} rows with a defect that no step of this build looks for")
    if not report.misses:
        console.print("[bold green]nothing missed, nothing rejected wrongly[/]")


def _demo_table(rows: Sequence[Sequence[str]], *, left: tuple[int, ...] = (0,)) -> Table:
    made = table(*rows[0], left=left, overflow="fold")
    for row in rows[1:]:
        made.add_row(*row)
    return made
