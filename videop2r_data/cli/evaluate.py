"""`p2r-train eval`: a model on benchmarks, from the flags to the tables."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    OVER_BUDGET,
    UNFINISHED,
    JsonOpt,
    err_console,
    out_console,
    run_draining,
    shell,
)
from videop2r_data.cli.terminal import plural, print_json, say, table
from videop2r_data.errors import ConfigError, P2RError

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.builders import BuildReport, Workspace
    from videop2r_data.evaluation import EvalReport, Meant
    from videop2r_data.schemas import EvalResult

WhatArg = Annotated[
    str | None,
    typer.Argument(metavar="[PLAN|RUN|MODEL]", help="A plan's file, a run's or a model's folder, a Hub id."),
]
BenchmarkOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark", "-b", "--data", metavar="NAME[=PATH]|PATH|HUB_ID|demo",
        help="What is asked; may be repeated. Default: the plan's, or the run's held-out questions.",
    ),
]  # fmt: skip
MediaRootOpt = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="What the rows' paths are relative to.")
]
SampleOpt = Annotated[int | None, typer.Option(min=1, help="So many questions of each, drawn by their ids.")]
BackendOpt = Annotated[
    str | None, typer.Option(metavar="KIND", help="openai, vllm, transformers, anthropic or demo.")
]
ModelOpt = Annotated[str | None, typer.Option(metavar="ID", help="Model, as its server knows it.")]
UrlOpt = Annotated[str | None, typer.Option(metavar="URL", help="Of an OpenAI-compatible server.")]
KeyOpt = Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the API key.")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of a plan: media.fps=2; again for more."),
]
StyleOpt = Annotated[str | None, typer.Option(metavar="process|agnostic|plain", help="What is asked for.")]
PromptOpt = Annotated[str | None, typer.Option(help="Packaged prompt or file.")]
TraceOpt = Annotated[str | None, typer.Option(help="Packaged trace grammar or file.")]
FramesOpt = Annotated[int | None, typer.Option(min=1, help="Frames of a clip; the paper: 32.")]
MaxPixelsOpt = Annotated[int | None, typer.Option(min=1, help="Of a frame; the paper: 200,704.")]
TemperatureOpt = Annotated[float | None, typer.Option(min=0, help="The paper: 0.01.")]
TopPOpt = Annotated[float | None, typer.Option(help="The paper: 0.001.")]
MaxTokensOpt = Annotated[
    int | None, typer.Option("--max-tokens", "--max-new-tokens", min=1, help="Longest completion.")
]
ScoringOpt = Annotated[str | None, typer.Option(metavar="paper|robust", help="How answers are scored.")]
JudgingOpt = Annotated[
    Path | None, typer.Option(metavar="YAML", help="Judges of the observations: judges, as in a plan.")
]
BlindOpt = Annotated[bool, typer.Option("--no-question-only", help="Do not ask without media too.")]
MaxCostOpt = Annotated[float | None, typer.Option(metavar="USD", help="Stop before it costs more.")]
CheckOnlyOpt = Annotated[
    bool, typer.Option("--check-only", help="Look at rows, media and servers; no question is asked.")
]
RescoreOpt = Annotated[
    Path | None, typer.Option(metavar="RESULT", help="Score a finished evaluation again; no call is made.")
]
OutOpt = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Of the result; default: the plan's name, or RUN/eval.")
]
WorkOpt = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Of the journal; default: the result's with .build.")
]
ShardOpt = Annotated[
    str | None, typer.Option(metavar="I/N", help="Make the calls of this share alone, on one of N machines.")
]
WaitOpt = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for another process in the folder.")]
KeepGoingOpt = Annotated[bool, typer.Option("--keep-going", help="Do not stop for refusals in a row.")]
RetryOpt = Annotated[bool, typer.Option("--retry", help="Ask again what was refused or came back empty.")]


def evaluate(
    what: WhatArg = None,
    benchmark: BenchmarkOpt = None,
    media_root: MediaRootOpt = None,
    config: Annotated[str | None, typer.Option(help="Config of a Hub data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub data set.")] = None,
    start: Annotated[int | None, typer.Option(min=0, help="First row of each benchmark.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of each benchmark at most.")] = None,
    sample: SampleOpt = None,
    backend: BackendOpt = None,
    model: ModelOpt = None,
    base_url: UrlOpt = None,
    api_key_env: KeyOpt = None,
    dtype: Annotated[str | None, typer.Option(help="For transformers: float32, bfloat16, float16.")] = None,
    device: Annotated[str | None, typer.Option(help="For transformers: cpu, cuda; default: any.")] = None,
    style: StyleOpt = None,
    prompt: PromptOpt = None,
    trace: TraceOpt = None,
    frames: FramesOpt = None,
    max_pixels: MaxPixelsOpt = None,
    temperature: TemperatureOpt = None,
    top_p: TopPOpt = None,
    max_tokens: MaxTokensOpt = None,
    sets: SetOpt = None,
    scoring: ScoringOpt = None,
    judging: JudgingOpt = None,
    no_judge: Annotated[bool, typer.Option("--no-judge", help="Ask no judge.")] = False,
    no_question_only: BlindOpt = False,
    max_cost: MaxCostOpt = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Calls in flight at most.")] = None,
    check_only: CheckOnlyOpt = False,
    rescore: RescoreOpt = None,
    out: OutOpt = None,
    work: WorkOpt = None,
    shard: ShardOpt = None,
    wait: WaitOpt = True,
    keep_going: KeepGoingOpt = False,
    retry: RetryOpt = False,
    json: JsonOpt = False,
) -> None:
    """Ask a model the questions of benchmarks, and write what its answers are worth.

    Rows and media are looked at first. Stopped, the same command goes on: what was answered is not asked
    again. Each figure stands with its interval beside that of the same model without the media.

    Exit code 0: done. 1: an error, or no question got an answer. 3: not done yet: run the same command
    again. 4: --max-cost is reached.
    """
    flags = locals()
    if rescore is not None:
        _rescore(rescore, flags)
    else:
        _evaluate(what, flags)


def plan_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plan that the flags name; of other commands too, that have some of these flags."""

    def of(*names: str) -> dict[str, Any]:
        told = {name: flags[name] for name in names if flags.get(name) is not None}
        return {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}

    given = of("style", "prompt", "trace", "temperature", "top_p", "max_tokens", "max_cost")
    given["backend"] = of("model", "base_url", "api_key_env", "concurrency") | {
        "kind": flags.get("backend"), "extra": of("dtype"),
    }  # fmt: skip
    given["media"] = of("frames", "max_pixels")
    given["pool"] = of("config", "split", "start", "limit", "sample", "media_root")
    given["benchmarks"] = [_named(name) for name in flags["benchmark"] or ()]
    given["scoring"] = {"profile": flags["scoring"]} if flags.get("scoring") else None
    given["question_only"] = False if flags.get("no_question_only") else None
    if flags.get("no_judge"):
        given["judges"] = []
    elif flags.get("judging") is not None:
        given["judges"] = _judges(flags["judging"])
    return given | {"set": flags.get("sets")}


