"""`p2r-data`: parse, call, print, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

from videop2r_data.cli import benchmarks, check, gallery, hub, inspect, judge_eval, overlap, plan, stats
from videop2r_data.cli.common import (
    JsonOpt,
    OutOpt,
    Program,
    QuietOpt,
    RecipeArg,
    VerboseOpt,
    VersionOpt,
    err_console,
    register,
    show,
)
from videop2r_data.cli.status import status

app = typer.Typer(
    name="p2r-data",
    help="Make, check and rebuild process-aware chain-of-thought data for video and image QA.",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MaxCostOpt = Annotated[
    float | None,
    typer.Option(min=0, metavar="USD", help="US dollars for the whole build, over all its runs."),
]
ConcurrencyOpt = Annotated[
    int | None, typer.Option(min=1, max=4096, metavar="N", help="Generator calls in flight at most.")
]
JudgeConcurrencyOpt = Annotated[
    int | None,
    typer.Option(min=1, max=4096, metavar="N", help="Calls in flight at most, to each model of each judge."),
]
WorkersOpt = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="Decoder processes; 0: one per core.")
]
LimitOpt = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Take only the first rows of each source.")
]
TargetOpt = Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after so many accepted rows.")]
WaitOpt = Annotated[
    bool,
    typer.Option(
        help="Wait for batches, and for another build in the same work folder; else come back later."
    ),
]
WorkOpt = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Folder of the journal, here or in a store (s3://...); default: the data set's with .build.",
    ),
]
ShardOpt = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Make only the calls of share I of N, on a shared work folder."),
]
ExecutorOpt = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Who decodes and asks: this process, or actors on a Ray cluster."),
]
RayActorsOpt = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="With ray: actors that ask each model.")
]
RayGpusOpt = Annotated[
    float | None, typer.Option(min=0, metavar="N", help="With ray: GPUs of an actor that loads a model.")
]
RetryOpt = Annotated[
    str | None,
    typer.Option(
        "--retry",
        metavar="KINDS",
        help="Ask again what failed in earlier runs: refused, empty, filtered, no_verdict, media, decoder, "
        "or all; several with commas.",
    ),
]
DryRunOpt = Annotated[
    bool, typer.Option("--dry-run", help="Say how many rows --retry would ask again, of each kind, and end.")
]
KeepGoingOpt = Annotated[
    bool, typer.Option("--keep-going", help="Do not stop for refusals or useless replies in a row.")
]
ServerWaitOpt = Annotated[
    float | None,
    typer.Option(min=0, metavar="S", help="Seconds to wait for a server that cannot be reached."),
]
ServeOpt = Annotated[
    bool, typer.Option("--serve", help="Run `vllm serve` on this machine's GPUs while calls are made.")
]
ReplaceOpt = Annotated[
    bool, typer.Option("--replace", help="Replace a data set by one that lost most of its rows.")
]
GalleryOpt = Annotated[
    bool, typer.Option("--gallery", help="Keep WORK/gallery/index.html, a page of the first rows.")
]
MetricsOpt = Annotated[str | None, typer.Option(metavar="[HOST]:PORT", help="Serve figures for Prometheus.")]
AbandonOpt = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Give up a batch that its server no longer has; it is asked again."),
]


@app.callback()
def _root(version: VersionOpt = False, quiet: QuietOpt = False, verbose: VerboseOpt = False) -> None:
    """Make, check and rebuild process-aware chain-of-thought data for video and image QA."""


def build(
    recipe: RecipeArg = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    max_cost: MaxCostOpt = None,
    concurrency: ConcurrencyOpt = None,
    judge_concurrency: JudgeConcurrencyOpt = None,
    workers: WorkersOpt = None,
    limit: LimitOpt = None,
    target: TargetOpt = None,
    wait: WaitOpt = True,
    shard: ShardOpt = None,
    executor: ExecutorOpt = "local",
    ray_actors: RayActorsOpt = None,
    ray_gpus: RayGpusOpt = None,
    retry: RetryOpt = None,
    dry_run: DryRunOpt = False,
    keep_going: KeepGoingOpt = False,
    server_wait: ServerWaitOpt = None,
    replace: ReplaceOpt = False,
    serve: ServeOpt = False,
    abandon_batch: AbandonOpt = None,
    gallery: GalleryOpt = False,
    metrics: MetricsOpt = None,
    json: JsonOpt = False,
) -> None:
    """Build a data set, or go on with a build: the same command resumes.

    Without a recipe the embedded demo world is built. Every finished call is kept at once in the journal:
    stop with Ctrl-C, or lose the machine, and run the same command again.

    Exit code 0: done. 1: an error, or no row was accepted. 2: wrong usage. 3: not done yet (Ctrl-C, a
    server that is away, batches still at the server, questions without an answer): run the same command
    again. 4: --max-cost is reached.
    """
    given = dict(locals())
    from videop2r_data.cli.build import run_build

    names = {"recipe": "name", "abandon_batch": "abandon", "json": "as_json"}
    run_build(**{names.get(name, name): value for name, value in given.items()})


def merge(
    into: Annotated[str, typer.Argument(help="The work folder that gets everything, or its URL (s3://...).")],
    sources: Annotated[
        list[str], typer.Argument(metavar="FROM...", help="Work folders or journals, here or at a URL.")
    ],
    json: JsonOpt = False,
) -> None:
    """Put journals together: what others finished is not asked, and not paid, again.

    Each record is copied once, behind what is there; nothing is removed. Exit code 3: a build works in INTO.
    """
    from videop2r_data.builders import merge as run
    from videop2r_data.cli.terminal import plural

    report = asyncio.run(run(into, sources, tell=err_console().print))
    words = (
        f"{plural(report.copied, 'segment')} had something new; {plural(report.answers, 'answer')}, "
        f"{report.repeats:,} of them paid more than once; {plural(report.damaged, 'damaged line')}"
    )
    show(report, lambda _, console: console.print(words), as_json=json)


register(
    app,
    {
        build: "build my-recipe.yaml --out data/my-cot --max-cost 200",
        status: "status my-cot",
        inspect.verify: "verify videop2r-demo --json",
        check.check: "check my-recipe.yaml --report files.jsonl",
        check.doctor: "doctor my-recipe.yaml",
        plan.estimate: "estimate my-recipe.yaml --pilot 100",
        inspect.reproduce: "reproduce videop2r-demo",
        merge: "merge my-cot.build /elsewhere/my-cot.build",
        stats.stats: "stats videop2r-demo --figures figures",
        inspect.show: "show videop2r-demo demo/17",
        plan.schema: "schema sft > sft.schema.json",
        plan.init: "init my-recipe.yaml --from-data questions.csv",
        inspect.demo_report: "demo-report videop2r-demo",
        benchmarks.benchmarks: "benchmarks mvbench --rows MVBench",
        judge_eval.judge_eval: "judge-eval marks.jsonl --judges judges.yaml",
        stats.card: "card videop2r-demo --judge-report judge-eval/report.json",
        overlap.overlap: "overlap my-recipe.yaml --against eval_mvbench.json",
        gallery.gallery: "gallery videop2r-demo --serve",
        hub.push: "push my-cot me/my-cot --revision v1.0",
        hub.pull: "pull Video-R1/Video-R1-data --media --rows my-cot --limit 20",
    },
)


def run() -> None:
    """The entry point of `p2r-data`."""
    app()
