"""The summary of a build, for people: what was kept, why rows fell, what to do next."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from videop2r_data.backends.breaker import what_to_change
from videop2r_data.builders.build import BuildReport
from videop2r_data.cli.common import shell
from videop2r_data.cli.render_tables import plural, type_table
from videop2r_data.schemas import RejectReason
from videop2r_data.schemas.lock import Ledger
from videop2r_data.schemas.recipe import Recipe

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
    """The summary for people."""
    again = "run the same command again: every finished call is kept"
    if report.state in ("complete", "withheld") and report.ledger is not None:
        _show_head(report, report.ledger, console)
        if report.ledger.kept:
            console.print()
            console.print(type_table(report.ledger.table, title="kept", width=console.width))
            console.print()
        show_reasons(report.ledger, console)
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
    _show_money(report, console)
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
    """What failed for want of an answer that can be used, in the server's words, and how to ask again."""
    counts: dict[str, int] = {}
    for name, count in ledger.reasons.items():
        reason = name.partition("/")[2]
        counts[reason] = counts.get(reason, 0) + count
    for reason, (kind, what) in _AGAIN.items():
        if not counts.get(reason):
            continue
        said = report.examples.get(reason, "")
        console.print(f"{plural(counts[reason], 'question')} {what}; --retry {kind} asks again")
        if said:
            console.print(Text(f"  one of them: {said}"), soft_wrap=True)
        if said and reason == RejectReason.CALL_REFUSED:
            console.print(Text(f"  {what_to_change(said)}"), soft_wrap=True)


def _show_money(report: BuildReport, console: Console) -> None:
    spent, lost = report.spent.finished_usd, report.spent.lost_usd
    if spent or lost:
        more = f", and at most ${lost:,.2f} for calls that never came back" if lost else ""
        console.print(f"spent ${spent:,.2f} over all runs{more}")


def _show_next(report: BuildReport, recipe: Recipe, console: Console) -> None:
    load = f"from datasets import load_dataset as l; print(l({report.out!r}))"
    lines = [f"see one    p2r-data show {shell(report.out)}"]
    if report.ledger is not None and report.ledger.kept and report.state == "complete":
        lines = [
            f"check it   p2r-data verify {shell(report.out)}",
            *lines,
            f"load it    python -c {_double(load)}",
        ]
    elif report.state == "withheld":
        lines = []
    if lines and any(s.kind == "demo" for s in recipe.sources):
        lines.append(f"score it   p2r-data demo-report {shell(report.out)}")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _double(text: str) -> str:
    """A shell word; in double quotes where these change nothing, since the text holds single ones."""
    return shell(text) if any(c in text for c in '"$`\\!') else f'"{text}"'


def show_reasons(ledger: Ledger, console: Console) -> None:
    """The sum of the ledger and why rows fell."""
    console.print(
        f"{plural(ledger.rows_in, 'row')} in = {ledger.kept:,} kept + {ledger.rejected:,} rejected + "
        f"{ledger.failed:,} failed"
        + (f"; {plural(ledger.surplus, 'more row')} behind the target" if ledger.surplus else "")
    )
    for reason, count in sorted(ledger.reasons.items(), key=lambda item: (-item[1], item[0])):
        console.print(f"  {count:>9,}  {reason}")
