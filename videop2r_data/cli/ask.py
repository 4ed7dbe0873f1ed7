"""`p2r-train ask`: one question to a model, on the terminal, as a page, or page after page."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from videop2r_data.cli.common import FINDINGS, JsonOpt, err_console, new_file, out_console, shell
from videop2r_data.cli.evaluate import (
    FramesOpt,
    KeyOpt,
    MaxPixelsOpt,
    MaxTokensOpt,
    PromptOpt,
    SetOpt,
    TemperatureOpt,
    TopPOpt,
    TraceOpt,
    UrlOpt,
)
from videop2r_data.cli.terminal import print_json, say
from videop2r_data.errors import ConfigError

if TYPE_CHECKING:
    from videop2r_data.evaluation import Asked, Seen
    from videop2r_data.schemas import EvalPlan, ProblemType, Recipe, Sample

ModelArg = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Folder of a run or a model, a Hub id, or with --base-url a server's model id."
    ),
]
ClipArg = Annotated[
    Path, typer.Argument(metavar="CLIP", help="A clip or an image; with --serve a folder of them.")
]
QuestionArg = Annotated[str | None, typer.Argument(metavar="QUESTION", help="Left out with --serve.")]
ChoicesArg = Annotated[
    list[str] | None,
    typer.Argument(metavar="CHOICE...", help="Options; the question is then multiple choice."),
]
TypeOpt = Annotated[
    str | None,
    typer.Option(
        "--type", metavar="TYPE", help="numerical, OCR, temporal grounding ...; default: free-form."
    ),
]
StartOpt = Annotated[float | None, typer.Option(min=0, metavar="S", help="Second of the clip to begin with.")]
EndOpt = Annotated[float | None, typer.Option(min=0, metavar="S", help="Second of the clip to end with.")]
KindOpt = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="transformers, vllm, openai or anthropic; default: openai with --base-url, else the first.",
    ),
]
FactorOpt = Annotated[
    int | None, typer.Option(min=1, help="Sides are multiples of it: Qwen2.5-VL 28, Qwen3-VL 32.")
]
AloneOpt = Annotated[bool, typer.Option("--blind", help="Ask the question without the clip, too.")]
HtmlOpt = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write one page with frames and answer, too.")
]
ServeOpt = Annotated[
    bool, typer.Option("--serve", help="Serve a page that asks about files below CLIP, until Ctrl-C.")
]
PortOpt = Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="For --serve; 0: a free one.")]


def ask(
    model: ModelArg,
    clip: ClipArg,
    question: QuestionArg = None,
    choices: ChoicesArg = None,
    kind_of_answer: TypeOpt = None,
    start: StartOpt = None,
    end: EndOpt = None,
    frames: FramesOpt = None,
    max_pixels: MaxPixelsOpt = None,
    factor: FactorOpt = None,
    base_url: UrlOpt = None,
    kind: KindOpt = None,
    api_key_env: KeyOpt = None,
    trace: TraceOpt = None,
    prompt: PromptOpt = None,
    temperature: TemperatureOpt = None,
    top_p: TopPOpt = None,
    max_tokens: MaxTokensOpt = None,
    sets: SetOpt = None,
    blind: AloneOpt = False,
    html: HtmlOpt = None,
    serve: ServeOpt = False,
    port: PortOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Ask a model about a clip or an image: its observation, reasoning and answer, in colours.

    MODEL is asked as it was trained: with the prompt, the trace and the frames of its run. Any other model is
    asked as the paper asks.
    """
    flags = locals()
    plan = _plan(model, flags)
    alone = plan.question_only_prompt if blind else ""
    if serve:
        if question is not None:
            raise typer.BadParameter("with --serve it is asked on the page", param_hint="QUESTION")
        _serve(plan.recipe, clip, model, port, alone)
        return
    if question is None:
        raise typer.BadParameter("is missing", param_hint="QUESTION")
    part = {"start_s": start, "end_s": end}
    sample, root = _question(clip, question, choices or (), _type(kind_of_answer), part)
    seen = _ask(plan.recipe, root, sample, alone)
    _told(seen, plan.recipe, html, as_json=json)
    if seen.asked.failed:
        raise typer.Exit(FINDINGS)


def _question(
    clip: Path, text: str, choices: Sequence[str], kind: ProblemType | None, part: dict[str, float | None]
) -> tuple[Sample, Path]:
    """The question, and the folder of its file."""
    from videop2r_data.evaluation import make_question

    if not clip.is_file():
        raise ConfigError("no such file", where=str(clip), hint="name a clip or an image")
    file = clip.resolve()  # links are followed here: no file below it is out of bounds for its owner
    return make_question(file.name, text, options=choices, problem_type=kind, **part), file.parent


