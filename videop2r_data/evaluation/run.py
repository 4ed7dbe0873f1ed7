"""Run an evaluation: look at it, make its calls through the journal, write its result."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.backends import Journal
from videop2r_data.builders import (
    BuildReport,
    Observer,
    Parts,
    Shard,
    Stop,
    Workspace,
    at_work,
    check_ours,
    make_calls,
    recover,
    take_lease,
)
from videop2r_data.evaluation.pools import admit, chosen, look_at
from videop2r_data.evaluation.questions import Questions
from videop2r_data.evaluation.result import (
    RESULT_FOLDER,
    SECONDS,
    paths_in,
    plan_in,
    read_result,
    read_seconds,
    write_result,
)
from videop2r_data.schemas import EvalPlan, EvalResult, Model, Took

RUN = "run.json"
"""In the work folder: what the last run took, which is no part of the result."""


class EvalReport(Model):
    """How a run of `evaluate` ended."""

    run: BuildReport
    """Its calls and its money; `state` is that of a build."""
    result: EvalResult | None
    """None: calls are missing, or another process makes them."""


async def evaluate(
    plan: EvalPlan,
    place: Workspace,
    *,
    observer: Observer,
    stop: Stop | None = None,
    wait: bool = True,
    shard: Shard | None = None,
    keep_going: bool = False,
    forgive: bool = False,
) -> EvalReport:
    """Evaluate, or go on with an evaluation that was stopped: what was answered is not asked again.

    Args:
        plan: what is asked of whom.
        place: folder of the result, and work folder with the journal.
        stop: ask it to stop early (Ctrl-C).
        wait: wait for another process that works in the same folder.
        shard: make only the calls of this share of the questions, and write nothing.
        keep_going: do not stop for refusals and useless replies in a row.
        forgive: ask again what an earlier run was refused, or got an empty reply to.

    Raises:
        ConfigError: most media are missing, or a benchmark cannot be read.
        P2RError: a server, the journal or the folder cannot be used; what was finished is in the journal.
    """
    began = time.monotonic()
    stop = stop or Stop()
    place.check()
    tell = observer.wait
    async with at_work(place, "an evaluation", shard, wait=wait, stop=stop, tell=tell):
        recover(place.out, RESULT_FOLDER)
        check_ours(place.out, RESULT_FOLDER)
        place.remember(plan=plan)
        observer.begin("looking at rows and media", None)
        admit(plan, await look_at(plan, place))
        with (
            Journal(place.journal) as journal,
            # a line for each call, from all processes that share the folder
            (place.work / SECONDS).open("a", buffering=1, encoding="utf-8") as seconds,
        ):
            parts = Parts(
                plan.recipe, place, journal, live=True, shard=shard, stop=stop, keep_going=keep_going,
                forgive=forgive, tell=tell, wanted=chosen(plan, place), free=plan.style != "process",
                took=lambda key, took: print(f"{key}\t{took:.3f}", file=seconds), also=plan.also,
            )  # fmt: skip
            questions = Questions(plan, parts)
            run = await make_calls(parts, observer, stop, wait=wait, run=questions.run)
        result = None
        if run.state == "complete" and shard is not None:
            run = run.model_copy(update={"state": "shard_complete"})
        elif run.state == "complete":
            result = await write_result(plan, place, observer=observer)
        run = run.model_copy(update={"seconds": time.monotonic() - began})
        note_run(place.work, run)
    return EvalReport(run=run, result=result)


async def rescore(
    folder: Path, place: Workspace, changes: dict[str, Any], *, observer: Observer
) -> EvalResult:
    """Score a finished evaluation again: by another policy, or by a newer version; no call is made.

    Args:
        folder: the result.
        place: where it goes, with the work folder of the evaluation.
        changes: settings of the plan that change no request.

    Raises:
        ConfigError: no result there, or settings that do not fit. ExportError: it cannot be written, or
        answers of the result are not found any more; it is not replaced then.
    """
    before = read_result(folder)
    plan, least = plan_in(before, changes), sum(one.answered for one in before.benchmarks)
    lease = await take_lease(place.work, "scoring again", wait=True, stop=Stop(), tell=observer.wait)
    with lease:
        paths = paths_in(folder, before)
        return await write_result(plan, place, observer=observer, least=least, paths=paths)


def note_run(work: Path, run: BuildReport) -> None:
    """Write what a run took: its calls and money, and the seconds of all calls that were ever made."""
    took = Took.of(read_seconds(work).values())
    share = {"p50_s": took.p50, "p95_s": took.p95, "calls_timed": took.calls} if took else {}
    data = {"run": run.model_dump(mode="json"), **share}
    with suppress(OSError):  # a note; the result does not need it
        (work / RUN).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))
