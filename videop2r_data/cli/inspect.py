"""The commands on a finished data set: `verify`, `show`, `reproduce`, `demo-report`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from videop2r_data.cli.common import FINDINGS, OK, err_console, out_console
from videop2r_data.cli.output import print_json


def run_verify(where: str, *, revision: str | None, workers: int, as_json: bool) -> None:
    """Check every row."""
    from videop2r_data.builders.verify import verify_release
    from videop2r_data.cards.card_check import as_written

    with err_console().status("verifying"):
        report = verify_release(where, revision=revision, workers=workers or None, as_written=as_written)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        render_report(report, out_console())
    raise typer.Exit(OK if report.ok else FINDINGS)


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
            console.print(f"{'same' if file.same else 'DIFFERS':8} {file.path}", soft_wrap=True, markup=False)
        for cause in report.causes:
            console.print(f"  {cause}", markup=False)
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
    render_show(view, out_console())


def run_demo_report(folder: Path, *, work: Path | None, as_json: bool) -> None:
    """Hold the outcomes of a demo build against what was planted."""
    from videop2r_data.builders.demo_report import demo_report
    from videop2r_data.builders.workspace import Workspace

    report = demo_report(Workspace.of(folder, work=work))
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    render_demo(report, out_console())
