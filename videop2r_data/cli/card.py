"""`p2r-data card`: write the card of a data set anew, from its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import errors_as_messages, shell

FolderArg = Annotated[Path, typer.Argument(help="A data set that was built here.")]
ReportOpt = Annotated[
    Path | None,
    typer.Option("--judge-report", metavar="FILE", help="report.json of judge-eval: shown on the card."),
]


def add(app: typer.Typer) -> None:
    """Register the command."""
    example = "Example: p2r-data card videop2r-demo --judge-report judge-eval/report.json"
    app.command("card", epilog=example)(card)


def card(folder: FolderArg, judge_report: ReportOpt = None) -> None:
    """Write README.md and croissant.json from the files of a data set; a build does it by itself."""
    from videop2r_data.cards.dataset_card import write_dataset_card
    from videop2r_data.schemas.lock import AGREEMENT_NAME

    with errors_as_messages():
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
    typer.echo(f"wrote {shell(path)} and croissant.json beside it")
