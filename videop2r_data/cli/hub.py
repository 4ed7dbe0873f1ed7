"""`p2r-data push`, `p2r-data pull` and `p2r-train push`: carry them out, and print what they changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    UNFINISHED,
    JsonOpt,
    err_console,
    out_console,
    shell,
    show,
)
from videop2r_data.cli.terminal import LiveLine, plural, print_json, size
from videop2r_data.errors import HubError

if TYPE_CHECKING:
    from videop2r_data.builders.verify import VerifyReport
    from videop2r_data.cards.hub import MediaEstimate, PullReport, PushReport
    from videop2r_data.files import Release


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
    """Put a data set on the Hub, or bring it up to date there.

    Equal files are not uploaded, shards of an older version are deleted, files of others stay. Users see
    the old version or the new one, never a mixture. A push that was interrupted goes on: run the same
    command again.

    The card is made for the repository: its generated parts anew, what you wrote around them kept.

    The token is taken from HF_TOKEN or `hf auth login`. The clips stay here unless --embed-media is said
    and the licence of the media of each source lets them be passed on.
    """
    from videop2r_data.cards.card import read_facts
    from videop2r_data.cards.hub import check_folder, check_licences, push_dataset

    hub = _connect()
    with err_console().status("checking"):
        lock = check_folder(folder)
        check_licences(folder, read_facts(folder), allow=allow_unstated)
        if not no_verify and not (report := _verify(folder)).ok:
            raise _unfit(folder, report)
        roots = _media_roots(folder, lock.recipe, work, base) if embed_media or preview else {}
    with Bytes(err_console(), "pushing") as watch:
        done = push_dataset(
            folder,
            repo,
            hub=hub,
            private=private,
            tag=revision,
            dry_run=dry_run,
            roots=roots,
            embed_media=embed_media,
            preview=preview,
            allow_unstated=allow_unstated,
            watch=watch,
        )
    show(done, render_push, as_json=json)


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
    """Fetch a data set from the Hub and check it; with --media the clips that its rows need.

    Without --media: card, lock and rows of one of ours, of the official release, or of any data set of
    parquet or JSON files, each file held against its digest.

    With --media: clips only, read out of the zip archives of REPO by byte ranges, into the media root DIR.
    The size is told first. Exit code 1: some clips are not there. 3: some could not be fetched.

    Both go on where they were interrupted: run the same command again.
    """
    folder = folder or Path(repo.rpartition("/")[2])
    if not media:
        given = {"--rows": rows, "--config": config, "--limit": limit, "--source": source, "--id": sample}
        for name, value in (given | {"--under": under, "--max-gb": max_gb, "--dry-run": dry_run}).items():
            if value:
                raise typer.BadParameter("only with --media", param_hint=name)
        _pull_rows(repo, folder, revision=revision, verify=not no_verify, as_json=json)
        return
    where = rows or (str(folder) if folder.exists() else "")
    with err_console().status("reading the rows"):
        paths = _paths(where, config, limit, set(source or ()), set(sample or ()))
    _pull_media(
        repo,
        folder,
        paths,
        revision=revision,
        under=under,
        dry_run=dry_run,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
        as_json=json,
    )


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
    from videop2r_data.cards.hub import FINAL, push_model
    from videop2r_data.cli.train_eval import make_card

    hub = _connect()
    if (folder / FINAL).is_dir():
        make_card(folder, base_model=base_model, license_id=license_id, strict=True)
    with Bytes(err_console(), "pushing") as watch:
        report = push_model(
            folder, repo, hub=hub, private=private, tag=revision, dry_run=dry_run, watch=watch
        )
    show(report, render_push, as_json=json)


def _pull_rows(repo: str, folder: Path, *, revision: str | None, verify: bool, as_json: bool) -> None:
    """Pull a data set and verify its rows.

    Raises:
        HubError: it cannot be fetched, or rows of one of ours have faults.
    """
    from videop2r_data.cards.hub import pull_dataset

    hub = _connect()
    with Bytes(err_console(), "pulling") as watch:
        report = pull_dataset(repo, folder, hub=hub, revision=revision, watch=watch)
    if verify:
        with err_console().status("verifying"):
            checked = _verify(folder)
        report = report.model_copy(update={"rows": checked.configs, "faults": len(checked.findings)})
        if report.ours and not checked.ok:
            raise _unfit(folder, checked)
    show(report, render_pull, as_json=as_json)


def _paths(where: str, config: str | None, limit: int | None, sources: set[str], ids: set[str]) -> list[str]:
    """Media paths of the chosen rows, in the order of the rows.

    Raises:
        HubError: there is no such config, or no row is chosen.
        SourceError: the rows cannot be read.
    """
    from videop2r_data.files import open_release

    if not where:
        raise HubError("whose clips?", hint="name the rows with --rows: a folder, a file or a Hub id")
    release = open_release(where)
    config = config or release.configs[0]
    if config not in release.configs:
        raise HubError(f"no config {config!r}, only {', '.join(release.configs)}", where=where)
    found = list(islice(_chosen(release, config, where, sources, ids), limit))
    if not found:
        raise HubError("no row is chosen", where=where, hint="look at --source and --id")
    return found


def _chosen(release: Release, config: str, where: str, sources: set[str], ids: set[str]) -> Iterator[str]:
    names = ("path", "sample_id", "problem_id", "data_source")
    for _, batch in release.batches(config, names):
        if "path" not in batch.columns:
            raise HubError("these rows have no column 'path'", where=where, hint="name others with --rows")
        columns = [batch.columns.get(name) or [""] * len(batch.index) for name in names]
        for values in zip(*columns, strict=True):
            path, *named, source = (str(v) if isinstance(v, str | int) else "" for v in values)
            top = path.removeprefix("./").partition("/")[0]
            if (not sources or {source, top} & sources) and (not ids or ids.intersection(named)):
                yield path


def _pull_media(
    repo: str,
    folder: Path,
    paths: list[str],
    *,
    revision: str | None,
    under: str,
    dry_run: bool,
    max_bytes: int | None,
    as_json: bool,
) -> None:
    """Print what the clips would cost, then fetch them."""
    from huggingface_hub import cached_assets_path

    from videop2r_data.cards.hub import MediaReport, fetch_media, plan_media

    hub = _connect()
    cache = Path(cached_assets_path("videop2r-data", "archives", "directories"))
    with err_console().status("looking for the clips"):
        plan = plan_media(paths, repo, folder, hub=hub, cache=cache, revision=revision, under=under)
    estimate = plan.estimate
    render_media(estimate, err_console() if as_json or not dry_run else out_console())
    if max_bytes is not None and estimate.transfer_bytes > max_bytes:
        raise HubError(
            f"{estimate.transfer_bytes:,} bytes to read, --max-gb allows {max_bytes:,}",
            where=repo,
            hint="choose fewer rows, or raise --max-gb",
        )
    report = MediaReport(estimate=estimate, fetched=0, failed=())
    if not dry_run:
        with Bytes(err_console(), "fetching") as watch:
            report = fetch_media(plan, watch=watch)
        err = err_console()
        for path, why in report.failed:
            err.print(f"failed: {path}: {why}", markup=False, soft_wrap=True)
        for path in report.missing:
            err.print(f"not in the repository: {path}", markup=False, soft_wrap=True)
    if as_json:
        print_json(report.model_dump(mode="json"))
    elif not dry_run:
        out_console().print(
            f"{plural(report.fetched, 'clip')} fetched, {estimate.present:,} here before: {folder}",
            markup=False,
        )
    if report.failed:
        raise typer.Exit(UNFINISHED)
    raise typer.Exit(FINDINGS if estimate.missing or report.missing or estimate.refused else OK)


def _connect() -> Any:
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    from videop2r_data.cards.hub import Hub

    disable_progress_bars()  # ours counts all files of a push or pull together
    return Hub.connect(tell=lambda said: err_console().print(said, markup=False, soft_wrap=True))


_SMALL = 20_000_000
"""Below so many bytes of rows one process verifies: starting more would take longer."""


def _verify(folder: Path) -> VerifyReport:
    from videop2r_data.builders.verify import verify_release

    small = sum(path.stat().st_size for path in folder.rglob("*.parquet")) < _SMALL
    return verify_release(str(folder), workers=1 if small else None)


def _unfit(folder: Path, report: VerifyReport) -> HubError:
    return HubError(
        f"{len(report.findings)} kinds of faults in its rows",
        where=str(folder),
        hint=f"p2r-data verify {shell(folder)} shows them; --no-verify goes on nevertheless",
    )


def _media_roots(
    folder: Path, recipe: dict[str, Any], work: Path | None, base: Path | None
) -> dict[str, Path]:
    """Source name -> media root of the build."""
    from videop2r_data.builders import Workspace
    from videop2r_data.builders.sources import open_source
    from videop2r_data.schemas import SourceSpec

    place = Workspace.of(folder, work=work, base=base)
    specs = [SourceSpec.model_validate(source) for source in recipe["sources"]]
    opened = {spec.name: open_source(spec, base=place.base, demo_root=place.demo) for spec in specs}
    return {name: source.media_root for name, source in opened.items() if source.media_root is not None}


# What is printed.


_STYLES = {"added": "green", "changed": "yellow", "deleted": "red", "equal": "dim"}
_SHOWN = 40


class Bytes(LiveLine):
    """A progress line in bytes; call it with each step."""

    def __init__(self, console: Console, what: str) -> None:
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn())
        name = TextColumn("{task.fields[name]}", markup=False)
        super().__init__(console, what, *columns, TransferSpeedColumn(), name, name="")
        self.what = what

    def __call__(self, name: str, done: int, total: int) -> None:
        """Show the file in work, bytes done and bytes in all."""
        if self.live:
            self.update(completed=done, total=total, name=name)
        elif self.is_time():
            self.console.print(f"{self.what}: {size(done)} of {size(total)}, {name}", markup=False)


def render_push(report: PushReport, console: Console) -> None:
    """Print the changed files, then sums, notes and where the set is."""
    plan = report.plan
    verb = "would be" if report.dry_run else "is"
    if plan.creates:
        kind = "private" if report.private else "public"
        console.print(Text(f"{plan.repo} {'would be made' if report.dry_run else 'was made'}, {kind}"))
    changed = [change for change in plan.changes if change.action != "equal"]
    for change in changed[:_SHOWN]:
        line = Text(f"{change.action.value:8}", style=_STYLES[change.action.value])
        console.print(line + Text(f" {change.path} ({size(change.bytes)})"), soft_wrap=True)
    if len(changed) > _SHOWN:
        console.print(f"and {len(changed) - _SHOWN:,} more files")
    counts = {word: sum(change.action == word for change in plan.changes) for word in _STYLES}
    said = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    kept = f"; {plural(plan.kept, 'file')} of others left alone" if plan.kept else ""
    large = f"{size(plan.upload_bytes)} {'to upload' if report.dry_run else 'in new and changed files'}"
    console.print(f"{said}; {large}{kept}" if changed else f"nothing changes: {said}{kept}")
    for name in plan.left_out[:_SHOWN]:
        console.print(Text(f"not pushed: {name}", style="dim"), soft_wrap=True)
    for remark in report.remarks[:_SHOWN]:
        console.print(Text(f"note: {remark}", style="yellow"), soft_wrap=True)
    for note in report.notes[:_SHOWN]:
        console.print(
            Text(f"everybody who sees the repository reads this: {note}", style="yellow"), soft_wrap=True
        )
    if report.tag:
        console.print(Text(f"the tag {report.tag} {verb} set"))
    if not report.dry_run:
        console.print(Text(f"{report.url} at {report.commit}"), soft_wrap=True)


def render_pull(report: PullReport, console: Console) -> None:
    """Print what was fetched, and what the checks found."""
    here = report.files - report.fetched
    console.print(Text(f"{report.repo} at {report.commit}"), soft_wrap=True)
    console.print(
        f"{plural(report.fetched, 'file')} fetched ({size(report.fetched_bytes)}), {here:,} were here"
    )
    for name in report.removed:
        console.print(Text(f"removed: {name} (of another revision)"), soft_wrap=True)
    if report.rows:
        console.print("rows: " + ", ".join(f"{name} {count:,}" for name, count in report.rows.items()))
    if report.faults:
        hint = f"p2r-data verify {shell(report.folder)} shows them"
        console.print(
            Text(f"{report.faults} kinds of faults in the rows as released: {hint}", style="yellow")
        )
    what = "digests, lock, ledger and card hold" if report.ours else "digests hold"
    console.print(Text(f"{what}: {report.folder}"), soft_wrap=True)


def render_media(estimate: MediaEstimate, console: Console) -> None:
    """Print counts and bytes of the clips, and those that cannot be fetched."""
    console.print(Text(f"{estimate.repo} at {estimate.commit}"), soft_wrap=True)
    sizes = (estimate.clip_bytes, estimate.transfer_bytes, estimate.archive_bytes)
    clips, wire, archives = (size(number) for number in sizes)
    console.print(
        f"{plural(estimate.wanted, 'clip')} wanted: {estimate.present:,} are here, "
        f"{estimate.to_fetch:,} to fetch ({clips}; {wire} over the wire in "
        f"{plural(estimate.requests, 'request')}, out of archives of {archives})",
        soft_wrap=True,
    )
    for name, bytes_ in estimate.whole[:_SHOWN]:
        told = f"a tar archive has no directory: {name} is read as a whole ({size(bytes_)})"
        console.print(Text(told), soft_wrap=True)
    if estimate.perhaps:
        console.print(f"{plural(estimate.perhaps, 'clip')} may be in there")
    lists = [
        ("not in the repository", [(path, "") for path in estimate.missing]),
        ("refused", list(estimate.refused)),
        ("damaged archive", list(estimate.damaged)),
    ]
    for word, found in lists:
        for path, why in found[:_SHOWN]:
            console.print(Text(f"{word}: {path}{': ' if why else ''}{why}", style="yellow"), soft_wrap=True)
        if len(found) > _SHOWN:
            console.print(f"and {len(found) - _SHOWN:,} more: {word}")
