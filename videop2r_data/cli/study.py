"""`p2r-train study`: one plan under many settings of its media, as a table and a figure."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    UNFINISHED,
    JsonOpt,
    err_console,
    out_console,
    run_draining,
    shell,
)
from videop2r_data.cli.evaluate import (
    BackendOpt,
    BenchmarkOpt,
    KeyOpt,
    MaxCostOpt,
    MediaRootOpt,
    ModelOpt,
    OutOpt,
    RetryOpt,
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
    retry: RetryOpt = False,
    dark: DarkOpt = False,
    json: JsonOpt = False,
) -> None:
    """Evaluate one plan under many settings of its frames: accuracy, tokens, seconds and money side by side.

    `frames`: frames x pixels; `robustness`: dropped frames, blur, noise, occlusion; `selection`: uniform
    frames against chosen ones. Each option replaces what the study varies by default. Stopped, the same
    command goes on; a wider grid asks only what is new.

    Exit code 0: done. 1: an error, or a setting without an answer. 3: not done yet: run the same command
    again.
    """
    flags = locals()
    varied = {name: _listed(name, flags[name]) for name in _VALUES if flags[name] is not None}
    _study({"kind": kind, "vary": varied, "embedder": embedder or ""}, what, flags)


_VALUES: dict[str, Callable[[str], Any]] = {"frames": int, "pixels": int, "fps": float, "select": str.strip}
_VALUES |= dict.fromkeys(("drop", "blur", "noise", "occlude"), float)


def _listed(name: str, text: str) -> list[Any]:
    """What stands between commas."""
    try:
        return [_VALUES[name](part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 4,8,16", param_hint=f"--{name}"
        ) from None


def _study(varied: dict[str, Any], what: str | None, flags: dict[str, Any]) -> None:
    from videop2r_data.builders import Stop, Workspace
    from videop2r_data.cli.build import BuildProgress
    from videop2r_data.evaluation import Cell, StudySpec, plan_of, run_study, told
    from videop2r_data.schemas import validate_settings

    spec = validate_settings(varied, StudySpec, where="the flags", what="study")
    # the study's own lists are none of the plan's settings
    asked = plan_of(what, plan_settings({k: v for k, v in flags.items() if k not in _VALUES}))
    out = flags["out"] or Path(f"{asked.plan.name}-{spec.kind}")
    place = Workspace.at(out, base=asked.base, work=flags["work"])
    console, stop = err_console(), Stop()

    def begin(number: int, of: int, cell: Cell) -> None:
        console.print(Text(f"{number + 1} of {of}: {told(cell.varied)}"))

    with BuildProgress(console, kept="answered") as progress:
        how = {"stop": stop, "forgive": flags["retry"], "tell": begin}
        running = run_study(asked.plan, spec, place, observer=progress, **how)
        made = run_draining(running, stop, console.print)
    drawn = _draw(made, place.out, dark=flags["dark"])
    if flags["json"]:
        print_json({"folder": str(place.out), "figures": drawn, "study": made.model_dump(mode="json")})
    else:
        _show(made, out_console())
        for path in (place.out, *drawn):
            out_console().print(shell(path), markup=False, soft_wrap=True)
    raise typer.Exit(FINDINGS if made.failed else UNFINISHED if made.missing else OK)


def _draw(made: Study, folder: Path, *, dark: bool) -> list[str]:
    from videop2r_data.evaluation import plot_study

    try:
        return [str(plot_study(made, folder, dark=dark))] if made.protocols else []
    except MissingExtraError as error:
        err_console().print(Text(f"no figure: {error}"))
        return []


def _show(made: Study, console: Console) -> None:
    from videop2r_data.evaluation import lacking, lines_told

    for benchmark, protocol in made.protocols:
        console.print(Text(f"{benchmark}: {protocol}", style="bold"))
        heads, *lines = lines_told(made, benchmark, protocol)
        narrow = [head not in ("frames", "written", "s, p95") for head in heads]
        shown = table(*compress(heads, narrow), fold=0, no_wrap=True)
        for line in lines:
            shown.add_row(*map(Text, compress(line, narrow)))
        console.print(shown)
    for told in lacking(made):
        console.print(Text(told), soft_wrap=True)
