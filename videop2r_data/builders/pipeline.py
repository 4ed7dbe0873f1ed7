"""The build: make the missing calls, here or as Ray tasks, then write the data set from the journal."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from videop2r_data.backends import NANO, Journal
from videop2r_data.builders.export import PoorSetError, check_ours, recover, write_dataset
from videop2r_data.builders.retries import RetryKind, reopen
from videop2r_data.builders.run import Run, Stop, Tally, run_pass
from videop2r_data.builders.steps import Parts, Watcher
from videop2r_data.builders.workspace import Shard, Workspace, exclusively, take_work
from videop2r_data.errors import (
    AwayError,
    BackendError,
    BudgetError,
    ConfigError,
    MissingExtraError,
    StoppedError,
)
from videop2r_data.schemas import ASK_AGAIN, BadRow, Ledger, Model, Recipe, Sample

State = Literal["complete", "shard_complete", "interrupted", "waiting", "over_budget", "withheld"]
"""`shard_complete`: every call of this process's share is made; nothing was written. `withheld`: every call
is made, and the new data set was not put in the place of a better one."""
CardWriter = Callable[[Path], object]
KEPT_CHARS = 16 * 2**20
"""Characters of pool text that are kept in memory during a run; each row counts 1,000 on top."""
WATCH_S = 0.5
"""Seconds between two looks at what the calls wait for."""
_BREATHE = 1024


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
    """Answers that the journal had."""
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


class Observer(Watcher, Protocol):
    """Progress display of a build, which may wait for servers, batches and other builds."""

    def wait(self, message: str) -> None:
        """The build waits; `message` says for what."""


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
    under: str = "",
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
        under: token of the lease of the process that started this share; empty: started by hand.

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
    tell = observer.wait
    with await take_work(place.work, "a build", shard, wait=wait, stop=stop, tell=tell, under=under):
        recover(place.out)
        check_ours(place.out)
        place.remember(recipe=recipe)
        with Journal(place.journal) as journal:
            found: dict[str, object] = {}
            if retry:
                again = await reopen(recipe, place, journal, retry, observer=observer, stop=stop, shard=shard)
                found["retried"] = again
            parts = Parts(
                recipe,
                place,
                journal,
                live=True,
                shard=shard,
                stop=stop,
                keep_going=keep_going,
                tell=observer.wait,
            )
            report = await make_calls(parts, observer, stop, wait=wait)
        if report.state == "complete" and shard is not None:
            found["state"] = "shard_complete"
        elif report.state == "complete":
            found |= await _export(recipe, place, card=card, observer=observer, replace=replace)
    return report.model_copy(update=found | {"seconds": time.monotonic() - began})


async def _export(
    recipe: Recipe, place: Workspace, *, card: CardWriter, observer: Observer, replace: bool
) -> dict[str, object]:
    """Write the data set, unless it would replace a better one; returns what the report says of it."""
    found: dict[str, object] = {}
    with exclusively(place.work / "export.lock"):
        try:
            lock = await write_dataset(recipe, place, card=card, observer=observer, replace=replace)
            ledger = lock.ledger
        except PoorSetError as error:
            ledger = error.ledger
            found = {"state": "withheld", "withheld": error.message}
    # the next run tries these again: no answer, or a decoder that was killed
    unanswered = sum(n for reason, n in ledger.reasons.items() if reason.rpartition("/")[2] in ASK_AGAIN)
    return found | {"ledger": ledger, "unanswered": unanswered}


@asynccontextmanager
async def told(parts: Parts, observer: Observer) -> AsyncIterator[None]:
    """Report every `WATCH_S` seconds what the calls wait for, while the body runs."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            if words := parts.waiting_for():
                observer.wait(words)

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()


async def read_ahead(parts: Parts, stop: Stop) -> int:
    """Count the rows of the pool before the first call; a small pool is kept and not parsed again."""
    kept: list[Sample | BadRow] = []
    rows = chars = 0
    for rows, row in enumerate(parts.pool(), 1):
        chars += 1000 + len(row.problem if isinstance(row, Sample) else row.raw)
        if chars <= KEPT_CHARS:
            kept.append(row)
        if rows % _BREATHE == 0:
            await asyncio.sleep(0)
            if stop.asked:
                return rows
    if chars <= KEPT_CHARS:
        parts.keep(kept)
    return rows


