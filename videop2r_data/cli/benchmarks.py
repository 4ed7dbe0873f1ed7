"""`p2r-data benchmarks`: what is declared of each benchmark and who says so; its rows, counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videop2r_data.cli.common import FINDINGS, JsonOpt, err_console, out_console
from videop2r_data.cli.terminal import hanging, plural, print_json, say, table

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.schemas import Benchmark, Layout

_INDENT = 11
_SHOWN = 5
"""Reasons of rows that do not load, and ids for each."""

NameArg = Annotated[
    str | None, typer.Argument(metavar="[NAME|FILE]", help="One of them, or a declaration of your own.")
]
YamlOpt = Annotated[
    bool, typer.Option("--yaml", help="Print the packaged declaration itself, to start one from.")
]
RowsOpt = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="Read its row file, or the folder of them, and count; hub: what the Hub has."
    ),
]
LayoutOpt = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --rows: the form of the files; else it is found.")
]


def benchmarks(
    name: NameArg = None,
    rows: RowsOpt = None,
    layout: LayoutOpt = None,
    yaml: YamlOpt = False,
    json: JsonOpt = False,
) -> None:
    """List the declared benchmarks, show one with the source of each statement, or count its rows.

    With --rows exit code 1 if a row cannot be read or a count differs from what is published.
    """
    from videop2r_data.benchmarks import benchmark_text, load_benchmark, packaged_benchmarks

    if name is None:
        if rows or yaml or layout:
            raise typer.BadParameter("only with the name of a benchmark", param_hint="NAME")
        _list([load_benchmark(one) for one in packaged_benchmarks()], as_json=json)
        return
    if layout and not rows:
        raise typer.BadParameter("only with --rows", param_hint="--layout")
    if rows:
        _count(name, rows, layout or "", as_json=json)
        return
    if yaml:
        say(benchmark_text(name), nl=False)
        return
    declared = load_benchmark(name)
    if json:
        print_json(declared.model_dump(mode="json"))
        return
    _show(declared, out_console())


def _list(found: list[Benchmark], *, as_json: bool) -> None:
    if as_json:
        keys = {"name", "title", "about", "license", "gated", "expected", "aggregates"}
        print_json([one.model_dump(mode="json", include=keys) for one in found])
        return
    made = table("benchmark", "rows", "headline", "licence", left=(0, 2, 3), fold=3)
    for one in found:
        count = f"{one.expected.rows:,}" if one.expected.rows is not None else "-"
        made.add_row(one.name, count, one.aggregates[0].id, one.license)
    out_console().print(made)
    say("p2r-data benchmarks NAME shows one; docs/benchmarks.md says how to get rows and clips.")


def _show(one: Benchmark, console: Console) -> None:
    from rich.text import Text

    def told(head: str, text: str) -> None:
        hanging(console, text, indent=_INDENT, first=Text(f"{head:{_INDENT}}", style="bold"))

    told(one.name, f"{one.title}. {one.about}".strip())
    counts = "; ".join(
        f"by {tag}: {', '.join(f'{v} {n:,}' for v, n in by.items())}" for tag, by in one.expected.by.items()
    )
    rows = f"{one.expected.rows:,}" if one.expected.rows is not None else "not declared"
    told("rows", f"{rows}{'; ' if counts else ''}{counts}")
    told("licence", f"{one.license}{', gated' if one.gated else ''}. {one.terms}")
    told("clips", one.get)
    for head, text in (("paper", one.paper), ("home", one.home)):
        if text:
            told(head, text)
    for place, (name, layout) in enumerate(one.layouts.items()):
        told("layouts" if place == 0 else "", f"{name}: {layout.about}{_hub(layout)}")
    for place, protocol in enumerate(one.aggregates):
        source = f" ({protocol.source})" if protocol.source else ""
        told("protocols" if place == 0 else "", f"{protocol.id}: {protocol.title or 'all questions'}{source}")
    for place, hint in enumerate(one.hints):
        told("hints" if place == 0 else "", hint.text)
    for place, note in enumerate(one.notes):
        told("notes" if place == 0 else "", note)
    for place, (statement, source) in enumerate(one.sources.items()):
        told("sources" if place == 0 else "", f"{statement}: {source}")


def _hub(layout: Layout) -> str:
    """Where a layout lies on the Hub, in words."""
    hub = layout.hub
    if hub is None:
        return ""
    at = f" at {hub.revision}" if hub.revision else ", no commit pinned"
    branch = f", branch {hub.branch}" if hub.branch != "main" else ""
    was = f" (was {', '.join(hub.aliases)})" if hub.aliases else ""
    return f"; {hub.id}{was}{branch}{at}"


def _count(name: str, rows: str, layout: str, *, as_json: bool) -> None:
    from videop2r_data.benchmarks import RowCounts, count_faults
    from videop2r_data.builders.sources import BenchmarkSource, open_source
    from videop2r_data.schemas import BadRow, SourceSpec

    path = "" if rows == "hub" else rows
    spec = SourceSpec(name="benchmark", kind="benchmark", benchmark=name, path=path, layout=layout)
    counts, why = RowCounts(), Counter[str]()
    ids: dict[str, list[str]] = {}
    with err_console().status("reading"):
        source = open_source(spec, base=Path())
        for row in source.rows():
            counts.add(row)
            if isinstance(row, BadRow):
                why[row.detail] += 1
                ids.setdefault(row.detail, []).append(row.problem_id or f"row {row.row}")
    if not isinstance(source, BenchmarkSource):
        return
    faults = count_faults(source.benchmark.expects(source.layout), counts)
    if as_json:
        by = {tag: dict(values) for tag, values in counts.by.items()}
        left = dict(source.left_out)
        print_json(
            {"layout": source.layout, "rows": counts.rows, "by": by, "left_out": left}
            | {"bad": ids, "faults": faults}
        )
    else:
        say(f"{source.note}\n{plural(counts.rows, 'row')}, {plural(sum(why.values()), 'bad row')}")
        for reason, n in why.most_common(_SHOWN):
            more = f" and {n - _SHOWN} more" if n > _SHOWN else ""
            say(f"  {', '.join(ids[reason][:_SHOWN])}{more}: {reason}")
        say("\n".join(faults) if faults else "all counts are as published")
    if faults:
        raise typer.Exit(FINDINGS)
