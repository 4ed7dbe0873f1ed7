"""`p2r-data estimate`, `init` and `schema`: what comes before a build."""

from __future__ import annotations

import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    UNFINISHED,
    JsonOpt,
    OutOpt,
    RecipeArg,
    WorkOpt,
    err_console,
    new_file,
    out_console,
    run_draining,
    same_build,
    shell,
    show,
    with_overrides,
)
from videop2r_data.cli.terminal import hanging, plural, print_json, say, table
from videop2r_data.errors import ConfigError
from videop2r_data.recipes import list_recipes, read_recipe, recipe_text
from videop2r_data.schemas import visible_line

if TYPE_CHECKING:
    from videop2r_data.builders import Estimate, Guess, Pilot, PilotTrace


def estimate(
    recipe: RecipeArg = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    pilot: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Really build so many rows first and measure; their calls are kept."
        ),
    ] = 0,
    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="US dollars that the pilot may spend.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Price a build before it starts: calls, tokens and dollars of each step."""
    from videop2r_data import builders
    from videop2r_data.cli.build import BuildProgress

    found, base = read_recipe(recipe)
    found = with_overrides(found, max_cost=max_cost)
    place = builders.Workspace.at(out or Path(found.name), base=base, work=work)
    console, stop = err_console(), builders.Stop()
    with BuildProgress(console) as progress:
        priced = builders.estimate(found, place, pilot=pilot, observer=progress, stop=stop)
        report = run_draining(priced, stop, console.print)
    show(report, partial(render_estimate, same_build(recipe, out, work)), as_json=json)
    raise typer.Exit(UNFINISHED if report.stopped else OK if report.ok else FINDINGS)


def schema(
    name: Annotated[str, typer.Argument(help="recipe, lock, trace, sample, sft, rl, rejected, report.")] = "",
) -> None:
    """Print the JSON Schema of a record; without a name, the list of names."""
    from pydantic import BaseModel

    from videop2r_data.builders import BuildReport, Estimate
    from videop2r_data.builders.checks import CheckReport, DoctorReport, FileLine
    from videop2r_data.schemas import (
        CONFIGS,
        BuildLock,
        HumanLabel,
        JudgesFile,
        Overlap,
        ProcessTrace,
        Recipe,
        Sample,
    )

    known: dict[str, type[BaseModel]] = {
        "recipe": Recipe,
        "lock": BuildLock,
        "trace": ProcessTrace,
        "sample": Sample,
        **CONFIGS,
        "report": BuildReport,
        "check": CheckReport,
        "file": FileLine,
        "doctor": DoctorReport,
        "estimate": Estimate,
        "judges": JudgesFile,
        "label": HumanLabel,
        "overlap": Overlap,
    }
    if not name:
        say("\n".join(known))
        return
    if name not in known:
        raise ConfigError(f"no schema {name!r}", hint=f"one of: {', '.join(known)}")
    dialect = "https://json-schema.org/draft/2020-12/schema"
    print_json({"$schema": dialect, **known[name].model_json_schema()})


