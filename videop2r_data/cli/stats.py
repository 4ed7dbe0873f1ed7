"""`p2r-data stats`: tables of a data set, and its figures."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videop2r_data.cli.common import err_console, errors_as_messages, out_console, shell
from videop2r_data.cli.output import print_json

if TYPE_CHECKING:
    from videop2r_data.builders.release import Release
    from videop2r_data.cards.figures_index import FigureIndex
    from videop2r_data.cards.stats import Stats

WhereArg = Annotated[
    str, typer.Argument(help="A local folder, a Hub id, or the folder of the official release.")
]
RevisionOpt = Annotated[str | None, typer.Option(metavar="REV", help="For a Hub id: commit, tag or branch.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
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


def add(app: typer.Typer) -> None:
    """Register the command."""
    app.command(epilog="Example: p2r-data stats videop2r-demo --figures figures")(stats)
    app.command(epilog="Example: p2r-data card videop2r-demo --judge-report judge-eval/report.json")(card)


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
    from videop2r_data.builders.release import open_release
    from videop2r_data.cards.stats import compute_stats

    options = {"--embed": embed, "--sample": sample, "--seed": seed}
    given = [name for name, value in options.items() if value is not None]
    if given and figures is None:
        raise typer.BadParameter("only with --figures", param_hint=given[0])
    with errors_as_messages(as_json=json):
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
    from videop2r_data.cards.card_facts import mark_figures
    from videop2r_data.cards.figures import make_figures
    from videop2r_data.cards.figures_data import SAMPLE, FigureOptions
    from videop2r_data.errors import ConfigError, ExportError

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
    if (root / "build.lock.json").is_file():  # of ours: a card shows figures that say whose they are
        with suppress(ExportError):  # its files are not those of its lock: then its card shows none
            mark_figures(root, folder)
    return found


def _told(index: FigureIndex, folder: Path) -> None:
    """Which figures were written, and which not and why."""
    console = out_console()
    console.print()
    console.print(f"figures in {shell(folder)}", style="bold", markup=False, soft_wrap=True)
    for entry in index.figures:
        console.print(f"  {entry.light:24} {entry.title}", markup=False, soft_wrap=True)
    for omitted in index.omitted:
        console.print(f"  {'(none)':24} {omitted.title}: {omitted.why}", markup=False, soft_wrap=True)
