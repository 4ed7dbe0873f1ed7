"""`p2r-data build`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from videop2r_data.builders.abandon import abandon_batch
from videop2r_data.builders.build import BuildReport, build
from videop2r_data.builders.lease import take
from videop2r_data.builders.ray_build import make_calls_on_ray
from videop2r_data.builders.run import Stop
from videop2r_data.builders.shards import Shard
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.dataset_card import write_dataset_card
from videop2r_data.cli.common import (
    OK,
    UNFINISHED,
    err_console,
    out_console,
    read_recipe,
    shell,
    with_overrides,
)
from videop2r_data.cli.output import print_json
from videop2r_data.cli.progress import BuildProgress
from videop2r_data.cli.render_tables import plural, type_table
from videop2r_data.cli.signals import run_draining
from videop2r_data.schemas.lock import Ledger
from videop2r_data.schemas.recipe import Recipe


def apply_flags(recipe: Recipe, overrides: dict[str, Any], limit: int | None) -> Recipe:
    """The recipe with the flags of the command applied."""
    if recipe.judge is None:
        overrides = {k: v for k, v in overrides.items() if not k.startswith("judge__")}
    if limit is not None:
        sources = [s.model_copy(update={"limit": limit}).model_dump(mode="json") for s in recipe.sources]
        overrides = overrides | {"sources": sources}
    return with_overrides(recipe, **overrides)


def run_build(
    name: str,
    *,
    out: Path | None,
    work: Path | None,
    wait: bool,
    as_json: bool,
    limit: int | None,
    overrides: dict[str, Any],
    abandon: str | None = None,
    shard: str | None = None,
    ray_tasks: int | None = None,
    retry_media: bool = False,
) -> None:
    """Build, show progress, and end with a summary and the next command."""
    recipe, base = read_recipe(name)
    recipe = apply_flags(recipe, overrides, limit)
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    console, stop = err_console(), Stop()
    if abandon is not None:
        freed = abandon_batch(recipe, place, abandon)
        console.print(f"batch {escape(abandon)} is given up; {plural(freed, 'request')} will be asked again")
    share = None if shard is None else Shard.parse(shard)
    if ray_tasks is not None:
        with asyncio.run(
            take(place.work, f"a build with --ray {ray_tasks}", wait=wait, stop=stop, tell=console.print)
        ) as lease:
            make_calls_on_ray(recipe, place, ray_tasks, under=lease.token, tell=console.print)
    with BuildProgress(console) as progress:
        report = run_draining(
            build(
                recipe,
                place,
                observer=progress,
                card=write_dataset_card,
                stop=stop,
                wait=wait,
                shard=share,
                retry_media=retry_media,
            ),
            stop,
            console.print,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show_report(report, recipe, out_console())
    finished = report.state in ("complete", "shard_complete") and not report.unanswered
    raise typer.Exit(OK if finished else UNFINISHED)


def show_report(report: BuildReport, recipe: Recipe, console: Console) -> None:
    """The summary for people."""
    again = "run the same command again: every finished call is kept"
    if report.state == "complete" and report.ledger is not None:
        console.print(f"[bold]Built[/] {escape(report.out)}", soft_wrap=True)
        if report.ledger.kept:
            console.print()
            console.print(type_table(report.ledger.table, title="kept", width=console.width))
            console.print()
        show_reasons(report.ledger, console)
    elif report.state == "shard_complete":
        console.print(
            f"[bold]Every call of this share is made[/] ({plural(report.seen, 'question')}). When all shares "
            "are, run the same command without --shard: it writes the data set."
        )
    elif report.state == "interrupted":
        console.print(f"[bold]Stopped[/] after {plural(report.seen, 'question')}; to go on, {again}.")
    elif report.state == "waiting":
        console.print(
            f"[bold]Waiting[/] for batches with the answers of {plural(report.waiting, 'question')}. "
            "Run the same command later, here or on another machine that has the work folder."
        )
    else:
        console.print(
            f"[bold]Over budget[/] after {plural(report.seen, 'question')}: raise --max-cost, then {again}."
        )
    console.print(
        f"{plural(report.calls_made, 'call')} made, {plural(report.calls_found, 'answer')} found in the "
        f"journal, {plural(report.media_decoded, 'file')} decoded, {report.seconds:,.1f} s"
    )
    _show_money(report, console)
    if report.damaged_records:
        console.print(
            f"{plural(report.damaged_records, 'damaged journal record')}: those calls were made again"
        )
    if report.state == "complete":
        if report.unanswered:
            console.print(f"[bold red]{plural(report.unanswered, 'question')} got no answer[/]: {again}.")
            if report.last_error:
                console.print(Text(f"  the last error: {report.last_error}"), soft_wrap=True)
        _show_next(report, recipe, console)


def _show_money(report: BuildReport, console: Console) -> None:
    spent, lost = report.spent.finished_usd, report.spent.lost_usd
    if spent or lost:
        more = f", and at most ${lost:,.2f} for calls that never came back" if lost else ""
        console.print(f"spent ${spent:,.2f} over all runs{more}")


def _show_next(report: BuildReport, recipe: Recipe, console: Console) -> None:
    load = f"from datasets import load_dataset as l; print(l({report.out!r}))"
    lines = [
        f"check it   p2r-data verify {shell(report.out)}",
        f"see one    p2r-data show {shell(report.out)}",
        f"load it    python -c {_double(load)}",
    ]
    if any(s.kind == "demo" for s in recipe.sources):
        lines.append(f"score it   p2r-data demo-report {shell(report.out)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _double(text: str) -> str:
    """A shell word; in double quotes where these change nothing, since the text holds single ones."""
    return shell(text) if any(c in text for c in '"$`\\!') else f'"{text}"'


def show_reasons(ledger: Ledger, console: Console) -> None:
    """The sum of the ledger and why rows fell."""
    console.print(
        f"{plural(ledger.rows_in, 'row')} in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed"
        + (f"; {plural(ledger.surplus, 'more row')} behind the target" if ledger.surplus else "")
    )
    for reason, count in sorted(ledger.reasons.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"  {count:>9,}  {reason}")