def _type(name: str | None) -> ProblemType | None:
    from videop2r_data.schemas import ProblemType

    for kind in ProblemType:
        if name is not None and name.casefold() in (kind.value.casefold(), *kind.traits.aliases):
            return kind
    if name is not None:
        known = ", ".join(kind.value for kind in ProblemType)
        raise typer.BadParameter(f"{name!r} is none of {known}", param_hint="--type")
    return None


def _plan(model: str, flags: Mapping[str, Any]) -> EvalPlan:
    """Whom to ask and how: as given, else as the run was trained, else as in the paper."""
    from videop2r_data.evaluation import plan_of
    from videop2r_data.schemas import BACKENDS

    kind = flags["kind"] or ("openai" if flags["base_url"] else "transformers")
    known = BACKENDS.get(kind)
    here = known is not None and bool(known.libraries)
    named = {name: flags[name] for name in ("trace", "prompt", "temperature", "top_p", "max_tokens")}
    # somebody waits for this one answer
    backend = {"kind": kind, "retries": 2, "server_wait_s": 10.0, "model": None if here else model}
    backend |= {name: flags[name] for name in ("base_url", "api_key_env")}
    media = {name: flags[name] for name in ("frames", "max_pixels", "factor")}
    only = {"name": "ask", "kind": "dataset", "path": "."}
    given = {"backend": backend, "media": media, "benchmarks": [only], **named, "set": flags["sets"]}
    return plan_of(model if here else None, given).plan


def _ask(recipe: Recipe, root: Path, sample: Sample, blind: str) -> Seen:
    from videop2r_data.evaluation import Asker

    console = err_console()

    async def once() -> Seen:
        async with Asker(recipe, root, blind=blind, tell=console.print) as asker:
            return await asker.ask(sample)

    with console.status("asking"):
        return asyncio.run(once())


def _told(seen: Seen, recipe: Recipe, html: Path | None, *, as_json: bool) -> None:
    from videop2r_data.evaluation import render_page

    if html is not None:
        page = new_file(html, "answer.html", force=True)
        page.write_text(render_page(seen, recipe.trace), encoding="utf-8")
        err_console().print(f"page: {shell(page)}", markup=False, soft_wrap=True)
    if as_json:
        print_json(seen.asked.model_dump(mode="json"))
    else:
        _show(seen.asked, recipe)


def _show(asked: Asked, recipe: Recipe) -> None:
    """Print question, frames and the completion, coloured by the roles of its segments."""
    from videop2r_data.evaluation import facts
    from videop2r_data.prompts import show_options
    from videop2r_data.trainer.look import colour

    console = out_console()
    console.print(Text(asked.problem, style="bold"))
    for option in show_options(asked.options):
        console.print(Text(f"  {option}"))
    console.print(Text(facts(asked), style="dim"))
    if len(asked.frame_times_s) > 1:
        times = " ".join(f"{time:.1f}" for time in asked.frame_times_s)
        console.print(Text(f"frames at {times} s", style="dim"))
    console.print()
    console.print(colour(asked.text.strip(), recipe.trace))
    console.print()
    if asked.fault and asked.text:
        console.print(Text(f"no whole trace: {asked.fault}", style="yellow"))
    if asked.finish == "length":
        console.print(Text("cut at its longest length: --max-tokens allows more", style="yellow"))
    if asked.failed:
        console.print(Text(f"nothing to read: {asked.failed}", style="red"))
    where = "" if asked.place in ("segment", "") else f" ({asked.place})"
    console.print(Text("answer: ", style="bold") + Text((asked.answer or "none was found") + where))
    if asked.blind is not None:
        console.print(Text(f"without the media: {asked.blind or 'none was found'}"))


def _serve(recipe: Recipe, folder: Path, model: str, port: int, blind: str) -> None:
    from videop2r_data.evaluation import serve

    if not folder.is_dir():
        raise ConfigError("no such folder", where=str(folder), hint="with --serve name a folder of clips")
    try:
        asyncio.run(
            serve(
                recipe,
                folder,
                model,
                port=port,
                blind=blind,
                tell=err_console().print,
                ready=lambda url: say(f"serving at {url} (Ctrl-C ends it)", err=True),
            )
        )
    except KeyboardInterrupt:
        return
