"""`p2r-data overlap`: what a training pool and evaluation sets have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from videop2r_data.cli.common import JsonOpt, err_console, run_draining, shell, show
from videop2r_data.cli.terminal import LiveLine, hanging, plural, say, table
from videop2r_data.errors import StoppedError

if TYPE_CHECKING:
    from videop2r_data.schemas import Measured, Overlap, OverlapBench, Shared

PoolArg = Annotated[
    str, typer.Argument(help="A recipe, a data set, a file or folder of questions, or a Hub id.")
]
AgainstOpt = Annotated[
    list[str],
    typer.Option(
        "--against",
        metavar="BENCH",
        help="An evaluation set, named as POOL is, or NAME=WHAT; again for more.",
    ),
]
OutOpt = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of report and rows.")]
MediaOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--media",
        metavar="[NAME=]DIR",
        help="Folder of the clips of a source or evaluation set, or of all that name none. Again for more.",
    ),
]
FramesOpt = Annotated[
    bool,
    typer.Option("--frames", help="Read every clip and compare frames: finds re-encoded or cut ones."),
]
WorkersOpt = Annotated[
    int, typer.Option("--workers", min=0, metavar="N", help="Decoder processes; 0: one per core.")
]
MostFramesOpt = Annotated[
    int | None,
    typer.Option(
        "--most-frames",
        min=8,
        max=2048,
        metavar="N",
        help="With --frames: frames of a clip, 2 a second; default: 128. More find cuts of longer clips.",
    ),
]
ResultOpt = Annotated[
    list[Path] | None,
    typer.Option("--result", metavar="DIR", help="Result of p2r-train eval: scores without the rows found."),
]
NamesOpt = Annotated[
    Path | None, typer.Option("--namespaces", metavar="FILE", help="YAML of further forms of file names.")
]
SHOWN = 8
"""Sources and tasks of each table that are printed; `overlap.json` has all."""


def overlap(
    pool: PoolArg,
    against: AgainstOpt,
    media: MediaOpt = None,
    frames: FramesOpt = False,
    most_frames: MostFramesOpt = None,
    workers: WorkersOpt = 0,
    result: ResultOpt = None,
    out: OutOpt = Path("overlap"),
    namespaces: NamesOpt = None,
    json: JsonOpt = False,
) -> None:
    """Compare a training pool with evaluation sets: clips by name, by file and by frames, wordings, and both.

    Equal wording alone is no leak, for templates repeat; a clip and its question together are one. What
    cannot be compared is counted as unknown, never as apart. What was read of clips is kept in --out.

    Exit code 0: compared, whatever was found. 1: a side cannot be read. 3: stopped, run it again.
    """
    from videop2r_data.builders import Stop
    from videop2r_data.builders.overlap import MOST_FRAMES, OverlapSettings, find_overlap

    settings = OverlapSettings(
        pool=pool,
        against=against,
        out=out,
        media={name: Path(folder) for name, _, folder in (one.rpartition("=") for one in media or ())},
        namespaces=namespaces,
        frames=frames,
        workers=workers,
        results=result or (),
        most_frames=most_frames or MOST_FRAMES,
    )
    stop = Stop()
    with _Told() as told:
        try:
            report = run_draining(find_overlap(settings, progress=told.progress, stop=stop), stop, told.tell)
        except StoppedError:
            raise KeyboardInterrupt from None  # as every command says it
    show(report, render_overlap, as_json=json)
    if not json:
        say(f"every row that overlaps: {shell(out / 'rows.parquet')}")
        if report.files:
            say(f"next: p2r-data card {shell(pool)} --overlap {shell(out / 'overlap.json')}")
        else:
            say(f"next: leave_out: {shell(out / 'rows.parquet')} in the recipe, see docs/overlap.md")


class _Told:
    """One moving line on a terminal, a line now and then when piped."""

    def __init__(self) -> None:
        from rich.progress import SpinnerColumn, TextColumn

        self._line = LiveLine(err_console(), "opening", SpinnerColumn(), TextColumn("{task.description}"))
        self._last = ""

    def __enter__(self) -> _Told:
        self._line.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._line.__exit__(*error)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Show what is done."""
        counted = f": {done:,}" + (f" of {total:,}" if total is not None else "") if done else ""
        self._line.update(description=what + counted)
        if not self._line.live and (what != self._last or self._line.is_time()):
            self._last = what
            self.tell(what + counted)

    def tell(self, text: str) -> None:
        """Print a line."""
        self._line.console.print(text, markup=False, soft_wrap=True)


