"""`p2r-data build`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from videop2r_data.backends.journal import Journal
from videop2r_data.builders.abandon import abandon_batch
from videop2r_data.builders.build import BuildReport, build
from videop2r_data.builders.lease import take
from videop2r_data.builders.ray_build import make_calls_on_ray
from videop2r_data.builders.reopen import KINDS, RetryKind, find_retries, parse_kinds, reopen
from videop2r_data.builders.run import Stop
from videop2r_data.builders.shards import Shard
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.dataset_card import write_dataset_card
from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    OVER_BUDGET,
    UNFINISHED,
    err_console,
    out_console,
    read_recipe,
    with_overrides,
)
from videop2r_data.cli.output import print_json
from videop2r_data.cli.progress import BuildProgress
from videop2r_data.cli.render_build import show_report
from videop2r_data.cli.render_tables import plural
from videop2r_data.cli.signals import run_draining
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
    retry: str | None = None,
    dry_run: bool = False,
    keep_going: bool = False,
    replace: bool = False,
) -> None:
    """Build, show progress, and end with a summary and the next command."""
    recipe, base = read_recipe(name)
    recipe = apply_flags(recipe, overrides, limit)
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    console, stop = err_console(), Stop()
    kinds = parse_kinds(retry) if retry is not None else ()
    share = None if shard is None else Shard.parse(shard)
    if dry_run:
        _dry_run(recipe, place, kinds or KINDS, share, as_json=as_json)
        return
    if abandon is not None:
        freed = abandon_batch(recipe, place, abandon)
        console.print(f"batch {escape(abandon)} is given up; {plural(freed, 'request')} will be asked again")
    if ray_tasks is not None:
        _on_ray(recipe, place, ray_tasks, kinds, wait=wait, keep_going=keep_going)
        kinds = ()
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
                retry=kinds,
                keep_going=keep_going,
                replace=replace,
            ),
            stop,
            console.print,
        )
    _end(report, recipe, as_json=as_json)


def _end(report: BuildReport, recipe: Recipe, *, as_json: bool) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show_report(report, recipe, out_console())
    raise typer.Exit(exit_code(report))


def exit_code(report: BuildReport) -> int:
    """0: done. 1: too little was kept. 3: the same command goes on. 4: the money limit."""
    if report.state == "over_budget":
        return OVER_BUDGET
    if report.state not in ("complete", "shard_complete", "withheld") or report.unanswered:
        return UNFINISHED
    poor = report.state == "withheld" or (report.ledger is not None and not report.ledger.kept)
    return FINDINGS if poor else OK


def _dry_run(
    recipe: Recipe, place: Workspace, kinds: Collection[RetryKind], share: Shard | None, *, as_json: bool
) -> None:
    """Say what `--retry` would ask again."""
    with BuildProgress(err_console()) as progress, Journal(place.journal, readonly=True) as journal:
        found = asyncio.run(find_retries(recipe, place, journal, kinds, observer=progress, shard=share))
    rows = {kind: found.rows[kind] for kind in KINDS if kind in kinds}
    if as_json:
        print_json({"retry": rows, "calls_and_files": len(found.keys)})
        return
    console = out_console()
    for kind, count in rows.items():
        console.print(f"{count:>9,}  {kind}")
    console.print(
        f"--retry {','.join(kinds) if tuple(kinds) != KINDS else 'all'} would ask again for "
        f"{plural(len(found.keys), 'call or file', 'calls and files')}; nothing was changed",
        soft_wrap=True,
    )


def _on_ray(
    recipe: Recipe,
    place: Workspace,
    tasks: int,
    kinds: Collection[RetryKind],
    *,
    wait: bool,
    keep_going: bool,
) -> None:
    """Make the calls on a cluster; what is to be asked again is withdrawn before the tasks look."""
    console = err_console()
    what = f"a build with --ray {tasks}"
    with asyncio.run(take(place.work, what, wait=wait, stop=Stop(), tell=console.print)) as lease:
        if kinds:
            with BuildProgress(console) as progress, Journal(place.journal) as journal:
                asyncio.run(reopen(recipe, place, journal, kinds, observer=progress, stop=Stop()))
        make_calls_on_ray(recipe, place, tasks, under=lease.token, tell=console.print, keep_going=keep_going)
