"""The build: make the missing calls, here or on Ray, then write the data set from the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from videop2r_data.backends import NANO, BatchCaller, Journal
from videop2r_data.builders.export import PoorSetError, check_ours, recover, write_dataset
from videop2r_data.builders.news import Observer
from videop2r_data.builders.retries import RetryKind, reopen
from videop2r_data.builders.run import Run, Stop, Tally, run_pass
from videop2r_data.builders.serving import served
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.workspace import Shard, Workspace, at_work
from videop2r_data.errors import BudgetError, ConfigError, P2RError, StoppedError
from videop2r_data.schemas import ASK_AGAIN, BadRow, Ledger, Model, Recipe, Sample

if TYPE_CHECKING:
    from videop2r_data.builders.cluster import OnRay
    from videop2r_data.builders.finished import Finished

State = Literal["complete", "shard_complete", "interrupted", "waiting", "over_budget", "withheld"]
"""`shard_complete`: every call of this process's share is made; nothing was written. `withheld`: every call
is made, and the new data set was not put in the place of a better one."""
_SHARED: dict[str, object] = {"state": "shard_complete"}
CardWriter = Callable[[Path], object]
KEPT_CHARS = 2 * 2**20
"""Characters of a small pool, which is read before the first call and kept in memory; each row counts 1,000
on top."""
COUNT_S = 5.0
"""Seconds of calls before the rows of a large pool are counted."""
WATCH_S = 0.5
"""Seconds between two looks at what the calls wait for."""
_BREATHE = 64


class Spent(Model):
    """Money of a build over all its runs, US dollars."""

    finished_usd: float
    """Finished calls, exact by the server's token counts and the recipe's prices."""
    lost_usd: float
    """Upper bound for calls that went out and never came back (a killed process, a cut connection)."""


class BuildReport(Model):
    """How a run of `build` ended."""

    state: State
    out: str
    work: str
    seen: int
    """Questions looked at in this run, answers from the journal included."""
    calls_made: int
    calls_found: int
    """Answers that the journal had; those of questions that need no look are not counted."""
    media_decoded: int
    unanswered: int
    """Questions that failed for want of an answer; the next run asks again."""
    retried: dict[str, int] = Field(default_factory=dict)
    """Kind of `--retry` -> questions that were asked again in this run."""
    examples: dict[str, str] = Field(default_factory=dict)
    """Reason -> error message of one question that failed for this reason in this run's pass."""
    withheld: str = ""
    """Why the new data set was not put in the place of the old one."""
    last_error: str = ""
    """Error message of the last question that got no answer in this run."""
    waiting: int
    """Questions whose answer is in a batch."""
    spent: Spent
    damaged_records: int
    """Journal lines that could not be read; their calls were made again."""
    seconds: float
    ledger: Ledger | None
    """Ledger of the data set that was written or withheld; None if none was made."""


