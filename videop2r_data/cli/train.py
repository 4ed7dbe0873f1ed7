"""`p2r-train`: train on what `p2r-data build` made, and look at the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videop2r_data.cli import hub, train_eval, train_run
from videop2r_data.cli.common import errors_as_messages, out_console
from videop2r_data.cli.output import print_json
from videop2r_data.cli.verbosity import Program, QuietOpt, VerboseOpt, VersionOpt

if TYPE_CHECKING:
    from videop2r_data.trainer.lengths import LengthReport

app = typer.Typer(
    name="p2r-train",
    help="Train on process-aware chain-of-thought data.",
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(version: VersionOpt = False, quiet: QuietOpt = False, verbose: VerboseOpt = False) -> None:
    """Train on process-aware chain-of-thought data."""


@app.command(epilog="Example: p2r-train lengths videop2r-demo --tokenizer Qwen2.5-VL-7B-Instruct/")
def lengths(
    folder: Annotated[Path, typer.Argument(help="A data set that p2r-data build made.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="tokenizer.json, or the model folder that holds it; else words."),
    ] = None,
    perception: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Bounds of the observation.")
    ] = (128, 320),
    reasoning: Annotated[
        tuple[int, int], typer.Option(metavar="LOW HIGH", help="Bounds of think and answer.")
    ] = (320, 512),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Lengths of both processes against the bounds of the length reward, before you train.

    The reward counts tokens: name your model's tokenizer. Without one words are counted, which are fewer.
    """
    from videop2r_data.trainer.lengths import measure_lengths

    for name, (low, high) in (("--perception", perception), ("--reasoning", reasoning)):
        if low > high:
            raise typer.BadParameter(f"{low} is above {high}", param_hint=name)
    with errors_as_messages(as_json=json):
        report = measure_lengths(folder, tokenizer=tokenizer, perception=perception, reasoning=reasoning)
        if json:
            print_json(report.model_dump(mode="json"))
            return
        _show_lengths(report)


def _show_lengths(report: LengthReport) -> None:
    """One column per process, so that it fits the narrowest terminal."""
    from rich import box
    from rich.table import Table

    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    table.add_column(f"{report.rows:,} accepted traces")
    for found in report.processes:
        table.add_column(f"{found.process}, {found.unit}", justify="right")
    lines = {
        "bounds": [f"{p.low:,} to {p.high:,}" for p in report.processes],
        "within": [f"{p.within:.0%}" for p in report.processes],
        "below": [f"{p.below:.0%}" for p in report.processes],
        "above": [f"{p.above:.0%}" for p in report.processes],
    }
    for name, at in (("5 % are at most", 5), ("median", 50), ("95 % are at most", 95)):
        lines[name] = [f"{p.percentiles[at]:,}" for p in report.processes]
    for name, cells in lines.items():
        table.add_row(name, *cells)
    out_console().print(table)


train_run.add(app)
train_eval.add(app)
add_tiny(app)
hub.add_train(app)


def run() -> None:
    """The entry point of `p2r-train`."""
    app()


if __name__ == "__main__":  # accelerate launch -m videop2r_data.cli.train
    run()