def _named(text: str) -> dict[str, Any]:
    """`NAME=PATH`, a path, a Hub id, or the name of a benchmark."""
    name, sign, path = text.partition("=")
    if sign and name and "/" not in name and not Path(text).exists():
        return {"benchmark": name, "path": path}
    own = text == "demo" or not ("/" in text or "." in text or Path(text).exists())
    return {"name": text} if own else {"path": text}


def _judges(path: Path) -> list[Any]:
    from videop2r_data.schemas import parse_mapping, read_settings

    valid = "a judge as in a recipe, or judges: with a list of them"
    data = parse_mapping(read_settings(path), where=str(path), what="file of judges", valid=valid)
    judges = data.get("judges", [{"name": "sufficiency", **data}])
    if not isinstance(judges, list):
        raise ConfigError("judges is no list", where=str(path), hint=valid)
    return judges


def _evaluate(what: str | None, flags: Mapping[str, Any]) -> None:
    from videop2r_data.builders import Shard, Stop, Workspace
    from videop2r_data.cli.build import BuildProgress
    from videop2r_data.evaluation import evaluate, plan_of

    asked = plan_of(what, plan_settings(flags), device=flags["device"] or "")
    place = Workspace.at(flags["out"] or asked.out, base=asked.base, work=flags["work"])
    if flags["check_only"]:
        _check(asked, place, as_json=flags["json"])
    console, stop = err_console(), Stop()
    with BuildProgress(console, kept="answered") as progress:
        running = evaluate(
            asked.plan,
            place,
            observer=progress,
            stop=stop,
            wait=flags["wait"],
            shard=None if flags["shard"] is None else Shard.parse(flags["shard"]),
            keep_going=flags["keep_going"],
            forgive=flags["retry"],
        )
        made = run_draining(running, stop, console.print)
    if made.result is not None and asked.run is not None:
        _write_card(asked.run)
    _show(made.result, made.run, place, as_json=flags["json"])
    raise typer.Exit(exit_code(made))