async def build(
    recipe: Recipe,
    place: Workspace,
    *,
    observer: Observer,
    card: CardWriter,
    stop: Stop | None = None,
    wait: bool = True,
    shard: Shard | None = None,
    retry: Collection[RetryKind] = (),
    keep_going: bool = False,
    replace: bool = False,
    serve: bool = False,
    executor: OnRay | None = None,
) -> BuildReport:
    """Build a data set, or go on with a build.

    Args:
        card: writes `README.md` into a finished folder.
        stop: ask it to stop early (Ctrl-C).
        wait: wait for batches, and for another build that works in the same folder; else return as soon as
            only batches are missing, and do not begin beside another build.
        shard: make only the calls of this share of the pool, and write nothing.
        retry: what became of calls and files in earlier runs that is to be tried again, by kind.
        keep_going: do not stop for refusals and useless replies in a row.
        replace: a data set may be replaced by one that lost most of its rows to failures.
        serve: start the servers of the recipe on this machine, and end them after the calls.
        executor: who decodes and asks: actors on a Ray cluster; None: this process.

    Raises:
        ConfigError: a share of a recipe with a target.
        BusyError: another process works in this folder (see `lease`).
        P2RError: a source, the journal, a server or the output folder cannot be used; what was finished is in
            the journal.
    """
    began = time.monotonic()
    stop = stop or Stop()
    if shard is not None and recipe.target is not None:
        raise ConfigError("a target cannot be shared out", hint="leave out --target or --shard")
    place.check()
    async with AsyncExitStack() as stack:
        work = at_work(place, "a build", shard, wait=wait, stop=stop, tell=observer.wait)
        begin = await stack.enter_async_context(work)
        stack.enter_context(observer.in_file(place.work, shard))
        recover(place.out)
        check_ours(place.out)
        place.remember(recipe=recipe)
        made, retried = 0, dict[str, int]()
        for skip in (not retry, False):  # again where the journal has lost answers of finished questions
            ours = served(recipe, place.work / "serve", stop, observer.wait) if serve else nullcontext(recipe)
            far = executor.hands(recipe, place, stop, observer.wait) if executor else nullcontext()
            with Journal(place.journal, begin=begin) as journal:
                if retry:
                    args = recipe, place, journal, retry
                    retried, retry = await reopen(*args, observer=observer, stop=stop, shard=shard), ()
                async with ours as asked, far as hands:
                    parts = Parts(asked, place, journal, live=True, shard=shard, stop=stop,
                                  keep_going=keep_going, tell=observer.wait, hands=hands)  # fmt: skip
                    report = await make_calls(parts, observer, stop, wait=wait, skip=skip)
            made, found = made + report.calls_made, dict[str, object]()
            if report.state == "complete":
                to = report, recipe, place, card
                found = _SHARED if shard else await _export(*to, observer, replace=replace)
            if not skip or found.get("unanswered", 0) in (0, report.unanswered):
                break
        observer.said.state = str(found.get("state", report.state))
    found = found | {"retried": retried, "calls_made": made, "seconds": time.monotonic() - began}
    return report.model_copy(update=found)


async def _export(
    report: BuildReport,
    recipe: Recipe,
    place: Workspace,
    card: CardWriter,
    observer: Observer,
    *,
    replace: bool,
) -> dict[str, object]:
    """Write the data set, unless it would replace a better one; returns what the report says of it."""
    found: dict[str, object] = {}
    try:
        lock = await write_dataset(recipe, place, card=card, observer=observer, replace=replace)
        ledger = lock.ledger
    except PoorSetError as error:
        ledger = error.ledger
        found = {"state": "withheld", "withheld": error.message}
    # the next run tries these again: no answer, or a decoder that was killed
    unanswered = sum(n for reason, n in ledger.reasons.items() if reason.rpartition("/")[2] in ASK_AGAIN)
    # of a judge's second question that was not answered, the rows do not tell: the first reply stands there;
    # with a target, some that were not answered just now are of rows behind it
    lost = 0 if recipe.target else report.unanswered
    return found | {"ledger": ledger, "unanswered": max(unanswered, lost)}


@asynccontextmanager
async def told(parts: Parts, observer: Observer, counts: Stop | None = None) -> AsyncIterator[None]:
    """Report every `WATCH_S` seconds what the calls wait for, while the body runs.

    `counts`: count the rows of a large pool meanwhile, and ask this stop if they break off.
    """

    async def watch() -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if words := parts.waiting_for():
                observer.wait(words)

    async def count(stop: Stop) -> None:
        await asyncio.sleep(COUNT_S)
        try:
            parts.total = await asyncio.to_thread(parts.count)
        except P2RError as error:
            stop.ask(error)  # the pool breaks off: no call is worth its money before that is mended

    beside = [asyncio.ensure_future(watch())]
    if counts is not None and parts.total is None:
        beside.append(asyncio.ensure_future(count(counts)))
    try:
        yield
    finally:
        for task in beside:
            task.cancel()


