"""`p2r-data overlap`: what a training pool and evaluation sets have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from videop2r_data.cli.common import JsonOpt, err_console, run_draining, shell, show
from videop2r_data.cli.terminal import Told, plural, say, table
from videop2r_data.errors import StoppedError
from videop2r_data.schemas import SIGNALS

if TYPE_CHECKING:
    from videop2r_data.schemas import Measured, Overlap, OverlapBench

PoolArg = Annotated[
    str, typer.Argument(help="A recipe, a data set, a file or folder of questions, or a Hub id.")
]
AgainstOpt = Annotated[
    list[str],
    typer.Option(metavar="BENCH", help="An evaluation set, named as POOL is, or NAME=WHAT; again for more."),
]
OutOpt = Annotated[Path, typer.Option(metavar="DIR", help="Folder of report and rows.")]
MediaOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]DIR",
        help="Folder of the clips of a source or evaluation set, or of all that name none. Again for more.",
    ),
]
FramesOpt = Annotated[
    bool, typer.Option("--frames", help="Read every clip and compare frames: finds re-encoded or cut ones.")
]
MostFramesOpt = Annotated[
    int,
    typer.Option(
        min=8, max=2048, metavar="N", help="Of a clip, 2 a second; more find cuts of films over a minute."
    ),
]
WorkersOpt = Annotated[int, typer.Option(min=0, metavar="N", help="Decoder processes; 0: one per core.")]
ResultOpt = Annotated[
    list[Path] | None,
    typer.Option(metavar="DIR", help="Result of p2r-train eval: scores without the rows found."),
]
NamesOpt = Annotated[Path | None, typer.Option(metavar="FILE", help="YAML of further forms of file names.")]
SHOWN = 8
"""Sources and tasks of each table that are printed; `overlap.json` has all."""


def overlap(
    pool: PoolArg,
    against: AgainstOpt,
    media: MediaOpt = None,
    frames: FramesOpt = False,
    most_frames: MostFramesOpt = 128,
    workers: WorkersOpt = 0,
    result: ResultOpt = None,
    out: OutOpt = Path("overlap"),
    namespaces: NamesOpt = None,
    json: JsonOpt = False,
) -> None:
    """Compare a training pool with evaluation sets: clips by name, by file and by frames, wordings, and both.

    Equal wording alone is no leak, for templates repeat; a clip and its question together are one. What
    cannot be compared is counted as unknown, never as apart. What was read of clips is kept in --out.

    Exit code 0: compared, whatever was found. 1: a side cannot be read, or with --frames not one clip. 3:
    stopped, run it again.
    """
    from videop2r_data.builders import Stop
    from videop2r_data.builders.overlap import OverlapSettings, find_overlap

    effects = None
    if result:
        from videop2r_data.evaluation import effects_on

        effects = effects_on(result)
    settings = OverlapSettings(
        pool=pool,
        against=against,
        out=out,
        media=dict(map(_folder, media or ())),
        namespaces=namespaces,
        frames=frames,
        workers=workers,
        most_frames=most_frames,
    )
    stop = Stop()
    with Told(err_console(), "opening") as told:
        work = find_overlap(settings, progress=told.count, stop=stop, effects=effects)
        try:
            report = run_draining(work, stop, told.console.print)
        except StoppedError:
            raise KeyboardInterrupt from None  # as every command says it
    show(report, render_overlap, as_json=json)
    if not json:
        say(f"every row that overlaps: {shell(out / 'rows.parquet')}")
        if report.files:
            say(f"next: p2r-data card {shell(pool)} --overlap {shell(out / 'overlap.json')}")
        else:
            say(f"next: leave_out: {shell(out / 'rows.parquet')} in the recipe, see docs/overlap.md")


def _folder(said: str) -> tuple[str, Path]:
    name, equal, folder = said.partition("=")
    return (name, Path(folder)) if equal and not Path(said).exists() else ("", Path(said))


# What is printed.


def render_overlap(report: Overlap, console: Console) -> None:
    """Print a table per evaluation set: rows found on both sides, by signal, and the rows left open."""
    _head(report.pool, report, console)
    for bench in report.benches:
        console.print()
        _head(bench.name, bench, console)
        _signals(bench, console)
        _labels(f"pool rows by source, {bench.name}", bench.by_source, report, console)
        _labels(f"{bench.name} by task or source", bench.by_group, report, console)
        _splits(bench, console)
        _effects(bench, console)


def _head(name: str, side: Overlap | OverlapBench, console: Console) -> None:
    unread = f", {side.bad:,} unreadable" if side.bad else ""
    console.print(Text(f"{name}: {plural(side.rows, 'row')}{unread}", style="bold"), soft_wrap=True)


def _signals(bench: OverlapBench, console: Console) -> None:
    made = table("", "rows found", "of", "unknown", "pool rows", "of", "unknown")
    for signal, words in SIGNALS.items():
        sides = (bench.bench[signal], bench.pool[signal]) if signal in bench.bench else ()
        counts = (f"{n:,}" for one in sides for n in (one.found, one.known, one.rows - one.known))
        made.add_row(words, *(counts if sides else ("not looked for",)))
    console.print(made)
    text, both = bench.bench["text"], bench.bench["both"]
    console.print(
        f"same words, not only similar: {text.same:,} of {text.found:,}, with the clip {both.same:,}"
    )
    if bench.apart:
        console.print(f"{plural(bench.apart, 'row')} of the same clip are about another part of it")


def _labels(title: str, counts: dict[str, dict[str, int]], report: Overlap, console: Console) -> None:
    """Print the groups with most rows found."""
    found = {label: count for label, count in counts.items() if len(count) > 1}
    if not found or len(counts) < 2:
        return
    shown = sorted(found, key=lambda label: (-max(found[label].get(s, 0) for s in report.looked), label))
    made = table("", "rows", *report.looked, title=escape(title), fold=0, most=30)
    for label in shown[:SHOWN]:
        cells = (f"{found[label].get(name, 0):,}" for name in ("rows", *report.looked))
        made.add_row(Text(label or "(none)"), *cells)
    console.print("", made, sep="\n")
    if len(shown) > SHOWN:
        console.print(f"and {len(shown) - SHOWN:,} more, in overlap.json")


def _splits(bench: OverlapBench, console: Console) -> None:
    heads = ("", "declared split", "pool rows", f"{escape(bench.name)} rows")
    made = table(*heads, title="source sets of both sides", left=(0, 1))
    for one in bench.splits:
        name, split = Text(one.namespace), Text(one.split or "unknown")
        made.add_row(name, split, f"{one.pool_rows:,}", f"{one.bench_rows:,}")
    if bench.splits:
        console.print("", made, sep="\n")


def _effects(bench: OverlapBench, console: Console) -> None:
    heads = ("", "rows found", "all rows", "without them", "they add")
    made = table(*heads, title=f"scores on {escape(bench.name)}", fold=0, most=26)
    for one in bench.effects:
        what = "same question" if one.signals == ("both",) else "same clip"
        cells = (_figure(found) for found in (one.every, one.apart, one.gain))
        made.add_row(Text(f"{one.model}, {one.every.protocol}: {what}"), f"{one.found:,}", *cells)
    if bench.effects:
        console.print("", made, sep="\n")


def _figure(found: Measured) -> str:
    if found.value is None or found.low is None or found.high is None:
        return "-"
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    return f"{value:.1f}\n{low:.1f} to {high:.1f}"
