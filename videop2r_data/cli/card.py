"""`p2r-data card`: write the card of a data set anew, from its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import err_console, errors_as_messages, shell
from videop2r_data.cli.output import say

FolderArg = Annotated[Path, typer.Argument(help="A data set that was built here.")]
ReportOpt = Annotated[
    Path | None,
    typer.Option("--judge-report", metavar="FILE", help="report.json of judge-eval: shown on the card."),
]
CardFiguresOpt = Annotated[
    bool, typer.Option("--figures", help="Draw the figures into FOLDER/figures and show them on the card.")
]


def card(folder: FolderArg, judge_report: ReportOpt = None, figures: CardFiguresOpt = False) -> None:
    """Write README.md and croissant.json from the files of a data set; a build does it by itself."""
    from videop2r_data.cards.dataset_card import write_dataset_card
    from videop2r_data.schemas.lock import AGREEMENT_NAME

    with errors_as_messages():
        if figures:
            _draw_for_card(folder)
        kept = folder / AGREEMENT_NAME
        before = kept.read_bytes() if kept.exists() else None
        if judge_report is not None:
            shutil.copyfile(judge_report, kept)
        try:
            path = write_dataset_card(folder)
        except BaseException:
            # a report that does not fit must not stay: the next build would trip over it
            if judge_report is not None:
                kept.unlink() if before is None else kept.write_bytes(before)
            raise
    say(f"wrote {shell(path)} and croissant.json beside it")


def _draw_for_card(folder: Path) -> None:
    from videop2r_data.builders.release import open_release
    from videop2r_data.cards.card_facts import mark_figures
    from videop2r_data.cards.figures import make_figures
    from videop2r_data.schemas.lock import FIGURES_NAME

    with err_console().status("counting") as status:
        make_figures(open_release(str(folder)), folder / FIGURES_NAME, progress=status.update)
    mark_figures(folder)
