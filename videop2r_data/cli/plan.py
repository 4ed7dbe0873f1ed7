"""The commands before a build: `estimate`, `schema`, `init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from videop2r_data.cli.common import (
    err_console,
    out_console,
    print_json,
    read_recipe,
    shell,
    with_overrides,
)
from videop2r_data.cli.render_tables import plural
from videop2r_data.errors import ConfigError

if TYPE_CHECKING:
    from videop2r_data.builders.estimate import Estimate


def run_estimate(
    recipe: str, *, out: Path | None, work: Path | None, pilot: int, max_cost: float | None, as_json: bool
) -> None:
    """Price a build."""
    from videop2r_data.builders.estimate import estimate
    from videop2r_data.builders.run import Stop
    from videop2r_data.builders.workspace import Workspace
    from videop2r_data.cli.progress import BuildProgress
    from videop2r_data.cli.signals import run_draining

    found, base = read_recipe(recipe)
    found = with_overrides(found, max_cost=max_cost)
    place = Workspace.at(out or Path(found.name), base=base, work=work)
    console, stop = err_console(), Stop()
    with BuildProgress(console) as progress:
        report = run_draining(
            estimate(found, place, pilot=pilot, observer=progress, stop=stop), stop, console.print
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    _show_estimate(report, recipe, out_console())


def _show_estimate(report: Estimate, recipe: str, console: Console) -> None:
    console.print(f"{plural(report.rows, 'row')} in the pool, {report.bad_rows:,} of them cannot be used")
    if report.pilot_rows:
        console.print(
            f"pilot: {plural(report.pilot_rows, 'row')}, {report.pilot_kept:,} kept, "
            f"${report.pilot_usd:,.4f} spent"
        )
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    for name in ("step", "calls", "tokens in", "tokens out", "US dollars"):
        table.add_column(name, justify="left" if name == "step" else "right")
    for step in report.steps:
        money = "no price" if not step.priced else _range(step.usd, step.usd_low, step.usd_high)
        table.add_row(
            f"{step.step}\n{step.model}",
            f"{step.calls:,}",
            f"{step.input_tokens:,}",
            f"{step.output_tokens:,}",
            money,
        )
    console.print(table)
    if any(step.priced for step in report.steps):
        console.print(f"in all: ${_range(report.usd, report.usd_low, report.usd_high)}")
    else:
        console.print("in all: nothing to pay, as the recipe gives no `price` for its backends")
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    limit = max(1, round(report.usd_high * 1.1))
    budget = f" --max-cost {limit}" if report.usd else ""
    console.print(f"next: p2r-data build {shell(recipe)}{budget}", soft_wrap=True, markup=False)


def _range(middle: float, low: float, high: float) -> str:
    return f"{middle:,.2f}" if low == high else f"{middle:,.2f} ({low:,.2f}-{high:,.2f})"


def run_schema(name: str) -> None:
    """Print a JSON Schema."""
    from pydantic import BaseModel

    from videop2r_data.builders.build import BuildReport
    from videop2r_data.schemas import ProcessTrace, Sample
    from videop2r_data.schemas.human_label import HumanLabel
    from videop2r_data.schemas.judges import JudgesFile
    from videop2r_data.schemas.lock import BuildLock
    from videop2r_data.schemas.recipe import Recipe
    from videop2r_data.schemas.rows import CONFIGS

    known: dict[str, type[BaseModel]] = {
        "recipe": Recipe,
        "lock": BuildLock,
        "trace": ProcessTrace,
        "sample": Sample,
        **CONFIGS,
        "report": BuildReport,
        "judges": JudgesFile,
        "label": HumanLabel,
    }
    if not name:
        typer.echo("\n".join(known))
        return
    if name not in known:
        raise ConfigError(f"no schema {name!r}", hint=f"one of: {', '.join(known)}")
    schema = known[name].model_json_schema()
    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def run_init(path: Path, *, template: str, force: bool) -> None:
    """Write a commented recipe."""
    from videop2r_data.recipes import list_recipes, recipe_text

    if template not in list_recipes():
        raise ConfigError(f"no packaged recipe {template!r}", hint=f"one of: {', '.join(list_recipes())}")
    if path.is_dir():
        path = path / f"{template}.yaml"
    if path.exists() and not force:
        raise ConfigError("the file exists", where=str(path), hint="--force replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe_text(template), encoding="utf-8")
    typer.echo(f"wrote {path}; edit its sources, then: p2r-data check {shell(path)}")
