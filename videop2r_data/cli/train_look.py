"""`p2r-train plot`, `samples`, `eval` and `card`: what became of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import err_console, errors_as_messages, out_console, shell
from videop2r_data.cli.output import print_json


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: p2r-train plot runs/pa-grpo runs/grpo --out compare.png")(plot)
    app.command(epilog="Example: p2r-train samples runs/pa-grpo --step 100")(samples)
    app.command("eval", epilog="Example: p2r-train eval runs/pa-grpo --data held-out/ --media-root media/")(evaluate)
    app.command(epilog="Example: p2r-train card runs/pa-grpo --strict")(card)


def plot(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Folders of runs, or NAME=FOLDER; one NAME for several seeds."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PNG", help="Default: RUN/figures/curves.png; for several curves.png."),
    ] = None,
    dark: Annotated[bool, typer.Option("--dark", help="Light on dark.")] = False,
    smooth: Annotated[
        float | None, typer.Option(min=0, metavar="STEPS", help="Width of the running mean; 0: none.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="METRIC", help="Draw only this metric; may be repeated.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Draw rewards, formats, lengths, collapsed groups, KL and clipping of a run, or compare runs.

    One run shows perception and reasoning in one panel; several get a panel per curve and a colour each.
    The numbers go beside the PNG as JSON.
    """
    from videop2r_data.trainer.look.plot import plot_runs

    named = [_named(run) for run in runs]
    with errors_as_messages(as_json=json):
        target = out or (named[0][1] / "figures" / "curves.png" if len(named) == 1 else Path("curves.png"))
        made = plot_runs(named, target, dark=dark, window=smooth, keys=key or ())
        if json:
            print_json(
                {
                    "png": str(made.png),
                    "data": str(made.data),
                    "panels": made.panels,
                    "damaged_lines": made.damaged,
                }
            )
            return
        out_console().print(f"{shell(made.png)}\n{shell(made.data)}", markup=False, soft_wrap=True)
        if made.damaged:
            err_console().print(f"{made.damaged} damaged lines of metrics were left out")


def samples(
    run: Annotated[Path, typer.Argument(help="Folder of an RL run.")],
    step: Annotated[int | None, typer.Option(help="Step of the samples; default: the last one.")] = None,
    groups: Annotated[int | None, typer.Option(min=1, help="Show only so many questions.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show sampled completions: observation, think and answer apart, with rewards and the judge's words."""
    from videop2r_data.trainer.look.samples import pick, read_samples, render_samples

    with errors_as_messages(as_json=json):
        rows = pick(read_samples(run, step=step), groups)
        if json:
            print_json(rows)
        else:
            out_console().print(render_samples(rows))


def card(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    base_model: Annotated[
        str | None,
        typer.Option(metavar="HUB_ID", help="What the training began with; default: as recipes say."),
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="Of the weights, e.g. apache-2.0.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse without curves, an evaluation and a licence.")
    ] = False,
) -> None:
    """Draw the curves and write the model card README.md from the files of a run.

    A number that is missing is an error, not a gap.
    """
    with errors_as_messages():
        path = make_card(run, base_model=base_model, license_id=license_id, strict=strict)
        out_console().print(shell(path), markup=False, soft_wrap=True)


def _named(text: str) -> tuple[str, Path]:
    """`NAME=FOLDER`, or a folder alone."""
    name, sign, folder = text.partition("=")
    if sign and name and "/" not in name and not Path(text).exists():
        return name, Path(folder)
    return "", Path(text)
