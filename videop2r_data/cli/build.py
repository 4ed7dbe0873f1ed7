"""`p2r-data build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from videop2r_data.builders.build import BuildReport, build
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.dataset_card import write_dataset_card
from videop2r_data.cli.common import (
    OK,
    UNFINISHED,
    err_console,
    out_console,
    print_json,
    read_recipe,
    with_overrides,
)
from videop2r_data.cli.progress import BuildProgress
from videop2r_data.cli.signals import run_draining
from videop2r_data.schemas import ProblemType
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
) -> None:
    """Build, show progress, and end with a summary and the next command."""
    recipe, base = read_recipe(name)
    recipe = apply_flags(recipe, overrides, limit)
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    console, stop = err_console(), Stop()
    with BuildProgress(console) as progress:
        report = run_draining(
            build(recipe, place, observer=progress, card=write_dataset_card, stop=stop, wait=wait),
            stop,
            console.print,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show_report(report, recipe, out_console())
    raise typer.Exit(OK if report.state == "complete" else UNFINISHED)


def show_report(report: BuildReport, recipe: Recipe, console: Console) -> None:
    """The summary for people."""
    again = "run the same command again: every finished call is kept"
    if report.state == "complete" and report.ledger is not None:
        console.print(f"[bold]Built[/] {report.out}", soft_wrap=True)
        console.print(ledger_table(report.ledger))
        show_reasons(report.ledger, console)
    elif report.state == "interrupted":
        console.print(f"[bold]Stopped[/] after {report.seen:,} questions; to go on, {again}.")
    elif report.state == "waiting":
        console.print(
            f"[bold]Waiting[/] for batches: {report.waiting:,} questions. Run the same command later, here\n"
            "or on another machine that has the work folder."
        )
    else:
        console.print(f"[bold]Over budget[/] after {report.seen:,} questions: raise --max-cost; {again}.")
    console.print(
        f"{report.calls_made:,} calls made, {report.calls_found:,} answers found in the journal, "
        f"{report.media_decoded:,} files decoded, {report.seconds:,.1f} s"
    )
    if report.spent.finished_usd or report.spent.lost_usd:
        lost = report.spent.lost_usd
        console.print(
            f"spent ${report.spent.finished_usd:,.2f} in all"
            + (f", and at most ${lost:,.2f} for calls that never came back" if lost else "")
        )
    if report.damaged_records:
        console.print(f"{report.damaged_records:,} damaged journal records: their calls were made again")
    if report.state == "complete":
        if report.unanswered:
            console.print(f"{report.unanswered:,} questions got no answer: {again}.")
        _show_next(report, recipe, console)


def _show_next(report: BuildReport, recipe: Recipe, console: Console) -> None:
    lines = [
        f"check it   p2r-data verify {report.out}",
        f"load it    python -c 'from datasets import load_dataset as l; print(l(\"{report.out}\"))'",
    ]
    if any(s.kind == "demo" for s in recipe.sources):
        lines.append(f"score it   p2r-data demo-report {report.out}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def ledger_table(ledger: Ledger) -> Table:
    """Kept rows by data type and problem type, with sums."""
    types = [t.value for t in ProblemType if any(t.value in row for row in ledger.table.values())]
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    table.add_column("kept")
    for name in [*(_short(t) for t in types), "sum"]:
        table.add_column(name, justify="right")
    for kind, counts in ledger.table.items():
        cells = [f"{counts[t]:,}" if t in counts else "-" for t in types]
        table.add_row(kind, *cells, f"{sum(counts.values()):,}")
    sums = [sum(c.get(t, 0) for c in ledger.table.values()) for t in types]
    table.add_row("sum", *(f"{n:,}" for n in sums), f"{sum(sums):,}", style="bold")
    return table


def show_reasons(ledger: Ledger, console: Console) -> None:
    """The sum of the ledger and why rows fell."""
    console.print(
        f"{ledger.rows_in:,} rows in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed" + (f" ({ledger.surplus:,} behind the target)" if ledger.surplus else "")
    )
    for reason, count in sorted(ledger.reasons.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"  {count:>9,}  {reason}")


def _short(problem_type: str) -> str:
    return {
        "multiple choice": "choice",
        "numerical": "number",
        "free-form": "free",
        "regression": "regr.",
        "temporal grounding": "time",
        "spatial grounding": "box",
    }.get(problem_type, problem_type)
