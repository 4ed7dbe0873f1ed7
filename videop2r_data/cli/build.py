"""`p2r-data build`: run it, show its progress, sum it up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.text import Text

from videop2r_data.backends import Journal, equal_words, what_to_change
from videop2r_data.builders import (
    RETRY_KINDS,
    BuildReport,
    Observer,
    OnRay,
    Parts,
    RetryKind,
    Shard,
    Stop,
    Tally,
    Workspace,
    abandon_batch,
    build,
    find_retries,
    in_words,
    parse_kinds,
)
from videop2r_data.cards.card import write_dataset_card
from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    OVER_BUDGET,
    UNFINISHED,
    Level,
    err_console,
    level,
    out_console,
    run_draining,
    shell,
    show,
    with_overrides,
)
from videop2r_data.cli.status import with_metrics
from videop2r_data.cli.terminal import PIPED_EVERY_S, LiveLine, plural, print_json, type_table
from videop2r_data.errors import ConfigError, P2RError
from videop2r_data.files import work_folder
from videop2r_data.recipes import read_recipe
from videop2r_data.schemas import Ledger, Recipe, RejectReason

SETTINGS = {
    "max_cost": "max_cost",
    "target": "target",
    "media__workers": "workers",
    "generate__backend__concurrency": "concurrency",
    "judges__concurrency": "judge_concurrency",
    "generate__backend__server_wait_s": "server_wait",
    "judges__server_wait_s": "server_wait",
}
"""Field of the recipe -> flag of the command."""


def apply_flags(recipe: Recipe, overrides: dict[str, Any], limit: int | None) -> Recipe:
    """The recipe with the flags of the command applied; `judges__X` is field X of every model of every judge.

    Raises:
        ConfigError: a flag is about judges, and the recipe has none; or a value is not allowed.
    """
    flags = {key: value for key, value in overrides.items() if value is not None}
    overrides = {key: value for key, value in flags.items() if not key.startswith("judges__")}
    changes = {key.removeprefix("judges__"): flags[key] for key in flags.keys() - overrides.keys()}
    if recipe.judge is not None:
        overrides |= {f"judge__backend__{field}": value for field, value in changes.items()}
    elif recipe.judges:
        judges = (one.with_backends(lambda spec: spec.model_copy(update=changes)) for one in recipe.judges)
        overrides["judges"] = [judge.model_dump(mode="json") for judge in judges]
    elif "concurrency" in changes:
        raise ConfigError(
            "--judge-concurrency is for judges, and the recipe has none",
            where=recipe.name,
            hint="leave the flag away, or give the recipe a judge",
        )
    if limit is not None:
        sources = [s.model_copy(update={"limit": limit}).model_dump(mode="json") for s in recipe.sources]
        overrides["sources"] = sources
    return with_overrides(recipe, **overrides)


def run_build(
    name: str,
    *,
    out: Path | None,
    work: str | None,
    wait: bool,
    as_json: bool,
    abandon: str | None,
    shard: str | None,
    executor: str,
    retry: str | None,
    dry_run: bool,
    keep_going: bool,
    replace: bool,
    serve: bool,
    metrics: str | None,
    **flags: Any,
) -> None:
    """Build, show progress, sum it up, name the next step; `flags`: the rest, and those of `SETTINGS`."""
    recipe, base = read_recipe(name)
    recipe = apply_flags(recipe, {field: flags[flag] for field, flag in SETTINGS.items()}, flags["limit"])
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    on_ray = _on_ray(executor, serve, flags["ray_actors"], flags["ray_gpus"])
    console, stop, share = err_console(), Stop(), None if shard is None else Shard.parse(shard)
    kinds = parse_kinds(retry) if retry is not None else ()
    if dry_run:
        return _dry_run(recipe, place, kinds or RETRY_KINDS, share, as_json=as_json)
    if abandon is not None:
        freed = abandon_batch(recipe, place, abandon)
        console.print(f"batch {escape(abandon)} is given up; {plural(freed, 'request')} will be asked again")
    with BuildProgress(console, gallery=flags["gallery"]) as progress:
        building = build(
            recipe,
            place,
            observer=progress,
            card=write_dataset_card,
            stop=stop,
            wait=wait,
            shard=share,
            retry=kinds,
            keep_going=keep_going,
            replace=replace,
            serve=serve,
            executor=on_ray,
        )
        if metrics is not None:
            building = with_metrics(building, metrics, progress)
        report = run_draining(building, stop, console.print)
    show(report, lambda done, out: show_report(done, recipe, out), as_json=as_json)
    raise typer.Exit(exit_code(report))


def _on_ray(executor: str, serve: bool, actors: int | None, gpus: float | None) -> OnRay | None:
    """What the flags say about Ray; raises ConfigError where they do not go together."""
    if executor != "ray":
        if actors is None and gpus is None:
            return None
        raise ConfigError(
            "--ray-actors and --ray-gpus say how --executor ray works", hint="add --executor ray"
        )
    if serve:
        raise ConfigError("--serve starts servers for this machine alone", hint="leave out --serve")
    return OnRay(actors, gpus)


def exit_code(report: BuildReport) -> int:
    """The exit code: 0 done, 1 no row was kept or the set was withheld, 3 run it again, 4 over budget."""
    if report.state == "over_budget":
        return OVER_BUDGET
    if report.state not in ("complete", "shard_complete", "withheld") or report.unanswered:
        return UNFINISHED
    poor = report.state == "withheld" or (report.ledger is not None and not report.ledger.kept)
    return FINDINGS if poor else OK


def _dry_run(
    recipe: Recipe, place: Workspace, kinds: Collection[RetryKind], share: Shard | None, *, as_json: bool
) -> None:
    """Print how many rows `--retry` would ask again, per kind; makes no call and changes nothing."""
    place.need_folder("--dry-run")
    with BuildProgress(err_console()) as progress, Journal(place.journal, readonly=True) as journal:
        found = asyncio.run(find_retries(recipe, place, journal, kinds, observer=progress, shard=share))
    rows = {kind: found.rows[kind] for kind in RETRY_KINDS if kind in kinds}
    if as_json:
        print_json({"retry": rows, "calls_and_files": len(found.keys)})
        return
    console = out_console()
    for kind, count in rows.items():
        console.print(f"{count:>9,}  {kind}")
    console.print(
        f"--retry {','.join(kinds) if tuple(kinds) != RETRY_KINDS else 'all'} would ask again for "
        f"{plural(len(found.keys), 'call or file', 'calls and files')}; nothing was changed",
        soft_wrap=True,
    )


# Progress.


WAIT_APART_S = 1.0
LIVE_EVERY_S = 0.1


class BuildProgress(LiveLine, Observer):
    """The progress line of a build."""

    def __init__(self, console: Console, kept: str = "kept", *, gallery: bool = False) -> None:
        words = TextColumn("{task.description}", markup=False)
        LiveLine.__init__(self, console, "starting", SpinnerColumn(), BarColumn(bar_width=10), words)
        Observer.__init__(self)
        self._kept, self._gallery, self._shown = kept, gallery, 0
        self._told: dict[str, float] = {}
        """Printed message about waiting, its numbers left out -> monotonic seconds when it was printed."""

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins: "calls", with the number of questions if it is known."""
        super().begin(what, total)
        self.restart(description=what, total=total)
        self.printed -= PIPED_EVERY_S / 2  # the first line of a phase comes sooner
        if not self.live:
            self.console.print(f"{what} ..." if total is None else f"{what}: {plural(total, 'question')}")

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more question is done."""
        super().step(tally, parts)
        if self._gallery and len(tally.first) > self._shown:
            from videop2r_data.cli.gallery import write_first

            self._shown = len(tally.first)
            with suppress(P2RError):  # a page that cannot be written ends no build
                write_first(tally.first, parts)
        if self.is_time(LIVE_EVERY_S if self.live else PIPED_EVERY_S):
            words = in_words(self.now(), self._kept)
            self.update(completed=tally.rows, description=words)
            if not self.live:
                self.console.print(words, soft_wrap=True, markup=False)

    def wait(self, message: str) -> None:
        """Nothing to do but to wait: a batch, or a server that does not answer."""
        super().wait(message)
        verbose = level() is Level.VERBOSE  # prints every wait; the live line keeps the last one only
        if self.live and not verbose:
            self.update(description=f"waiting: {message}")
        elif verbose or self._is_news(message):
            self.console.print(f"waiting: {message}", soft_wrap=True, markup=False)

    def _is_news(self, message: str) -> bool:
        """Whether to print a message: a new one, or the same after a minute; at most one line a second."""
        now, words = time.monotonic(), equal_words(message)
        if now - self._told.get(words, -PIPED_EVERY_S) < PIPED_EVERY_S:
            return False
        if now - max(self._told.values(), default=-WAIT_APART_S) < WAIT_APART_S:
            return False
        self._told[words] = now
        return True


# The summary.


_AGAIN: dict[str, tuple[str, str]] = {
    RejectReason.CALL_REFUSED: ("refused", "refused by the server"),
    RejectReason.COMPLETION_EMPTY: ("empty", "answered with an empty reply"),
    RejectReason.CONTENT_FILTERED: ("filtered", "declined by the model"),
    RejectReason.NO_VERDICT: ("no_verdict", "judged without a verdict"),
    RejectReason.DECODE_CRASH: ("decoder", "lost with a decoder that crashed"),
    RejectReason.DECODE_MEMORY: ("decoder", "lost with a decoder that ran out of memory"),
    RejectReason.DECODE_TIMEOUT: ("decoder", "lost with a decoder that ran out of time"),
}
"""Reason -> kind of `--retry`, and what happened to such a question."""


def show_report(report: BuildReport, recipe: Recipe, console: Console) -> None:
    """Print the summary of a build and the next commands."""
    again = "run the same command again: every finished call is kept"
    if report.state in ("complete", "withheld") and report.ledger is not None:
        _show_head(report, report.ledger, console)
        if report.ledger.kept:
            console.print()
            console.print(type_table(report.ledger.table, title="kept", width=console.width))
            console.print()
        show_reasons(report.ledger, console)
        if report.ledger.kept < (recipe.target or 0):
            console.print(f"target {recipe.target:,} is not met: the pool has no more rows")
        _show_retries(report, report.ledger, console)
    elif report.state == "shard_complete":
        console.print(
            f"[bold]Every call of this share is made[/] ({plural(report.seen, 'question')}). When all shares "
            "are, run the same command without --shard: it writes the data set."
        )
    elif report.state == "interrupted":
        console.print(f"[bold]Stopped[/] after {plural(report.seen, 'question')}; to go on, {again}.")
    elif report.state == "waiting":
        console.print(
            f"[bold]Waiting[/] for batches with the answers of {plural(report.waiting, 'question')}. "
            "Run the same command later, here or on another machine that has the work folder."
        )
    else:
        console.print(
            f"[bold]Over budget[/] after {plural(report.seen, 'question')}: raise --max-cost, then {again}."
        )
    console.print(
        f"{plural(report.calls_made, 'call')} made, {plural(report.calls_found, 'answer')} found in the "
        f"journal, {plural(report.media_decoded, 'file')} decoded, {report.seconds:,.1f} s"
    )
    spent, lost = report.spent.finished_usd, report.spent.lost_usd
    if spent or lost:
        more = f", and at most ${lost:,.2f} for calls that never came back" if lost else ""
        console.print(f"spent ${spent:,.2f} over all runs{more}")
    if report.damaged_records:
        console.print(
            f"{plural(report.damaged_records, 'damaged journal record')}: those calls were made again"
        )
    if report.state in ("complete", "withheld"):
        if report.unanswered:
            console.print(f"[bold red]{plural(report.unanswered, 'question')} got no answer[/]: {again}.")
            if report.last_error:
                console.print(Text(f"  the last error: {report.last_error}"), soft_wrap=True)
        _show_next(report, recipe, console)


def _show_head(report: BuildReport, ledger: Ledger, console: Console) -> None:
    if report.state == "withheld":
        console.print(
            f"[bold red]Not written[/]: {escape(report.out)}: {escape(report.withheld)}", soft_wrap=True
        )
    elif ledger.kept:
        console.print(f"[bold]Built[/] {escape(report.out)}", soft_wrap=True)
    else:
        console.print(
            f"[bold red]No row was accepted[/]: {escape(report.out)} holds only why", soft_wrap=True
        )
    for kind, count in report.retried.items():
        console.print(f"  {plural(count, 'question')} asked again by --retry {kind}")


def _show_retries(report: BuildReport, ledger: Ledger, console: Console) -> None:
    """Print per reason how many rows got no usable answer, one error in the server's words, and the flag."""
    counts = Counter[str]()
    for name, count in ledger.reasons.items():
        counts[name.partition("/")[2]] += count
    for reason, (kind, what) in _AGAIN.items():
        if not counts[reason]:
            continue
        said = report.examples.get(reason, "")
        console.print(f"{plural(counts[reason], 'question')} {what}; --retry {kind} asks again")
        if said:
            console.print(Text(f"  one of them: {said}"), soft_wrap=True)
        if said and reason == RejectReason.CALL_REFUSED:
            console.print(Text(f"  {what_to_change(said)}"), soft_wrap=True)


