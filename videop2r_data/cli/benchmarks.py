"""`p2r-data benchmarks`: what is declared of each benchmark and who says so; its rows, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import FINDINGS, JsonOpt, err_console, out_console
from videop2r_data.cli.terminal import plural, print_json, say, table
from videop2r_data.errors import ConfigError

_SHOWN = 5
"""Reasons of rows that do not load, and ids for each."""

NameArg = Annotated[
    str | None, typer.Argument(metavar="[NAME|FILE]", help="One of them, or a declaration of your own.")
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
    name: NameArg = None, rows: RowsOpt = None, layout: LayoutOpt = None, json: JsonOpt = False
) -> None:
    """List the declared benchmarks, print one with the source of each statement, or count its rows.

    With --rows exit code 1 if a row cannot be read or a count differs from what is published.
    """
    from videop2r_data.benchmarks import benchmark_text, load_benchmark

    if rows and name:
        _count(name, rows, layout or "", as_json=json)
    elif rows or layout:
        lacks = "--rows" if name else "the name of a benchmark"
        raise typer.BadParameter(f"only with {lacks}", param_hint="--layout" if layout else "--rows")
    elif name is None:
        _list(as_json=json)
    else:
        declared = load_benchmark(name)  # a file that is none is refused
        if json:
            print_json(declared.model_dump(mode="json"))
        else:
            say(benchmark_text(name), nl=False)


def _list(*, as_json: bool) -> None:
    from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks

    found = list(map(load_benchmark, packaged_benchmarks()))
    if as_json:
        keys = {"name", "title", "about", "license", "gated", "expected", "aggregates"}
        print_json([one.model_dump(mode="json", include=keys) for one in found])
        return
    made = table("benchmark", "rows", "headline", "licence", left=(0, 2, 3), fold=3)
    for one in found:
        rows = "-" if one.expected.rows is None else f"{one.expected.rows:,}"
        made.add_row(one.name, rows, one.aggregates[0].id, one.license)
    out_console().print(made)
    say("p2r-data benchmarks NAME prints one; docs/benchmarks.md says how to get rows and clips.")


def _count(name: str, rows: str, layout: str, *, as_json: bool) -> None:
    from videop2r_data.benchmarks import RowCounts, count_faults
    from videop2r_data.builders.sources import BenchmarkSource, open_source
    from videop2r_data.schemas import SourceSpec

    path = "" if rows == "hub" else rows
    if path and not Path(path).exists():
        raise ConfigError("no such file or folder", where=path, hint="name row files as published, or hub")
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
