"""The commands on a finished data set: `verify`, `stats`, `show`, `reproduce`, `demo-report`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.common import FINDINGS, OK, err_console, out_console, print_json

_COLOURS = {"observation": "green", "think": "cyan", "answer": "magenta"}


def run_verify(where: str, *, revision: str | None, workers: int, as_json: bool) -> None:
    """Check every row."""
    from videop2r_data.builders.verify import verify_release
    from videop2r_data.cli.render_verify import render_report

    with err_console().status("verifying"):
        report = verify_release(where, revision=revision, workers=workers or None)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        render_report(report, out_console())
    raise typer.Exit(OK if report.ok else FINDINGS)


def run_stats(where: str, *, revision: str | None, as_json: bool) -> None:
    """Print the tables of a data set."""
    from videop2r_data.builders.release import open_release
    from videop2r_data.cards.stats import compute_stats
    from videop2r_data.cli.render_stats import render_stats

    with err_console().status("counting"):
        found = compute_stats(open_release(where, revision=revision))
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        render_stats(found, out_console())


def run_reproduce(folder: Path, *, work: Path | None, base: Path | None, as_json: bool) -> None:
    """Rebuild and compare."""
    from videop2r_data.builders.reproduce import reproduce
    from videop2r_data.builders.workspace import Workspace
    from videop2r_data.cards.dataset_card import write_dataset_card
    from videop2r_data.cli.progress import BuildProgress

    place = Workspace.of(folder, work=work, base=base)
    with BuildProgress(err_console()) as progress:
        report = asyncio.run(reproduce(place, card=write_dataset_card, observer=progress))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        console = out_console()
        for file in report.files:
            console.print(f"{'same' if file.same else 'DIFFERS':8} {file.path}", soft_wrap=True)
        for cause in report.causes:
            console.print(f"  {cause}")
        console.print("[bold]every file is the same[/]" if report.same else "[bold red]not the same[/]")
    raise typer.Exit(OK if report.same else FINDINGS)


def run_show(folder: Path, sample: str, *, work: Path | None, as_json: bool) -> None:
    """Print one sample."""
    from videop2r_data.builders.replay import look_up
    from videop2r_data.builders.workspace import Workspace

    view = asyncio.run(look_up(Workspace.of(folder, work=work), sample))
    if as_json:
        print_json(view.model_dump(mode="json"))
        return
    console = out_console()
    _show_head(view, console)
    for name, text in view.segments.items():
        console.print(Text(f"<{name}>", style="bold") + Text(text, style=_COLOURS[name]))
    for call in view.calls:
        _show_call(call, console)


def _show_head(view: Any, console: Console) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in view.sample.items():
        table.add_row(name, Text("\n".join(map(str, value)) if isinstance(value, list) else str(value)))
    verdict = view.outcome + (f" at {view.stage}: {view.reason}" if view.reason else "")
    table.add_row("outcome", Text(verdict))
    for name in ("detail", "score", "score_reason", "judgement", "judge_explanation", "attempt"):
        value = getattr(view, name)
        if value not in ("", None):
            table.add_row(name, Text(str(value)))
    if view.media:
        frames = ", ".join(f"{t:.2f}" for t in view.media["times_s"])
        size = f"{view.media['width']}x{view.media['height']}"
        table.add_row("frames", Text(f"{view.media['count']} of {view.media['source_frames']}, {size}"))
        table.add_row("seconds", Text(frames))
    console.print(table)


def _show_call(call: Any, console: Console) -> None:
    console.rule(Text(f"{call.purpose} by {call.served or call.model}"), align="left")
    console.print(Text(f"key {call.key}  {call.params}  {call.usage}", style="dim"))
    for message in call.messages:
        frames = " (frames before the text)" if message["media"] else ""
        console.print(Text(f"{message['role']}{frames}:", style="bold"))
        console.print(Text(message["text"]))
    console.print(Text("answer:", style="bold"))
    console.print(Text(call.answer or f"(none: {call.refused})"))


def run_demo_report(folder: Path, *, work: Path | None, as_json: bool) -> None:
    """Hold the outcomes of a demo build against what was planted."""
    from videop2r_data.builders.demo_report import demo_report
    from videop2r_data.builders.workspace import Workspace

    report = demo_report(Workspace.of(folder, work=work))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    from videop2r_data.cli.render_demo import render_demo

    render_demo(report, out_console())
