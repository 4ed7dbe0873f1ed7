"""`p2r-data push`, `p2r-data pull` and `p2r-train push`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videop2r_data.cli.common import JsonOpt, errors_as_messages

RepoArg = Annotated[str, typer.Argument(help="owner/name on the Hub.")]
PrivateOpt = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
TagOpt = Annotated[
    str | None, typer.Option("--revision", metavar="TAG", help="Tag to set after the last commit, e.g. v1.0.")
]
DryRunOpt = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
NoVerifyOpt = Annotated[
    bool, typer.Option("--no-verify", help="Check digests, ledger and card, but not every row.")
]
EmbedOpt = Annotated[
    bool, typer.Option("--embed-media", help="Push the clips too, if every licence allows it.")
]
PreviewOpt = Annotated[
    int,
    typer.Option(
        "--preview",
        min=0,
        max=100,
        metavar="N",
        help="Add a config of N rows with their clips inside, which the Hub's viewer plays.",
    ),
]
WorkOpt = Annotated[
    Path | None, typer.Option("--work", metavar="DIR", help="To find the clips: work folder of the build.")
]
BaseOpt = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="To find the clips: folder that the recipe's paths are relative to."),
]
AllowOpt = Annotated[
    bool,
    typer.Option(
        "--allow-unstated-licenses",
        help="Push although no licence is known for some sources; the card says for which.",
    ),
]
RowsOpt = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE", help="With --media: whose clips; a folder, a file or a Hub id. Default: DIR."
    ),
]
ConfigOpt = Annotated[
    str | None, typer.Option(metavar="NAME", help="With --media: sft, rl or rejected; default: the first.")
]
LimitOpt = Annotated[int | None, typer.Option(min=1, metavar="N", help="With --media: only the first rows.")]
SourceOpt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="With --media: only rows of this data_source or top folder; repeatable."
    ),
]
IdOpt = Annotated[
    list[str] | None,
    typer.Option("--id", metavar="ID", help="With --media: only this sample_id or problem_id; repeatable."),
]
UnderOpt = Annotated[
    str,
    typer.Option(metavar="DIR", help="With --media: folder of REPO that the rows' paths are relative to."),
]
MaxGbOpt = Annotated[
    float | None,
    typer.Option(min=0, metavar="GB", help="With --media: refuse to read more over the wire."),
]

_PUSH_HELP = (
    "Put a data set on the Hub, or bring it up to date there.\n\n"
    "Equal files are not uploaded, shards of an older version are deleted, files of others stay. Users see "
    "the old version or the new one, never a mixture. A push that was interrupted goes on: run the same "
    "command again.\n\n"
    "The card is made for the repository: its generated parts anew, what you wrote around them kept.\n\n"
    "The token is taken from HF_TOKEN or `hf auth login`. The clips stay here unless --embed-media is said "
    "and the licence of the media of each source lets them be passed on."
)
_PULL_HELP = (
    "Fetch a data set from the Hub and check it; with --media the clips that its rows need.\n\n"
    "Without --media: card, lock and rows of one of ours, of the official release, or of any data set of "
    "parquet or JSON files, each file held against its digest.\n\n"
    "With --media: clips only, read out of the zip archives of REPO by byte ranges, into the media root DIR. "
    "The size is told first. Exit code 1: some clips are not there. 3: some could not be fetched.\n\n"
    "Both go on where they were interrupted: run the same command again."
)


def add(app: typer.Typer) -> None:
    """Register the commands of `p2r-data`."""
    app.command("push", help=_PUSH_HELP, epilog="Example: p2r-data push my-cot me/my-cot --revision v1.0")(
        push
    )
    app.command(
        "pull",
        help=_PULL_HELP,
        epilog="Example: p2r-data pull Video-R1/Video-R1-data --media --rows my-cot --limit 20",
    )(pull)


def add_train(app: typer.Typer) -> None:
    """Register the command of `p2r-train`."""
    app.command("push", epilog="Example: p2r-train push runs/pa-grpo me/my-model --private")(push_run)


def push(
    folder: Annotated[Path, typer.Argument(help="A finished data set.")],
    repo: RepoArg,
    private: PrivateOpt = False,
    revision: TagOpt = None,
    dry_run: DryRunOpt = False,
    embed_media: EmbedOpt = False,
    preview: PreviewOpt = 0,
    work: WorkOpt = None,
    base: BaseOpt = None,
    allow_unstated: AllowOpt = False,
    no_verify: NoVerifyOpt = False,
    json: JsonOpt = False,
) -> None:
    """Put a data set on the Hub, or bring it up to date there."""
    from videop2r_data.cli.hub_run import Push, run_push

    with errors_as_messages(as_json=json):
        wish = Push(
            private=private,
            tag=revision,
            dry_run=dry_run,
            embed_media=embed_media,
            preview=preview,
            work=work,
            base=base,
            allow_unstated=allow_unstated,
            verify=not no_verify,
        )
        run_push(folder, repo, wish, as_json=json)


def pull(
    repo: RepoArg,
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Where to; default: ./ and the name of the repository."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Commit, tag or branch; default: main.")
    ] = None,
    media: Annotated[bool, typer.Option("--media", help="Fetch clips instead of rows.")] = False,
    rows: RowsOpt = None,
    config: ConfigOpt = None,
    limit: LimitOpt = None,
    source: SourceOpt = None,
    sample: IdOpt = None,
    under: UnderOpt = "",
    dry_run: DryRunOpt = False,
    max_gb: MaxGbOpt = None,
    no_verify: NoVerifyOpt = False,
    json: JsonOpt = False,
) -> None:
    """Fetch a data set from the Hub and check it; with --media the clips that its rows need."""
    from videop2r_data.cli import hub_run

    folder = folder or Path(repo.rpartition("/")[2])
    if not media:
        given = {"--rows": rows, "--config": config, "--limit": limit, "--source": source, "--id": sample}
        _only_with_media(given | {"--under": under, "--max-gb": max_gb, "--dry-run": dry_run})
    with errors_as_messages(as_json=json):
        if media:
            where = rows or (str(folder) if folder.exists() else "")
            choice = hub_run.Rows(where, config, limit, tuple(source or ()), tuple(sample or ()))
            hub_run.run_pull_media(
                repo,
                folder,
                choice,
                revision=revision,
                under=under,
                dry_run=dry_run,
                max_bytes=None if max_gb is None else int(max_gb * 1e9),
                as_json=json,
            )
        else:
            hub_run.run_pull(repo, folder, revision=revision, verify=not no_verify, as_json=json)


def _only_with_media(given: dict[str, object]) -> None:
    for name, value in given.items():
        if value:
            raise typer.BadParameter("only with --media", param_hint=name)


def push_run(
    folder: Annotated[Path, typer.Argument(help="A run of p2r-train, or a model folder.")],
    repo: RepoArg,
    private: PrivateOpt = False,
    revision: TagOpt = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Hub id of the base model; default: as the card or recipe says."),
    ] = None,
    license_id: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="Licence of the weights; default: the base model's."),
    ] = None,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Put a trained model on the Hub: weights (safetensors only), card, curves and metrics.

    The card of a run is written anew first: curves, an evaluation and a licence must be there. Equal files
    are not uploaded, weights of an older version are deleted. The token is taken from HF_TOKEN or
    `hf auth login`.
    """
    from videop2r_data.cli.hub_run import run_push_model

    with errors_as_messages(as_json=json):
        run_push_model(
            folder,
            repo,
            private=private,
            tag=revision,
            card=(base_model, license_id),
            dry_run=dry_run,
            as_json=json,
        )
