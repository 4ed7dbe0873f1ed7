"""`p2r-data benchmarks`: what is declared of each benchmark and who says so; its rows, counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videop2r_data.cli.common import FINDINGS, JsonOpt, err_console, out_console
from videop2r_data.cli.terminal import hanging, plural, print_json, say, table

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    elif yaml:
        say(benchmark_text(name), nl=False)
    elif json:
        print_json(load_benchmark(name).model_dump(mode="json"))
    else:
        _show(load_benchmark(name))


def _list(found: list[Benchmark], *, as_json: bool) -> None:
    if as_json:
        keys = {"name", "title", "about", "license", "gated", "expected", "aggregates"}
        print_json([one.model_dump(mode="json", include=keys) for one in found])
        return
    made = table("benchmark", "rows", "headline", "licence", left=(0, 2, 3), fold=3)
    for one in found:
        made.add_row(one.name, _rows(one, "-"), one.aggregates[0].id, one.license)
    out_console().print(made)
    say("p2r-data benchmarks NAME shows one; docs/benchmarks.md says how to get rows and clips.")


def _rows(one: Benchmark, unknown: str) -> str:
    return unknown if one.expected.rows is None else f"{one.expected.rows:,}"


def _show(one: Benchmark) -> None:
    from rich.text import Text

    by = one.expected.by.items()
    counts = [f"by {tag}: {', '.join(f'{v} {n:,}' for v, n in found.items())}" for tag, found in by]
    told: dict[str, Iterable[str]] = {
        one.name: [f"{one.title}. {one.about}".strip()],
        "rows": ["; ".join([_rows(one, "not declared"), *counts])],
        "licence": [f"{one.license}{', gated' if one.gated else ''}. {one.terms}"],
        "clips": [one.get],
        "paper": filter(None, [one.paper]),
        "home": filter(None, [one.home]),
        "layouts": (f"{name}: {layout.about}{_hub(layout)}" for name, layout in one.layouts.items()),
        "protocols": (
            f"{a.id}: {a.title or 'all questions'}{f' ({a.source})' if a.source else ''}"
            for a in one.aggregates
        ),
        "hints": (hint.text for hint in one.hints),
        "notes": one.notes,
        "sources": (f"{statement}: {source}" for statement, source in one.sources.items()),
    }
    for head, texts in told.items():
        for place, text in enumerate(texts):
            first = Text(f"{'' if place else head:{_INDENT}}", style="bold")
            hanging(out_console(), text, indent=_INDENT, first=first)


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
    from videop2r_data.schemas import SourceSpec

    path = "" if rows == "hub" else rows
    spec = SourceSpec(name="benchmark", kind="benchmark", benchmark=name, path=path, layout=layout)
    counts = RowCounts()
    with err_console().status("reading"):
        source = open_source(spec, base=Path())
        assert isinstance(source, BenchmarkSource)
        for row in source.rows():
            counts.add(row)
    faults = count_faults(source.benchmark.expects(source.layout), counts)
    if as_json:
        made = {"layout": source.layout, "rows": counts.rows, "by": counts.by, "left_out": source.left_out}
        print_json(made | {"bad": counts.bad, "faults": faults})
    else:
        bad = sum(map(len, counts.bad.values()))
        say(f"{source.note}\n{plural(counts.rows, 'row')}, {plural(bad, 'bad row')}")
        for reason, ids in sorted(counts.bad.items(), key=lambda one: -len(one[1]))[:_SHOWN]:
            more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
            say(f"  {', '.join(ids[:_SHOWN])}{more}: {reason}")
        say("\n".join(faults) if faults else "all counts are as published")
    if faults:
        raise typer.Exit(FINDINGS)