def _check(asked: Meant, place: Workspace, *, as_json: bool) -> None:
    """Print what would be asked of whom; exit code 1 if the evaluation would not begin."""
    from videop2r_data.cli.check import render_check
    from videop2r_data.evaluation import admit, look_at

    report = asyncio.run(look_at(asked.plan, place, tell=err_console().print))
    refused = None
    try:
        admit(asked.plan, report)
    except ConfigError as error:
        refused = error
    if as_json:
        print_json(report.model_dump(mode="json") | {"begins": refused is None, "why": str(refused or "")})
    else:
        render_check(report, out_console(), what="the evaluation")
        if refused is not None:
            raise refused
    ready = refused is None and all(server.ok for server in report.servers)
    raise typer.Exit(OK if ready else FINDINGS)


def _rescore(folder: Path, flags: Mapping[str, Any]) -> None:
    from videop2r_data.builders import Workspace
    from videop2r_data.cli.build import BuildProgress
    from videop2r_data.evaluation import read_result, rescore

    read_result(folder)  # before the work folder: a folder that is no result is told as such
    noted = Workspace.of(folder, work=flags["work"])
    place = noted if flags["out"] is None else Workspace.at(flags["out"], base=noted.base, work=noted.work)
    changes = {} if flags["scoring"] is None else {"scoring": {"profile": flags["scoring"]}}
    with BuildProgress(err_console(), kept="answered") as progress:
        result = asyncio.run(rescore(folder, place, changes, observer=progress))
    _show(result, None, place, as_json=flags["json"])


def exit_code(made: EvalReport) -> int:
    """0 done, 1 no question got an answer, 3 run it again, 4 over budget."""
    from videop2r_data.evaluation import all_failed

    if made.run.state == "over_budget":
        return OVER_BUDGET
    if made.run.state not in ("complete", "shard_complete") or made.run.unanswered:
        return UNFINISHED
    return FINDINGS if made.result is not None and all_failed(made.result) else OK


def _write_card(run: Path) -> None:
    from videop2r_data.cli.train_eval import make_card

    try:
        make_card(run)
    except P2RError as error:
        say(f"no card: {error}", err=True)  # a run that goes on has none yet


# What is printed.


def _show(result: EvalResult | None, run: BuildReport | None, place: Workspace, *, as_json: bool) -> None:
    if as_json:
        told = {
            name: made and made.model_dump(mode="json") for name, made in (("run", run), ("result", result))
        }
        took = {one.name: one.took and one.took.model_dump() for one in result.benchmarks} if result else {}
        print_json({"folder": str(place.out), **told, "took": took})
        return
    console = out_console()
    if result is not None:
        _show_result(result, console)
    if run is not None:
        _show_run(run, console)
    if result is not None:
        say(f"rows, tables and result.json: {shell(place.out)}")


def _show_run(run: BuildReport, console: Console) -> None:
    again = "run the same command again: every finished call is kept"
    words = {
        "interrupted": f"[bold]Stopped[/]; to go on, {again}.",
        "over_budget": f"[bold]Over budget[/]: raise --max-cost, then {again}.",
        "shard_complete": "[bold]Every call of this share is made[/]. When all shares are, run the same "
        "command without --shard: it writes the result.",
    }
    if run.state in words:
        console.print(words[run.state])
    console.print(
        f"{plural(run.calls_made, 'call')} made, {plural(run.calls_found, 'answer')} found in the journal, "
        f"{plural(run.media_decoded, 'file')} decoded, {run.seconds:,.1f} s"
    )
    if run.spent.finished_usd:
        console.print(f"spent ${run.spent.finished_usd:,.2f} over all runs")
    if run.unanswered:
        console.print(f"[bold red]{plural(run.unanswered, 'question')} got no answer[/]: {again}.")
        console.print(Text(f"  the last error: {run.last_error}"), soft_wrap=True)


def _show_result(result: EvalResult, console: Console) -> None:
    from videop2r_data.evaluation import counted, details, sections

    for one in result.benchmarks:
        console.print(Text(f"{one.title}: {counted(one)}", style="bold"), soft_wrap=True)
        for head, rows in sections(one):
            made = table(head, "value", "interval", "n", "question only", fold=0, most=26, no_wrap=True)
            for name, numbers in rows:
                made.add_row(Text(name), *numbers)
            console.print(made)
        for line in details(one):
            console.print(Text(f"  {line}"), soft_wrap=True)
