"""`p2r-train eval`, `plot`, `samples` and `card`: what became of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from videop2r_data.cli.common import JsonOpt, err_console, out_console, shell
from videop2r_data.cli.terminal import print_json, say, table
from videop2r_data.errors import MissingExtraError, P2RError

if TYPE_CHECKING:
    from videop2r_data.trainer.evaluate import EvalReport


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
    json: JsonOpt = False,
) -> None:
    """Draw rewards, formats, lengths, collapsed groups, KL and clipping of a run, or compare runs.

    One run shows perception and reasoning in one panel; several get a panel per curve and a colour each.
    The numbers go beside the PNG as JSON.
    """
    from videop2r_data.trainer.look import plot_runs

    named = [_named(run) for run in runs]
    target = out or (named[0][1] / "figures" / "curves.png" if len(named) == 1 else Path("curves.png"))
    made = plot_runs(named, target, dark=dark, window=smooth, keys=key or ())
    if json:
        png, data = str(made.png), str(made.data)
        print_json({"png": png, "data": data, "panels": made.panels, "damaged_lines": made.damaged})
        return
    out_console().print(f"{shell(made.png)}\n{shell(made.data)}", markup=False, soft_wrap=True)
    if made.damaged:
        err_console().print(f"{made.damaged} damaged lines of metrics were left out")


def samples(
    run: Annotated[Path, typer.Argument(help="Folder of an RL run.")],
    step: Annotated[int | None, typer.Option(help="Step of the samples; default: the last one.")] = None,
    groups: Annotated[int | None, typer.Option(min=1, help="Show only so many questions.")] = None,
    json: JsonOpt = False,
) -> None:
    """Show sampled completions: observation, think and answer apart, with rewards and the judge's words."""
    from videop2r_data.trainer.look import pick, read_samples, render_samples
    from videop2r_data.trainer.settings import run_grammar

    rows = pick(read_samples(run, step=step), groups)
    if json:
        print_json(rows)
    else:
        out_console().print(render_samples(rows, run_grammar(run)))


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
    path = make_card(run, base_model=base_model, license_id=license_id, strict=strict)
    out_console().print(shell(path), markup=False, soft_wrap=True)


def _named(text: str) -> tuple[str, Path]:
    """`NAME=FOLDER`, or a folder alone."""
    name, sign, folder = text.partition("=")
    if sign and name and "/" not in name and not Path(text).exists():
        return name, Path(folder)
    return "", Path(text)


# `eval`: a checkpoint on held-out questions.


TargetArg = Annotated[
    str, typer.Argument(metavar="RUN_OR_MODEL", help="Folder of a run or a model, or a Hub id.")
]
DataOpt = Annotated[
    str | None,
    typer.Option(metavar="FOLDER|HUB_ID|demo", help="Held-out questions; default: the run's own."),
]
ConfigOpt = Annotated[str | None, typer.Option(metavar="rl|sft", help="Config of the data set.")]
SplitOpt = Annotated[str | None, typer.Option(help="Split of a Hub data set.")]
MediaRootOpt = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="What the rows' paths are relative to.")
]
StartOpt = Annotated[int | None, typer.Option(min=0, help="First row.")]
LimitOpt = Annotated[int | None, typer.Option(min=1, help="Rows at most.")]
FramesOpt = Annotated[int | None, typer.Option(min=1, help="Frames of a clip; the paper: 32.")]
MaxPixelsOpt = Annotated[int | None, typer.Option(min=1, help="Of a frame; the paper: 200,704.")]
StyleOpt = Annotated[
    str | None, typer.Option(metavar="process|agnostic", help="With or without an observation.")
]
PromptOpt = Annotated[str | None, typer.Option(help="Packaged prompt or file.")]
TemperatureOpt = Annotated[float | None, typer.Option(min=0, help="0: always the likeliest token.")]
TopPOpt = Annotated[float | None, typer.Option(help="The paper: 0.001.")]
MaxNewTokensOpt = Annotated[int | None, typer.Option(min=1, help="Longest completion.")]
BatchOpt = Annotated[int | None, typer.Option(min=1, help="Questions at a time.")]
JudgingOpt = Annotated[
    Path | None,
    typer.Option(metavar="YAML", help="Settings of the perception judge; default: the run's."),
]
NoJudgeOpt = Annotated[bool, typer.Option("--no-judge", help="Do not judge perception.")]
DtypeOpt = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
DeviceOpt = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: what there is.")]
OutOpt = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Rows and report; default: under RUN/eval.")
]


