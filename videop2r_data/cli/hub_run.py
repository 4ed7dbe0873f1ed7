"""Carry out `push` and `pull`, and print what they changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.text import Text

from videop2r_data.cli.common import FINDINGS, OK, UNFINISHED, err_console, out_console, shell
from videop2r_data.cli.terminal import LiveLine, plural, print_json, size
from videop2r_data.errors import HubError

if TYPE_CHECKING:
    from videop2r_data.builders.verify import VerifyReport
    from videop2r_data.cards.hub import MediaEstimate, PullReport, PushReport


_SMALL = 20_000_000
"""Below so many bytes of rows one process verifies: starting more would take longer."""


@dataclass(frozen=True)
class Push:
    """The flags of `p2r-data push`."""

    private: bool
    tag: str | None
    dry_run: bool
    embed_media: bool
    preview: int
    work: Path | None
    base: Path | None
    allow_unstated: bool
    verify: bool


def run_push(folder: Path, repo: str, wish: Push, *, as_json: bool) -> None:
    """Check, verify and push a data set.

    Raises:
        HubError: a file, row or licence forbids it, or the Hub refuses.
    """
    from videop2r_data.cards.card import read_facts
    from videop2r_data.cards.hub import check_folder, check_licences, push_dataset

    hub = _connect()
    with err_console().status("checking"):
        lock = check_folder(folder)
        check_licences(folder, read_facts(folder), allow=wish.allow_unstated)
        if wish.verify and not (report := _verify(folder)).ok:
            raise _unfit(folder, report)
        wanted = wish.embed_media or wish.preview > 0
        roots = _media_roots(folder, lock.recipe, wish.work, wish.base) if wanted else {}
    with Bytes(err_console(), "pushing") as watch:
        done = push_dataset(
            folder,
            repo,
            hub=hub,
            private=wish.private,
            tag=wish.tag,
            dry_run=wish.dry_run,
            roots=roots,
            embed_media=wish.embed_media,
            preview=wish.preview,
            allow_unstated=wish.allow_unstated,
            watch=watch,
        )
    _show(done, as_json, render_push)


def run_push_model(
    folder: Path,
    repo: str,
    *,
    private: bool,
    tag: str | None,
    card: tuple[str | None, str | None],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Push a trained model; `card`: base model and licence, for the card of a run."""
    from videop2r_data.cards.hub import FINAL, push_model
    from videop2r_data.cli.train_eval import make_card

    hub = _connect()
    if (folder / FINAL).is_dir():
        make_card(folder, base_model=card[0], license_id=card[1], strict=True)
    with Bytes(err_console(), "pushing") as watch:
        report = push_model(folder, repo, hub=hub, private=private, tag=tag, dry_run=dry_run, watch=watch)
    _show(report, as_json, render_push)


def run_pull(repo: str, folder: Path, *, revision: str | None, verify: bool, as_json: bool) -> None:
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
    _show(report, as_json, render_pull)


@dataclass(frozen=True)
class Rows:
    """The rows whose clips are wanted: the flags of `p2r-data pull --media`."""

    where: str
    config: str | None
    limit: int | None
    sources: tuple[str, ...]
    ids: tuple[str, ...]

    def paths(self) -> list[str]:
        """Media paths of the chosen rows, in the order of the rows.

        Raises:
            HubError: there is no such config, or no row is chosen.
            SourceError: the rows cannot be read.
        """
        from videop2r_data.files import open_release

        if not self.where:
            raise HubError("whose clips?", hint="name the rows with --rows: a folder, a file or a Hub id")
        release = open_release(self.where)
        config = self.config or release.configs[0]
        if config not in release.configs:
            raise HubError(f"no config {config!r}, only {', '.join(release.configs)}", where=self.where)
        found: list[str] = []
        for row in self._rows(release, config):
            if self._chosen(row):
                found.append(row["path"])
                if len(found) == self.limit:
                    break
        if not found:
            raise HubError("no row is chosen", where=self.where, hint="look at --source and --id")
        return found

    def _rows(self, release: Any, config: str) -> Iterator[dict[str, str]]:
        names = ("path", "sample_id", "problem_id", "data_source")
        for _, batch in release.batches(config, names):
            if "path" not in batch.columns:
                raise HubError(
                    "these rows have no column 'path'", where=self.where, hint="name others with --rows"
                )
            columns = [batch.columns.get(name) or [""] * len(batch.index) for name in names]
            for values in zip(*columns, strict=True):
                yield {
                    n: str(v) if isinstance(v, str | int) else "" for n, v in zip(names, values, strict=True)
                }

    def _chosen(self, row: dict[str, str]) -> bool:
        top = row["path"].removeprefix("./").partition("/")[0]
        if self.sources and not {row["data_source"], top} & set(self.sources):
            return False
        return not self.ids or bool({row["sample_id"], row["problem_id"]} & set(self.ids))


def run_pull_media(
    repo: str,
    folder: Path,
    rows: Rows,
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
        plan = plan_media(rows.paths(), repo, folder, hub=hub, cache=cache, revision=revision, under=under)
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


def _show(report: Any, as_json: bool, render: Any) -> None:
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        render(report, out_console())


# What is printed.


_STYLES = {"added": "green", "changed": "yellow", "deleted": "red", "equal": "dim"}
_SHOWN = 40


class Bytes(LiveLine):
    """A progress line in bytes; call it with each step."""

    def __init__(self, console: Console, what: str) -> None:
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
