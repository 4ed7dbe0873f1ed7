"""`p2r-data`: parse, call, print, exit code. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli import check, gallery, hub, judge_eval, stats
from videop2r_data.cli.common import (
    JsonOpt,
    OutOpt,
    Program,
    QuietOpt,
    VerboseOpt,
    VersionOpt,
    WorkOpt,
    errors_as_messages,
)

app = typer.Typer(
    name="p2r-data",
    help="Make, check and rebuild process-aware chain-of-thought data for video and image QA.",
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArg = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")]
WhereArg = Annotated[
    str, typer.Argument(help="A local folder, a Hub id, or the folder of the official release.")
]
DirArg = Annotated[Path, typer.Argument(help="A data set that was built here.")]
RevisionOpt = Annotated[str | None, typer.Option(metavar="REV", help="For a Hub id: commit, tag or branch.")]

MaxCostOpt = Annotated[
    float | None,
    typer.Option(min=0, metavar="USD", help="US dollars for the whole build, over all its runs."),
]
ConcurrencyOpt = Annotated[
    int | None, typer.Option(min=1, max=4096, metavar="N", help="Generator calls in flight at most.")
]
JudgeConcurrencyOpt = Annotated[
    int | None, typer.Option(min=1, max=4096, metavar="N", help="Judge calls in flight at most.")
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
ShardOpt = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Make only the calls of share I of N, on a shared work folder."),
]
RayOpt = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Make the calls in N tasks on a Ray cluster.")
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
ReplaceOpt = Annotated[
    bool, typer.Option("--replace", help="Replace a data set by one that lost most of its rows.")
]
AbandonOpt = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Give up a batch that its server no longer has; it is asked again."),
]

_BUILD_HELP = (
    "Build a data set, or go on with a build: the same command resumes.\n\n"
    "Without a recipe the embedded demo world is built. Every finished call is kept at once in the journal: "
    "stop with Ctrl-C, or lose the machine, and run the same command again.\n\n"
    "Exit code 0: done. 1: an error, or no row was accepted. 2: wrong usage. 3: not done yet (Ctrl-C, a "
    "server that is away, batches still at the server, questions without an answer): run the same command "
    "again. 4: --max-cost is reached."
)


@app.callback()
def _root(version: VersionOpt = False, quiet: QuietOpt = False, verbose: VerboseOpt = False) -> None:
    """Make, check and rebuild process-aware chain-of-thought data for video and image QA."""


@app.command(
    help=_BUILD_HELP, epilog="Example: p2r-data build my-recipe.yaml --out data/my-cot --max-cost 200"
)
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
    ray: RayOpt = None,
    retry: RetryOpt = None,
    dry_run: DryRunOpt = False,
    keep_going: KeepGoingOpt = False,
    server_wait: ServerWaitOpt = None,
    replace: ReplaceOpt = False,
    abandon_batch: AbandonOpt = None,
    json: JsonOpt = False,
) -> None:
    """Build a data set, or go on with a build: the same command resumes."""
    from videop2r_data.cli.build import run_build

    with errors_as_messages(as_json=json):
        run_build(
            recipe,
            out=out,
            work=work,
            wait=wait,
            abandon=abandon_batch,
            shard=shard,
            ray_tasks=ray,
            retry=retry,
            dry_run=dry_run,
            keep_going=keep_going,
            replace=replace,
            as_json=json,
            limit=limit,
            overrides={
                "max_cost": max_cost,
                "target": target,
                "media__workers": workers,
                "generate__backend__concurrency": concurrency,
                "judge__backend__concurrency": judge_concurrency,
                "generate__backend__server_wait_s": server_wait,
                "judge__backend__server_wait_s": server_wait,
            },
        )


@app.command(epilog="Example: p2r-data verify videop2r-demo --json")
def verify(
    where: WhereArg,
    revision: RevisionOpt = None,
    workers: Annotated[int, typer.Option(min=0, metavar="N", help="Processes; 0: one per core.")] = 0,
    json: JsonOpt = False,
) -> None:
    """Check every row of a data set: parse, score, and hold every field against every other.

    Exit code 1 if anything is wrong.
    """
    from videop2r_data.cli.inspect import run_verify

    with errors_as_messages(as_json=json):
        run_verify(where, revision=revision, workers=workers, as_json=json)


check.add(app)


@app.command(epilog="Example: p2r-data estimate my-recipe.yaml --pilot 100")
def estimate(
    recipe: RecipeArg = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    pilot: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Really build so many rows first and measure; their calls are kept."
        ),
    ] = 0,
    max_cost: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="US dollars that the pilot may spend.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Price a build before it starts: calls, tokens and dollars of each step."""
    from videop2r_data.cli.plan import run_estimate

    with errors_as_messages(as_json=json):
        run_estimate(recipe, out=out, work=work, pilot=pilot, max_cost=max_cost, as_json=json)


@app.command(epilog="Example: p2r-data reproduce videop2r-demo")
def reproduce(
    folder: DirArg,
    work: WorkOpt = None,
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that the recipe's paths are relative to.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Rebuild a data set from its lock and journal, with no call, and compare every sha256.

    Exit code 1 if a file differs.
    """
    from videop2r_data.cli.inspect import run_reproduce

    with errors_as_messages(as_json=json):
        run_reproduce(folder, work=work, base=base, as_json=json)


stats.add(app)


@app.command(epilog="Example: p2r-data show videop2r-demo demo/17")
def show(
    folder: DirArg,
    sample: Annotated[str, typer.Argument(help="sample_id or problem_id; default: the first row.")] = "",
    work: WorkOpt = None,
    json: JsonOpt = False,
) -> None:
    """Print one sample with its verdicts and the calls behind it."""
    from videop2r_data.cli.inspect import run_show

    with errors_as_messages(as_json=json):
        run_show(folder, sample, work=work, as_json=json)


@app.command(epilog="Example: p2r-data schema sft > sft.schema.json")
def schema(
    name: Annotated[str, typer.Argument(help="recipe, lock, trace, sample, sft, rl, rejected, report.")] = "",
) -> None:
    """Print the JSON Schema of a record; without a name, the list of names."""
    from videop2r_data.cli.plan import run_schema

    with errors_as_messages():
        run_schema(name)


@app.command(epilog="Example: p2r-data init my-recipe.yaml --from-data questions.csv")
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.yaml"),
    template: Annotated[
        str, typer.Option("--from", metavar="NAME", help="Packaged recipe to start from.")
    ] = "videop2r-mini",
    data: Annotated[
        str | None,
        typer.Option(
            "--from-data",
            metavar="FILE|FOLDER|ID",
            help="Look at these questions and guess how to read them.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Split of the data; default: train, else what there is."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: JsonOpt = False,
) -> None:
    """Write a commented recipe to start from; with --from-data one over questions of your own."""
    from videop2r_data.cli.plan import run_init

    with errors_as_messages(as_json=json):
        run_init(path, template=template, force=force, data=data, split=split, as_json=json)


@app.command("demo-report", epilog="Example: p2r-data demo-report videop2r-demo")
def demo_report(folder: DirArg, work: WorkOpt = None, json: JsonOpt = False) -> None:
    """Precision and recall of each step against the defects that the demo world planted."""
    from videop2r_data.cli.inspect import run_demo_report

    with errors_as_messages(as_json=json):
        run_demo_report(folder, work=work, as_json=json)


judge_eval.add(app)
app.command("card", epilog="Example: p2r-data card videop2r-demo --judge-report judge-eval/report.json")(
    stats.card
)
gallery.add(app)
hub.add(app)


def run() -> None:
    """The entry point of `p2r-data`."""
    app()
