"""`p2r-data stats` and `card`: the tables, figures and card of a data set, from its files."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import (
    BuiltArg,
    JsonOpt,
    RevisionOpt,
    WhereArg,
    err_console,
    out_console,
    shell,
)
from videop2r_data.cli.terminal import bar, bar_width, figure, plural, print_json, say, table, type_table

if TYPE_CHECKING:
    from videop2r_data.cards.figures import Distribution, FigureIndex, Spread, Stats, TopWords
    from videop2r_data.files import Release


FiguresOpt = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Draw the figures too: PNGs for light and dark pages, data as JSON."),
]
EmbedOpt = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Embed texts with this transformers model and project by UMAP; without it: TF-IDF and SVD.",
    ),
]
SampleOpt = Annotated[
    int | None, typer.Option(min=20, max=20_000, metavar="N", help="Rows in the projection; default: 2,000.")
]
SeedOpt = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, metavar="N", help="Of the sample and the projection; default: 0."),
]


def stats(
    where: WhereArg,
    revision: RevisionOpt = None,
    figures: FiguresOpt = None,
    embed: EmbedOpt = None,
    sample: SampleOpt = None,
    seed: SeedOpt = None,
    json: JsonOpt = False,
) -> None:
    """Tables of a data set: types, lengths, sources, scores, rejections. With --figures: as pictures too."""
    from videop2r_data.cards.figures import compute_stats
    from videop2r_data.files import open_release

    options = {"--embed": embed, "--sample": sample, "--seed": seed}
    given = [name for name, value in options.items() if value is not None]
    if given and figures is None:
        raise typer.BadParameter("only with --figures", param_hint=given[0])
    release = open_release(where, revision=revision)
    index = None
    if figures is None:
        with err_console().status("counting"):
            found = compute_stats(release)
    else:
        found, index = _draw(release, figures, embed, sample, seed)
    if json:
        drawn = {"figures": index.model_dump(mode="json")} if index else {}
        print_json(found.model_dump(mode="json") | drawn)
        return
    render_stats(found, out_console())
    if figures is not None and index is not None:
        _told(index, figures)


def _draw(
    release: Release, folder: Path, embed: Path | None, sample: int | None, seed: int | None
) -> tuple[Stats, FigureIndex]:
    from videop2r_data.cards.card import mark_figures
    from videop2r_data.cards.figures import SAMPLE, FigureOptions, make_figures
    from videop2r_data.errors import ConfigError, ExportError, SourceError
    from videop2r_data.files import LOCK_NAME

    root = release.root.resolve()
    if folder.resolve() in (root, root / "data"):
        raise ConfigError(
            "the JSON of the figures would be taken for rows of the data set",
            where=str(folder),
            hint=f"give another folder: --figures {shell(release.root / 'figures')}",
        )
    options = FigureOptions(sample=sample or SAMPLE, seed=seed or 0, model=embed)
    with err_console().status("counting") as status:
        found = make_figures(release, folder, options, progress=status.update)
    if (root / LOCK_NAME).is_file():  # of ours: a card shows figures that say whose they are
        with suppress(ExportError, SourceError):  # not the files of its lock: then its card shows none
            mark_figures(root, folder)
    return found


def _told(index: FigureIndex, folder: Path) -> None:
    """Print the figures that were written, and those that were not, with the reason."""
    console = out_console()
    console.print()
    console.print(f"figures in {shell(folder)}", style="bold", markup=False, soft_wrap=True)
    for entry in index.figures:
        console.print(f"  {entry.light:24} {entry.title}", markup=False, soft_wrap=True)
    for omitted in index.omitted:
        console.print(f"  {'(none)':24} {omitted.title}: {omitted.why}", markup=False, soft_wrap=True)


# `card`: what a build writes by itself, anew.


ReportOpt = Annotated[
    Path | None,
    typer.Option("--judge-report", metavar="FILE", help="report.json of judge-eval: shown on the card."),
]
CardFiguresOpt = Annotated[
    bool, typer.Option("--figures", help="Draw the figures into FOLDER/figures and show them on the card.")
]


OverlapOpt = Annotated[
    Path | None,
    typer.Option("--overlap", metavar="FILE", help="overlap.json of p2r-data overlap: shown on the card."),
]


def card(
    folder: BuiltArg,
    judge_report: ReportOpt = None,
    overlap: OverlapOpt = None,
    figures: CardFiguresOpt = False,
) -> None:
    """Write README.md and croissant.json from the files of a data set; a build does it by itself."""
    from videop2r_data.cards.card import mark_figures, write_dataset_card
    from videop2r_data.files import AGREEMENT_NAME, FIGURES_NAME, OVERLAP_NAME, open_release

    if figures:
        from videop2r_data.cards.figures import make_figures

        with err_console().status("counting") as status:
            make_figures(open_release(str(folder)), folder / FIGURES_NAME, progress=status.update)
        mark_figures(folder)
    given = {AGREEMENT_NAME: judge_report, OVERLAP_NAME: overlap}
    new = {folder / name: source for name, source in given.items() if source is not None}
    before = {kept: kept.read_bytes() if kept.exists() else None for kept in new}
    for kept, source in new.items():
        shutil.copyfile(source, kept)
    try:
        path = write_dataset_card(folder)
    except BaseException:
        # a report that does not fit must not stay: the next build would trip over it
        for kept, data in before.items():
            kept.unlink() if data is None else kept.write_bytes(data)
        raise
    say(f"wrote {shell(path)} and croissant.json beside it")
    if overlap is not None and "`p2r-data overlap` compared" not in path.read_text(encoding="utf-8"):
        told = "is of other rows, so the card does not show it: compare this set, or its recipe"
        say(f"{shell(overlap)} {told}", err=True)


# What `stats` prints.


def render_stats(stats: Stats, console: Console) -> None:
    """Print all tables."""
    console.print(Text(stats.where, style="bold"), soft_wrap=True)
    console.print(", ".join(f"{name} {plural(count, 'row')}" for name, count in stats.rows.items()))
    if stats.table:
        console.print()
        title = "accepted" if "sft" in stats.rows else "questions"
        console.print(type_table(stats.table, title=title, width=console.width))
    _counts(console, "sources", stats.sources)
    _histogram(console, "perception, words", stats.perception_words)
    _histogram(console, "reasoning, words", stats.reasoning_words)
    _spreads(console, "words by segment", stats.segment_words)
    _spreads(console, "perception, words by group", stats.perception_by)
    _spreads(console, "reasoning, words by group", stats.reasoning_by)
    _histogram(console, "reward", stats.rewards)
    _counts(console, "attempt that was kept, counted from 0", stats.attempts)
    _spreads(console, "media of accepted rows", {"frames": stats.frames, "seconds": stats.seconds})
    _counts(console, "not accepted, stage/reason", stats.funnel)
    _words(console, "perception", stats.perception_top)
    _words(console, "reasoning", stats.reasoning_top)
    console.print()
    console.print(f"near-duplicate questions: {stats.near_duplicates:,}")


def _counts(console: Console, title: str, counts: dict[str, int]) -> None:
    if not counts:
        return
    total = sum(counts.values())
    made = table("", "rows", "", title=title, left=(0, 2), fold=0, most=40)
    long = bar_width(console.width, 4 + min(40, max(map(len, counts))) + len(f"{max(counts.values()):,}"), 24)
    for name, count in counts.items():
        made.add_row(Text(name or "(none)"), f"{count:,}", bar(count / total, long))
    console.print()
    console.print(made)


def _histogram(console: Console, title: str, found: Distribution) -> None:
    if not found.count:
        return
    most = max(found.bins.values())
    head = f"{title}: mean {figure(found.mean)}, median {figure(found.p50)}"
    made = table("from", "rows", "", title=head, left=(2,))
    long = bar_width(console.width, 4 + max(4, *map(len, found.bins)) + max(4, len(f"{most:,}")))
    for edge, count in found.bins.items():
        made.add_row(edge, f"{count:,}", bar(count / most, long))
    console.print()
    console.print(made)


def _spreads(console: Console, title: str, spreads: dict[str, Spread]) -> None:
    shown = {name: spread for name, spread in spreads.items() if spread.count}
    if not shown:
        return
    heads = ("", "rows", "mean", "min", "5 %", "median", "95 %", "max")
    made = table(*heads, title=title, fold=0, most=24, no_wrap=True)
    for name, s in shown.items():
        figures = (s.mean, s.min, s.p5, s.p50, s.p95, s.max)
        made.add_row(Text(name), f"{s.count:,}", *(figure(value) for value in figures))
    console.print()
    console.print(made)


def _words(console: Console, title: str, words: TopWords) -> None:
    if not words.tokens:
        return
    head = f"{title}: {words.tokens:,} words, {words.types:,} different, most frequent: "
    console.print()
    console.print(Text(head, style="bold") + Text(", ".join(f"{w} {n:,}" for w, n in words.top.items())))