# What is printed.

_SIGNALS = {
    "identity": "same clip by its name",
    "file": "same file",
    "frames": "same frames",
    "text": "same or similar wording",
    "both": "same clip and question",
}


def render_overlap(report: Overlap, console: Console) -> None:
    """Print a table per evaluation set: rows found on both sides, by signal, and the rows left open."""
    _head(report.pool, report.rows, report.bad, console)
    for bench in report.benches:
        console.print()
        unread = f", {bench.bad:,} unreadable" if bench.bad else ""
        console.print(
            Text(f"{bench.name}: {plural(bench.rows, 'row')}{unread}", style="bold"), soft_wrap=True
        )
        _signals(report, bench, console)
        _labels(f"pool rows by source, {escape(bench.name)}", bench.by_source, report, console)
        _labels(f"{escape(bench.name)} by task or source", bench.by_group, report, console)
        _splits(bench, console)
        _effects(bench, console)
    hanging(console, f"for the card: {report.statement}", indent=0)


def _head(name: str, rows: int, bad: int, console: Console) -> None:
    unread = f", {bad:,} unreadable" if bad else ""
    console.print(Text(f"{name}: {plural(rows, 'row')}{unread}", style="bold"), soft_wrap=True)


def _signals(report: Overlap, bench: OverlapBench, console: Console) -> None:
    made = table("", "rows found", "of", "unknown", "pool rows", "of", "unknown")
    for signal in report.looked:
        if signal in bench.bench:
            made.add_row(_SIGNALS[signal], *_shared(bench.bench[signal]), *_shared(bench.pool[signal]))
    console.print(made)
    text, both = bench.bench["text"], bench.bench["both"]
    console.print(
        f"same words, not only similar: {text.same:,} of {text.found:,}, with the clip {both.same:,}"
    )
    if bench.apart:
        console.print(f"{plural(bench.apart, 'row')} of the same clip are about another part of it")


def _shared(found: Shared) -> Iterable[str]:
    return f"{found.found:,}", f"{found.known:,}", f"{found.rows - found.known:,}"


def _labels(title: str, counts: dict[str, dict[str, int]], report: Overlap, console: Console) -> None:
    """Print the groups with most rows found."""
    found = {label: count for label, count in counts.items() if len(count) > 1}
    if not found or len(counts) < 2:
        return
    shown = sorted(found, key=lambda label: (-max(found[label].get(s, 0) for s in report.looked), label))
    made = table("", "rows", *report.looked, title=title, fold=0, most=30)
    for label in shown[:SHOWN]:
        cells = (f"{found[label].get(name, 0):,}" for name in ("rows", *report.looked))
        made.add_row(Text(label or "(none)"), *cells)
    console.print()
    console.print(made)
    if len(shown) > SHOWN:
        console.print(f"and {len(shown) - SHOWN:,} more, in overlap.json")


def _splits(bench: OverlapBench, console: Console) -> None:
    if not bench.splits:
        return
    made = table(
        "",
        "declared split",
        "pool rows",
        f"{escape(bench.name)} rows",
        title="source sets of both sides",
        left=(0, 1),
    )
    for one in bench.splits:
        made.add_row(one.namespace, one.split or "unknown", f"{one.pool_rows:,}", f"{one.bench_rows:,}")
    console.print()
    console.print(made)


def _effects(bench: OverlapBench, console: Console) -> None:
    if not bench.effects:
        return
    heads = ("", "rows found", "all rows", "without them", "they add")
    made = table(*heads, title=f"scores on {escape(bench.name)}", fold=0, most=26)
    for one in bench.effects:
        what = "same question" if one.signals == ("both",) else "same clip"
        cells = (_figure(found) for found in (one.every, one.apart, one.gain))
        made.add_row(Text(f"{one.model}, {one.every.protocol}: {what}"), f"{one.found:,}", *cells)
    console.print()
    console.print(made)


def _figure(found: Measured | None) -> str:
    if found is None or found.value is None or found.low is None or found.high is None:
        return "-"
    value, low, high = (100 * part for part in (found.value, found.low, found.high))
    return f"{value:.1f}\n{low:.1f} to {high:.1f}"
