"""`p2r-train compare`: which differences between results are real, and which rows made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from videop2r_data.cli.common import FINDINGS, JsonOpt, err_console, named_folder, out_console, shell
from videop2r_data.cli.terminal import plural, print_json, say, table
from videop2r_data.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.evaluation import Block, Comparison, Flip

ResultsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="RESULT...", help="Folders of p2r-train eval, or NAME=FOLDER; the first is the baseline."
    ),
]
CommonOpt = Annotated[
    bool, typer.Option("--common", help="Compare the questions that both have, where one has others too.")
]
ReportedOpt = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE", help="Show what others report beside it: table-1 of the paper, ..., or all."
    ),
]
MarkdownOpt = Annotated[bool, typer.Option("--markdown", help="Write the tables as Markdown.")]
FlipsOpt = Annotated[int, typer.Option(min=0, metavar="N", help="Flipped questions that are listed of each.")]
MediaRootOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--media-root", metavar="DIR|NAME=DIR", help="For --page: media of a benchmark, else as noted."
    ),
]
PageOpt = Annotated[
    Path | None, typer.Option("--page", metavar="FILE", help="Write the flipped questions as a gallery page.")
]
StrictOpt = Annotated[
    bool, typer.Option("--strict", help="Exit code 1 where anything but the model is not the same.")
]


def compare(
    results: ResultsArg,
    common: CommonOpt = False,
    reported: ReportedOpt = None,
    as_markdown: MarkdownOpt = False,
    flips: FlipsOpt = 5,
    page: PageOpt = None,
    media_root: MediaRootOpt = None,
    strict: StrictOpt = False,
    json: JsonOpt = False,
) -> None:
    """Hold results against the first one: which differences are real, and which questions made them.

    Paired on the questions that both were asked: intervals and p over clips, corrected for the number of
    benchmarks; McNemar's test beside them. What else is not the same (rows, frames, prompts, scoring) is
    listed: such a number is not the model's alone.
    """
    from videop2r_data.evaluation import (
        blocks_of,
        compare_results,
        load_reported,
        load_results,
        markdown,
        write_flips,
    )

    known = load_reported().scores
    if reported not in (None, "all", *known):
        told = "; ".join(f"{name}: {one.title}" for name, one in known.items())
        raise ConfigError(f"no table {reported!r} of reported scores", hint=f"all, or one of {told}")
    loaded = load_results([named_folder(text) for text in results])
    found = compare_results(loaded, common=common)
    blocks = list(blocks_of(loaded, found, reported=reported or ""))
    if page is not None:
        roots = dict(map(named_folder, media_root or ()))
        write_flips(loaded, found, page, roots=roots)
        err_console().print(Text(f"page: {shell(page)}"), soft_wrap=True)
    if json:
        print_json({"comparisons": [one.model_dump(mode="json") for one in found]})
    elif as_markdown:
        say(markdown(blocks), nl=False)
    else:
        _show(blocks, found, flips)
    if strict and any(one.settings for one in found):
        raise typer.Exit(FINDINGS)


def _show(blocks: Sequence[Block], found: Sequence[Comparison], flips: int) -> None:
    console = out_console()
    for one in found:
        _show_settings(one, console)
    for block in blocks:
        console.print(Text(block.title, style="bold"))
        made = table(*block.heads, left=(0, 6), fold=0, no_wrap=True)
        for row in block.rows:
            made.add_row(*map(Text, row), style="bold" if row[-1] == "real" else "")
        console.print(made)
        for note in block.notes:
            console.print(Text(f"  {note}"))
    for one in found:
        _show_flips(one, flips, console)


def _show_settings(one: Comparison, console: Console) -> None:
    if one.settings or one.left_out:
        head = f"{one.second} against {one.first}: not the same beside the model"
        console.print(Text(head, style="bold yellow"))
    told = {"rows": "other questions", "asked": "asked otherwise", "scored": "scored otherwise"}
    for setting in one.settings:
        where = f"{setting.benchmark}: " if setting.benchmark else ""
        line = f"  {told[setting.kind]}: {where}{setting.name}: {setting.first} | {setting.second}"
        console.print(Text(line if len(line) < 160 else line[:157] + "..."))
    for benchmark, count in one.left_out.items():
        console.print(Text(f"  {benchmark}: {plural(count, 'question')} of one of them alone left out"))


def _show_flips(one: Comparison, most: int, console: Console) -> None:
    for gained in (True, False):
        flips = [flip for flip in one.flips if flip.gained is gained]
        way = "wrong to right" if gained else "right to wrong"
        console.print(Text(f"{one.second}: {plural(len(flips), 'question')} from {way}", style="bold"))
        for flip in flips[:most]:
            console.print(Text(_line(flip)))


def _line(flip: Flip) -> str:
    words = " ".join(flip.problem.split())
    asked = words if len(words) <= 90 else words[:87] + "..."
    first, second = (answer or "-" for answer in (flip.first, flip.second))
    return f"  {flip.sample_id}: {asked}  [{first[:20]} -> {second[:20]}, right: {flip.reference[:20]}]"