def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.yaml"),
    template: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Packaged recipe to start from.")
    ] = "videop2r-mini",
    data: Annotated[
        str | None,
        typer.Option(
            "--from-data",
            metavar="FILE|FOLDER|ID",
            help="Look at these questions and guess how to read them.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Split of the data; default: train, else what there is."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="What a trace is made of: see docs/traces.md.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: JsonOpt = False,
) -> None:
    """Write a commented recipe to start from; with --from-data one over questions of your own."""
    if template not in list_recipes():
        raise ConfigError(f"no packaged recipe {template!r}", hint=f"one of: {', '.join(list_recipes())}")
    if split is not None and data is None:
        raise ConfigError("--split is of the data", hint="add --from-data FILE|FOLDER|ID")
    path = new_file(path, f"{template}.yaml", force=force)
    text = recipe_text(template) if trace is None else _with_trace(recipe_text(template), trace, path)
    if data is not None:
        _init_from_data(path, data, template=text, split=split, as_json=json)
        return
    path.write_text(text, encoding="utf-8")
    if json:
        print_json({"wrote": str(path)})
    else:
        say(f"wrote {path}; edit its sources, then: p2r-data check {shell(path)}")


def _with_trace(text: str, trace: str, path: Path) -> str:
    """The recipe with its grammar; without a judge where traces have no perception for the judge to read."""
    from videop2r_data.schemas import Role, load_grammar

    if not load_grammar(trace, base=path.absolute().parent).of_role(Role.PERCEPTION):
        text = re.sub(r"^judge:.*\n(?:[ #].*\n|\n)*", "", text, flags=re.MULTILINE)
    line = f"trace: {trace}   # what a trace is made of: docs/traces.md\n\n"
    return re.sub(r"^(?=generate:)", line.replace("\\", "\\\\"), text, count=1, flags=re.MULTILINE)


# What `estimate` prints.


SHOWN_CHARS = 600
"""Characters of a trace that are printed; `--json` has more."""


def render_estimate(typed: str, report: Estimate, console: Console) -> None:
    """Yield and traces of a pilot, the price of each step, the next command; `typed`: its recipe."""
    console.print(f"{plural(report.rows, 'row')} in the pool, {report.bad_rows:,} of them cannot be used")
    if report.pilot is not None:
        _pilot(report.pilot, console)
    made = table("step", "calls", "tokens in", "tokens out", "US dollars")
    for step in report.steps:
        money = "no price" if not step.priced else _range(step.usd, step.usd_low, step.usd_high)
        made.add_row(
            f"{step.step}\n{step.model}",
            f"{step.calls:,}",
            f"{step.input_tokens:,}",
            f"{step.output_tokens:,}",
            money,
        )
    console.print(made)
    priced = any(step.priced for step in report.steps)
    if priced:
        each = f", ${report.usd / report.kept:,.4f} a row" if report.kept else ""
        console.print(f"in all: ${_range(report.usd, report.usd_low, report.usd_high)}{each}")
    else:
        console.print("in all: nothing to pay, as the recipe gives no `price` for its backends")
    for note in report.notes:
        hanging(console, f"note: {note}", indent=6, first=Text(""))
    if report.stopped:
        console.print("to go on, run the same command again: every finished call is kept")
        return
    if not report.ok:
        what = "no row of the pool can be used" if report.pilot is None else "the pilot kept nothing"
        console.print(Text(f"do not build yet: {what}", style="bold red"))
        command = "check" if report.pilot is None else "doctor"
        console.print(f"next: p2r-data {command} {typed}", soft_wrap=True, markup=False)
        return
    limit = max(1, round(report.usd_high * 1.1))
    budget = f" --max-cost {limit}" if report.usd else ""
    console.print(f"next: p2r-data build {typed}{budget}", soft_wrap=True, markup=False)


def _pilot(pilot: Pilot, console: Console) -> None:
    share = ""
    if pilot.rows > pilot.unanswered:
        share = f" ({pilot.kept_share:.0%}, 95 %: {pilot.kept_low:.0%} to {pilot.kept_high:.0%})"
    console.print(
        f"pilot: {plural(pilot.rows, 'row')}, {pilot.kept:,} kept{share}, ${pilot.usd:,.4f} spent",
        soft_wrap=True,
    )
    for reason, count in pilot.reasons.items():
        console.print(Text(f"  {count:>5,} {reason}"))
    for trace in pilot.traces:
        _trace(trace, console)


def _trace(trace: PilotTrace, console: Console) -> None:
    style = "green" if trace.outcome == "kept" else "yellow"
    became = trace.outcome + (f", {trace.reason}" if trace.reason else "")
    console.print(Text("  ") + Text(f"{trace.sample_id}: {became}", style=style), soft_wrap=True)
    cut = " …" if len(trace.output) > SHOWN_CHARS else ""
    for name, text in (
        ("asked", trace.problem),
        ("right", trace.reference),
        ("wrote", trace.output[:SHOWN_CHARS] + cut),
        ("why", trace.detail if trace.outcome != "kept" else ""),
        ("judge", trace.judge if trace.judge != trace.detail else ""),
    ):
        if text.strip():
            hanging(console, " ".join(text.split()), indent=10, first=Text(f"    {name:<6}", style="dim"))


def _range(middle: float, low: float, high: float) -> str:
    return f"{middle:,.2f}" if low == high else f"{middle:,.2f} ({low:,.2f}-{high:,.2f})"


# `init --from-data`: look at a pool, show how it would be read, and write the recipe.


_CUT = 200
"""Characters of a question or an option that are shown."""


def _init_from_data(path: Path, data: str, *, template: str, split: str | None, as_json: bool) -> None:
    """Guess how to read a pool, print the guess, and write a recipe with it."""
    from videop2r_data.builders import free_name, guess_source, recipe_from

    with tempfile.TemporaryDirectory(prefix="p2r-init-") as work, err_console().status("looking at the data"):
        guess = guess_source(data, recipe=path, cwd=Path.cwd(), work=Path(work), split=split)
    name = free_name(guess.source["name"], Path.cwd())
    text = recipe_from(guess, template, file=shell(path), data=data, name=name)
    path.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"wrote": str(path), **guess.model_dump(mode="json")})
        return
    _render(guess, out_console())
    todo = f"fill in its {plural(len(guess.todo), 'TODO line')}, then" if guess.todo else "next"
    say(f"wrote {path}; {todo}: p2r-data check {shell(path)}")


def _render(guess: Guess, console: Console) -> None:
    console.print(
        f"looked at {plural(guess.rows, 'row')} with the columns",
        Text(visible_line(", ".join(guess.seen))),
        soft_wrap=True,
    )
    for key, value in {**guess.source, **{f"columns.{k}": v for k, v in guess.columns.items()}}.items():
        why = f"  ({guess.notes[key]})" if key in guess.notes else ""
        console.print(Text(f"  {key:22} {visible_line(_told(value) + why)}"), soft_wrap=True)
    for key, question in guess.todo.items():
        console.print(Text(f"  {key:22} TODO: {visible_line(question)}", style="yellow"), soft_wrap=True)
    for row in guess.shown:
        console.print(Text(f"\n{visible_line(row.sample_id)}", style="bold"))
        console.print(Text(f"  {_cut(row.problem)}"), soft_wrap=True)
        for option in row.options:
            mark = "*" if option[:1] == row.answer else " "
            console.print(Text(f"  {mark} {_cut(option)}"), soft_wrap=True)
        if not row.options:
            console.print(Text(f"  answer: {_cut(row.answer)}"), soft_wrap=True)
        if row.path:
            there = {True: "", False: "  (not there)", None: ""}[row.found]
            console.print(Text(f"  {visible_line(row.path)}{there}"), soft_wrap=True)
    console.print()
    if guess.shown:
        console.print(f"{guess.good:,} of {plural(guess.rows, 'row')} can be read like this")
    for reason, count in guess.bad.items():
        console.print(Text(f"  {plural(count, 'row')} cannot: {visible_line(reason)}"), soft_wrap=True)
    if guess.files_looked:
        console.print(f"{guess.files_found:,} of {plural(guess.files_looked, 'media file')} found")


def _told(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cut(text: str) -> str:
    line = visible_line(text)
    return line if len(line) <= _CUT else line[: _CUT - 1] + "…"