def evaluate(
    target: TargetArg,
    data: DataOpt = None,
    config: ConfigOpt = None,
    split: SplitOpt = None,
    media_root: MediaRootOpt = None,
    start: StartOpt = None,
    limit: LimitOpt = None,
    frames: FramesOpt = None,
    max_pixels: MaxPixelsOpt = None,
    style: StyleOpt = None,
    prompt: PromptOpt = None,
    temperature: TemperatureOpt = None,
    top_p: TopPOpt = None,
    max_new_tokens: MaxNewTokensOpt = None,
    batch: BatchOpt = None,
    judging: JudgingOpt = None,
    no_judge: NoJudgeOpt = False,
    dtype: DtypeOpt = None,
    device: DeviceOpt = None,
    out: OutOpt = None,
    json: JsonOpt = False,
) -> None:
    """Answer held-out questions and grade answers, perception and consistency, with confidence intervals.

    Stopped, the same command goes on. On several GPUs: `accelerate launch -m videop2r_data.cli.train eval`.
    """
    root = str(media_root) if media_root else None
    sampling = _set(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    given: dict[str, Any] = {
        "data": _set(
            source=data, config=config, split=split, media_root=root, start=start, limit=limit, style=style,
            prompt=prompt, media=_set(frames=frames, max_pixels=max_pixels) or None,
        ),
        "run": _set(batch=batch, sampling=sampling or None),
        "model": _set(dtype=dtype),
    }  # fmt: skip
    if no_judge:
        given["judging"] = {"kind": "none"}
    _evaluate(target, given, judging, device, out, as_json=json)


def _evaluate(
    named: str,
    given: dict[str, Any],
    judging: Path | None,
    device: str | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    from videop2r_data.schemas import parse_mapping, read_settings
    from videop2r_data.trainer.evaluate import eval_recipe, find_target, run_eval

    target = find_target(named)
    from accelerate.state import PartialState

    # joins the processes of `accelerate launch` too, whatever device is named
    own = str(PartialState().device)
    place = device or own
    if judging is not None:
        given["judging"] = parse_mapping(
            read_settings(judging), where=str(judging), what="judging file", valid="see docs/training.md"
        )
    recipe = eval_recipe(target, given, device=place.partition(":")[0])
    console = err_console()
    with console.status("loading") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"{done:,} of {total:,} questions")

        made = run_eval(target, recipe, device=place, out=out, progress=progress, note=console.print)
    if not made.main:
        return
    if target.run is not None:
        try:
            make_card(target.run)
        except P2RError as error:
            say(f"no card: {error}", err=True)  # a run that goes on has none yet
    if as_json:
        print_json(made.report.model_dump(mode="json") | {"folder": str(made.folder)})
        return
    show_report(made.report)
    out_console().print(shell(made.folder), markup=False, soft_wrap=True)


def show_report(report: EvalReport) -> None:
    """Print each aggregate with its interval."""
    from videop2r_data.trainer.evaluate import named_estimates

    heads = (f"{report.asked:,} questions", "value", f"{report.level:.0%} interval", "of")
    made = table(*heads, fold=0, no_wrap=True)
    for name, found, digits in named_estimates(report):
        if found is None:
            made.add_row(Text(name), "-", "", "0")
            continue
        interval = f"{found.low:.{digits}f} to {found.high:.{digits}f}"
        made.add_row(Text(name), f"{found.value:.{digits}f}", interval, f"{found.n:,}")
    console = out_console()
    console.print(made)
    for what, counts in (("never asked", report.skipped), ("without a verdict", report.unjudged)):
        if counts:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts.items())
            console.print(f"{what}: {reasons}", markup=False)


def _set(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


# The card of a run: `card` and `eval` write it.


def make_card(
    run: Path, *, base_model: str | None = None, license_id: str | None = None, strict: bool = False
) -> Path:
    """Draw the curves, where matplotlib is installed, and write `README.md`; returns its path.

    Args:
        run: folder of a finished run.
        base_model, license_id, strict: as for `write_model_card`.

    Raises:
        ExportError: the run has not ended, or a file of it is missing, damaged or lacks a number.
        SourceError: the run has no metrics.
    """
    from videop2r_data.cards.card import CURVES, write_model_card
    from videop2r_data.trainer.look import plot_runs

    try:
        plot_runs([("", run)], run / CURVES)
    except MissingExtraError:
        if strict:
            raise
    return write_model_card(run, base_model=base_model, license_id=license_id, strict=strict)
