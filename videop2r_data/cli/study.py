"""`p2r-train study`: one plan under many settings of its media, as a table and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from videop2r_data.cli.common import OK, UNFINISHED, JsonOpt, err_console, out_console, run_draining, shell
from videop2r_data.cli.evaluate import (
    BackendOpt,
    BenchmarkOpt,
    KeyOpt,
    MaxCostOpt,
    MediaRootOpt,
    ModelOpt,
    OutOpt,
    SampleOpt,
    UrlOpt,
    WhatArg,
    WorkOpt,
    plan_settings,
)
from videop2r_data.cli.terminal import print_json, table
from videop2r_data.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.evaluation import Study

KindArg = Annotated[
    str, typer.Argument(metavar="KIND", help="frames, robustness or selection: what is varied by default.")
]
FramesOpt = Annotated[str | None, typer.Option(metavar="N,N", help="Frames of a clip: 4,8,16,32.")]
PixelsOpt = Annotated[str | None, typer.Option(metavar="N,N", help="Of a frame at most.")]
FpsOpt = Annotated[str | None, typer.Option(metavar="R,R", help="Frames a second, up to --frames.")]
SelectOpt = Annotated[str | None, typer.Option(metavar="HOW,HOW", help="uniform, scenes, question.")]
EmbedderOpt = Annotated[
    str | None, typer.Option(metavar="MODEL", help="For question: CLIP or SigLIP, a folder or a Hub id.")
]
DropOpt = Annotated[str | None, typer.Option(metavar="SHARE,..", help="Of the frames, left out at random.")]
BlurOpt = Annotated[str | None, typer.Option(metavar="PIXELS,..", help="Deviation of a Gaussian blur.")]
NoiseOpt = Annotated[
    str | None, typer.Option(metavar="LEVELS,..", help="Deviation of Gaussian noise, of 255.")
]
OccludeOpt = Annotated[str | None, typer.Option(metavar="SHARE,..", help="Of each frame, covered by a box.")]
DarkOpt = Annotated[bool, typer.Option("--dark", help="The figure light on dark.")]


def study(
    kind: KindArg,
    what: WhatArg = None,
    frames: FramesOpt = None,
    pixels: PixelsOpt = None,
    fps: FpsOpt = None,
    select: SelectOpt = None,
    embedder: EmbedderOpt = None,
    drop: DropOpt = None,
    blur: BlurOpt = None,
    noise: NoiseOpt = None,
    occlude: OccludeOpt = None,
    benchmark: BenchmarkOpt = None,
    media_root: MediaRootOpt = None,
    sample: SampleOpt = None,
    backend: BackendOpt = None,
    model: ModelOpt = None,
    base_url: UrlOpt = None,
    api_key_env: KeyOpt = None,
    max_cost: MaxCostOpt = None,
    out: OutOpt = None,
    work: WorkOpt = None,
    dark: DarkOpt = False,
    json: JsonOpt = False,
) -> None:
    """Evaluate one plan under many settings of its frames: accuracy, tokens, seconds and money side by side.

    `frames`: frames x pixels; `robustness`: dropped frames, blur, noise, occlusion; `selection`: uniform
    frames against chosen ones. Each option replaces what the study varies by default. Stopped, the same
    command goes on; a wider grid asks only what is new.
    """
    flags = locals()
    varied = {name: _listed(name, flags[name]) for name in _NUMBERS if flags[name] is not None}
    if select is not None:
        varied["select"] = [word.strip() for word in select.split(",")]
    _study({"kind": kind, "embedder": embedder, **varied}, what, flags)


_NUMBERS: dict[str, type] = {"frames": int, "pixels": int, "fps": float}
_NUMBERS |= dict.fromkeys(("drop", "blur", "noise", "occlude"), float)


def _listed(name: str, text: str) -> list[Any]:
    """Numbers with commas between them."""
    try:
        return [_NUMBERS[name](part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 4,8,16", param_hint=f"--{name}"
        ) from None


def _study(varied: dict[str, Any], what: str | None, flags: dict[str, Any]) -> None:
    from videop2r_data.builders import Stop, Workspace
    from videop2r_data.cli.build import BuildProgress
    from videop2r_data.evaluation import Cell, StudySpec, plan_of, run_study, told
    from videop2r_data.schemas import validate_settings

    named = {name: value for name, value in varied.items() if value is not None}
    spec = validate_settings(named, StudySpec, where="the flags", what="study")
    # the study's own lists are none of the plan's settings
    asked = plan_of(what, plan_settings({k: v for k, v in flags.items() if k not in _NUMBERS}))
    plan = asked.plan
    place = Workspace.at(
        flags["out"] or Path(f"{plan.name}-{spec.kind}"), base=asked.base, work=flags["work"]
    )
    console, stop = err_console(), Stop()

    def begin(number: int, of: int, cell: Cell) -> None:
        console.print(Text(f"{number + 1} of {of}: {told(cell.varied)}"))

    with BuildProgress(console, kept="answered") as progress:
        running = run_study(plan, spec, place, observer=progress, stop=stop, tell=begin)
        made = run_draining(running, stop, console.print)
    drawn = _draw(made, place.out, dark=flags["dark"])
    if flags["json"]:
        print_json({"folder": str(place.out), "figures": drawn, "study": made.model_dump(mode="json")})
    else:
        _show(made, out_console())
        for path in (place.out, *drawn):
            out_console().print(shell(path), markup=False, soft_wrap=True)
    raise typer.Exit(UNFINISHED if made.missing else OK)


def _draw(made: Study, folder: Path, *, dark: bool) -> list[str]:
    from videop2r_data.evaluation import plot_study

    if not made.cells:
        return []
    try:
        return [str(path) for path in plot_study(made, folder, dark=dark)]
    except MissingExtraError as error:
        err_console().print(Text(f"no figure: {error}"))
        return []


def _show(made: Study, console: Console) -> None:
    from videop2r_data.evaluation import figure_of, shown_protocols, told

    for benchmark, protocol in shown_protocols(made):
        console.print(Text(f"{benchmark}: {protocol}", style="bold"))
        shown = table("setting", "value", "interval", "alone", "frames", "tokens", "s", fold=0, no_wrap=True)
        for result in made.cells:
            figure = figure_of(result, benchmark, protocol)
            cells = ["-"] * 6
            if figure is not None and figure.value is not None:
                between = "" if figure.low is None else f"{figure.low:.3f}-{figure.high:.3f}"
                numbers = (figure.frames, ".1f"), (figure.input_tokens, ",.0f"), (result.seconds_p50, ".2f")
                alone = (figure.question_only, ".3f")
                cells = [f"{figure.value:.3f}", between]
                cells += ["-" if value is None else format(value, form) for value, form in (alone, *numbers)]
            shown.add_row(Text(told(result.cell.varied)), *cells)
        console.print(shown)
    if made.missing:
        console.print(
            f"[bold]Not finished[/]: {made.missing} settings are missing; the same command goes on."
        )