async def read_ahead(parts: Parts, stop: Stop) -> None:
    """Read a pool as far as it is small; all of a small one is kept, and not parsed again."""
    kept: list[Sample | BadRow] = []
    chars = 0
    for row in parts.pool():
        kept.append(row)
        chars += 1000 + len(row.problem if isinstance(row, Sample) else row.raw)
        if stop.asked or chars > KEPT_CHARS:
            return
        if len(kept) % _BREATHE == 0:
            await asyncio.sleep(0)
    parts.keep(kept)


async def make_calls(
    parts: Parts, observer: Observer, stop: Stop, *, wait: bool, run: Run | None = None, skip: bool = False
) -> BuildReport:
    """Ask all that is not answered yet, then close the parts.

    Args:
        run: takes one question; None: the steps.
        skip: do not look at questions of a large pool that an earlier run of the steps finished.
    """
    finished: Finished | None = None
    try:
        observer.begin("reading the pool", None)
        await read_ahead(parts, stop)
        if parts.total is None and run is None:
            from videop2r_data.builders.finished import Finished

            finished = Finished(parts, skip=skip)
            run = finished.noting(parts.steps.run)
        async with told(parts, observer, stop):
            asked = run or parts.steps.run
            tally, state = await _passes(parts, asked, finished, stop, observer, wait=wait)
    finally:
        await parts.close()
    await parts.journal.settled()  # a journal that is closed in the loop waits for no store
    return _report(parts, tally, state)


async def _passes(
    parts: Parts, run: Run, finished: Finished | None, stop: Stop, observer: Observer, *, wait: bool
) -> tuple[Tally, State]:
    """Pass over the pool until every call is answered, or the run must stop."""
    while True:
        observer.begin("calls", parts.total)
        tally = await run_pass(
            run,
            parts.pool(finished),
            window=parts.window,
            stop=stop,
            target=parts.recipe.target,
            on_result=lambda seen: observer.step(seen, parts),
        )
        if isinstance(stop.why, BudgetError):
            return tally, await _out_of_money(parts)
        if stop.why is not None:
            raise stop.why
        if tally.reached:
            return tally, "complete"
        if stop.asked:
            return tally, "interrupted"
        if not parts.batched or not tally.waiting:
            return tally, "complete"
        try:
            for batched in parts.batched:
                await batched.flush()
        except StoppedError:
            return tally, "interrupted"
        if any(batched.short for batched in parts.batched) and not _at_server(parts):
            return tally, "over_budget"
        for batched in parts.batched:
            if not await batched.collect(wait=wait, tell=observer.wait):
                return tally, "interrupted" if stop.asked else "waiting"


async def _out_of_money(parts: Parts) -> State:
    """Collect what has ended: it may cost less than it holds, and the next run goes on with the rest."""
    held = _at_server(parts)
    for batched in held:
        await batched.look()
    return "waiting" if held else "over_budget"


def _at_server(parts: Parts) -> list[BatchCaller]:
    return [batched for batched in parts.batched if batched.pending]


def _report(parts: Parts, tally: Tally, state: State) -> BuildReport:
    parts.journal.refresh()  # money of the other processes that share the journal
    spending = parts.journal.spending
    return BuildReport(
        state=state,
        out=str(parts.place.out),
        work=str(parts.place.work),
        seen=tally.rows,
        calls_made=sum(c.made for c in parts.callers),
        calls_found=sum(c.found for c in parts.callers),
        media_decoded=sum(media.decoded for media in parts.media_steps),
        unanswered=tally.unanswered,
        last_error=tally.last_error,
        examples=tally.examples,
        waiting=tally.waiting,
        spent=Spent(finished_usd=spending.finished_usd, lost_usd=parts.journal.lost_nusd() / NANO),
        damaged_records=len(parts.journal.damaged),
        seconds=0.0,
        ledger=None,
    )