async def make_calls(
    parts: Parts, observer: Observer, stop: Stop, *, wait: bool, run: Run | None = None
) -> BuildReport:
    """Ask all that is not answered yet, then close the parts; `run` takes one question, None: the steps."""
    try:
        observer.begin("reading the pool", None)
        total = await read_ahead(parts, stop)
        async with told(parts, observer):
            tally, state = await _passes(parts, run or parts.steps.run, total, stop, observer, wait=wait)
    finally:
        await parts.close()
    return _report(parts, tally, state)


async def _passes(
    parts: Parts, run: Run, total: int, stop: Stop, observer: Observer, *, wait: bool
) -> tuple[Tally, State]:
    """Pass over the pool until every call is answered, or the run must stop."""
    while True:
        observer.begin("calls", total)
        tally = await run_pass(
            run,
            parts.pool(),
            window=parts.window,
            stop=stop,
            target=parts.recipe.target,
            on_result=lambda seen: observer.step(seen, parts),
        )
        if isinstance(stop.why, BudgetError):
            return tally, "over_budget"
        if stop.why is not None:
            raise stop.why
        if tally.reached:
            return tally, "complete"
        if stop.asked:
            return tally, "interrupted"
        if (batched := parts.batched) is None or not tally.waiting:
            return tally, "complete"
        try:
            await batched.flush()
        except BudgetError:
            return tally, "over_budget"
        except StoppedError:
            return tally, "interrupted"
        if not await batched.collect(wait=wait, stop=stop, tell=observer.wait):
            return tally, "interrupted" if stop.asked else "waiting"


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


# Ray: one share of the pool per task, over one journal on a shared file system.


RETRIES = 3
"""Restarts of a task whose node is lost; the journal has the calls that were already paid."""


def make_calls_on_ray(
    recipe: Recipe,
    place: Workspace,
    tasks: int,
    *,
    under: str,
    tell: Callable[[str], None],
    keep_going: bool = False,
) -> list[dict[str, Any]]:
    """Make the calls of a build in `tasks` Ray tasks; nothing is written but the journal.

    The cluster is that of `RAY_ADDRESS`, else one on this machine. Every node needs this package, the
    recipe's files and the work folder under the same paths, and the API keys in its environment.

    Args:
        tasks: shares of the pool.
        under: token of the lease of the work folder, which the caller holds.
        tell: is told when a task has ended.
        keep_going: do not stop for refusals and useless replies in a row.

    Returns:
        The report of each task, as JSON.

    Raises:
        MissingExtraError: Ray is not installed. BackendError: a task failed; what it finished is kept.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        task = ray.remote(max_retries=RETRIES, num_cpus=1)(_one_share)
        asked = recipe.model_dump_json()
        folders = (str(place.out), str(place.work), str(place.base.resolve()))
        under_way = [
            task.remote(asked, folders, index, tasks, under, keep_going=keep_going)
            for index in range(1, tasks + 1)
        ]
        reports: list[dict[str, Any]] = []
        while under_way:
            ended, under_way = ray.wait(under_way)
            reports += ray.get(ended)
            tell(f"{len(reports)} of {tasks} Ray tasks have ended")
        return reports
    except ray.exceptions.RayError as error:
        # Ray raises a class that inherits from RayError and from the error's own class
        kind = AwayError if isinstance(error, AwayError) else BackendError
        raise kind(
            f"a Ray task failed: {str(error).strip().splitlines()[-1]}",
            hint="run the same command again: every finished call is kept",
        ) from None
    finally:
        if started:
            ray.shutdown()


def _one_share(
    recipe: str, folders: tuple[str, str, str], index: int, count: int, under: str, *, keep_going: bool
) -> dict[str, Any]:
    """The share of one Ray task; runs on a node of the cluster."""
    import asyncio

    out, work, base = map(Path, folders)
    report = asyncio.run(
        build(
            Recipe.model_validate_json(recipe),
            Workspace(out, work, base),
            observer=_Silent(),
            card=lambda folder: None,
            stop=Stop(),
            shard=Shard(index, count),
            under=under,
            keep_going=keep_going,
        )
    )
    return report.model_dump(mode="json")


class _Silent:
    """Shows no progress: the driver reports when tasks end."""

    def begin(self, what: str, total: int | None) -> None:
        """Silent."""

    def step(self, tally: Tally, parts: Parts) -> None:
        """Silent."""

    def wait(self, message: str) -> None:
        """Silent."""
