"""Print what a push changes, what a pull fetched, and how far both are."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from videop2r_data.cli.common import shell
from videop2r_data.cli.render_tables import plural

if TYPE_CHECKING:
    from videop2r_data.cards.hub_push import PushReport
    from videop2r_data.cards.pull_media import MediaEstimate
    from videop2r_data.cards.pull_release import PullReport

_STYLES = {"added": "green", "changed": "yellow", "deleted": "red", "equal": "dim"}
_SHOWN = 40
_PIPED_EVERY_S = 15.0


def size(number: int) -> str:
    """Bytes as people read them.

    >>> size(999), size(1_530_000), size(310_000_000_000)
    ('999 B', '1.5 MB', '310.0 GB')
    """
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{number} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


class Bytes:
    """Progress in bytes: a live line on a terminal, a line now and then when piped; called with each step."""

    def __init__(self, console: Console, what: str) -> None:
        self.console = console
        self.what = what
        self._told = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[name]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=None, name="")

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def __call__(self, name: str, done: int, total: int) -> None:
        """One more step: what is done now, bytes done, bytes in all."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=done, total=total, name=name)
        elif time.monotonic() - self._told > _PIPED_EVERY_S:
            self._told = time.monotonic()
            self.console.print(f"{self.what}: {size(done)} of {size(total)}, {name}", markup=False)


def render_push(report: PushReport, console: Console) -> None:
    """What changes, file by file, then in all."""
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
    """What was fetched and where it is."""
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
    """What the clips would cost, and which cannot be had."""
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