def _show_next(report: BuildReport, recipe: Recipe, console: Console) -> None:
    load = f"from datasets import load_dataset as l; print(l({report.out!r}))"
    if report.state == "withheld":
        return
    beside = report.work == str(work_folder(Path(report.out)))
    built = shell(report.out) + ("" if beside else f" --work {shell(report.work)}")
    lines = [f"see one    p2r-data show {built}"]
    if report.ledger is not None and report.ledger.kept:
        lines.insert(0, f"check it   p2r-data verify {shell(report.out)}")
        lines.append(f"load it    python -c {_double(load)}")
    if any(s.kind == "demo" for s in recipe.sources):
        lines.append(f"score it   p2r-data demo-report {built}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _double(text: str) -> str:
    """A shell word: in double quotes unless the text holds a character that is special there."""
    return shell(text) if any(c in text for c in '"$`\\!') else f'"{text}"'


def show_reasons(ledger: Ledger, console: Console) -> None:
    """Print the ledger: rows in, kept, rejected, failed, and the count of each reason."""
    console.print(
        f"{plural(ledger.rows_in, 'row')} in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed"
        + (f"; {plural(ledger.surplus, 'more row')} behind the target" if ledger.surplus else "")
    )
    for reason, count in sorted(ledger.reasons.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"  {count:>9,}  {reason}")
