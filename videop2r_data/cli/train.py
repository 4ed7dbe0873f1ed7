"""`p2r-train`: what a data set means for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import errors_as_messages, out_console, print_json

app = typer.Typer(
    name="p2r-train",
    help="Train on process-aware chain-of-thought data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Train on process-aware chain-of-thought data."""


@app.command(epilog="Example: p2r-train lengths videop2r-demo --tokenizer Qwen2.5-VL-7B-Instruct/")
def lengths(
    folder: Annotated[Path, typer.Argument(help="A data set that p2r-data build made.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="tokenizer.json, or the model folder that holds it; else words.")
    ] = None,
    perception: Annotated[tuple[int, int], typer.Option(help="Bounds of the observation.")] = (128, 320),
    reasoning: Annotated[tuple[int, int], typer.Option(help="Bounds of think and answer.")] = (320, 512),
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Lengths of both processes against the bounds of the length reward, before you train."""
    from videop2r_data.trainer.lengths import measure_lengths

    with errors_as_messages():
        report = measure_lengths(folder, tokenizer=tokenizer, perception=perception, reasoning=reasoning)
        if json:
            print_json(report.model_dump(mode="json"))
            return
        from rich import box
        from rich.table import Table

        table = Table(title=f"{report.rows:,} accepted traces", pad_edge=False, box=box.SIMPLE_HEAD)
        for name in ("process", "bounds", "within", "below", "above", "5 %", "median", "95 %"):
            table.add_column(name, justify="left" if name == "process" else "right")
        for found in report.processes:
            table.add_row(
                f"{found.process}, {found.unit}",
                f"{found.low}-{found.high}",
                *(f"{share:.0%}" for share in (found.within, found.below, found.above)),
                *(str(found.percentiles[p]) for p in (5, 50, 95)),
            )
        out_console().print(table)


def run() -> None:
    """The entry point of `p2r-train`."""
    app()
