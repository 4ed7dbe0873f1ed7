"""`p2r-train eval`: a checkpoint on held-out questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videop2r_data.cli.common import err_console, errors_as_messages, out_console, shell
from videop2r_data.cli.output import print_json, say

if TYPE_CHECKING:
    from videop2r_data.trainer.evaluate.report import EvalReport

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
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


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
    media = {"frames": frames, "max_pixels": max_pixels}
    root = str(media_root) if media_root else None
    sampling = _set(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
    given: dict[str, Any] = {
        "data": _set(
            source=data, config=config, split=split, media_root=root, start=start, limit=limit, style=style,
            prompt=prompt, media=_set(**media) or None,
        ),
        "run": _set(batch=batch, sampling=sampling or None),
        "model": _set(dtype=dtype),
    }  # fmt: skip
    if no_judge:
        given["judging"] = {"kind": "none"}
    with errors_as_messages(as_json=json):
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
    from videop2r_data.schemas.yaml_file import parse_mapping, read_text
    from videop2r_data.trainer.evaluate.run import run_eval
    from videop2r_data.trainer.evaluate.target import eval_recipe, find_target

    target = find_target(named)
    own = _device()  # also joins the processes of `accelerate launch`, whatever device is named
    place = device or own
    if judging is not None:
        given["judging"] = parse_mapping(
            read_text(judging), where=str(judging), what="judging file", valid="see docs/training.md"
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
        _refresh_card(target.run)
    if as_json:
        print_json(made.report.model_dump(mode="json") | {"folder": str(made.folder)})
        return
    show_report(made.report)
    out_console().print(shell(made.folder), markup=False, soft_wrap=True)


def _refresh_card(run: Path) -> None:
    """The run's card tells its new numbers; that a run cannot have one yet is no error of the evaluation."""
    from videop2r_data.errors import P2RError

    try:
        make_card(run)
    except P2RError as error:
        say(f"no card: {error}", err=True)


def show_report(report: EvalReport) -> None:
    """Print the aggregates, one line each."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from videop2r_data.trainer.evaluate.report import named_estimates

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"{report.asked:,} questions")
    for head in ("value", f"{report.level:.0%} interval", "of"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, found, digits in named_estimates(report):
        if found is None:
            table.add_row(Text(name), "-", "", "0")
            continue
        interval = f"{found.low:.{digits}f} to {found.high:.{digits}f}"
        table.add_row(Text(name), f"{found.value:.{digits}f}", interval, f"{found.n:,}")
    console = out_console()
    console.print(table)
    for what, counts in (("never asked", report.skipped), ("without a verdict", report.unjudged)):
        if counts:
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in counts.items())
            console.print(f"{what}: {reasons}", markup=False)


def _device() -> str:
    """Where this process computes: as `accelerate launch` set it up, else the first GPU, else the CPU."""
    from accelerate.state import PartialState

    return str(PartialState().device)


def _set(**values: Any) -> dict[str, Any]:
    """What was given."""
    return {name: value for name, value in values.items() if value is not None}
