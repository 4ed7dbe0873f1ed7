"""Run tasks in spawned processes, results in task order; a task that kills its process costs only itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event

from videop2r_data.builders.verify.report import Code
from videop2r_data.builders.verify.rules import Rules
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.builders.verify.work import Task, run_task

_stop: Event | None = None


def default_workers() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(tasks: Sequence[Task], rules: Rules, workers: int) -> Iterator[Tally]:
    """Yield the tally of each task, in order.

    Ctrl-C reaches the caller at once; the workers stop within a batch.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield run_task(task, rules)
        return
    # spawned, never forked: Arrow has threads, and a fork of a threaded process can hang
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(min(workers, len(tasks)), context, _start, (stop,))
    try:
        futures = [_submit(executor, task, rules) for task in tasks]
        for task, future in zip(tasks, futures, strict=True):
            yield _result(task, future, rules)
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(executor: ProcessPoolExecutor, task: Task, rules: Rules) -> Future[Tally] | None:
    try:
        return executor.submit(_work, task, rules)
    except BrokenProcessPool:
        return None


def _result(task: Task, future: Future[Tally] | None, rules: Rules) -> Tally:
    if future is None:
        return _alone(task, rules)
    try:
        return future.result()
    except BrokenProcessPool:
        return _alone(task, rules)  # this task may be the one that killed the pool, or only have shared it


def _alone(task: Task, rules: Rules) -> Tally:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _start, (context.Event(),)) as executor:
        try:
            return executor.submit(_work, task, rules).result()
        except BrokenProcessPool:
            tally = Tally()
            place = f"rows {task.rows.start} to {task.rows.stop - 1}" if task.rows else "the file"
            tally.findings.add(
                Code.WORKER_CRASH, task.name, got=f"reading {place} killed its process", expected="rows"
            )
            return tally


def _start(stop: Event) -> None:
    global _stop  # noqa: PLW0603 - one event per worker process, set once at its start
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop


def _work(task: Task, rules: Rules) -> Tally:
    return run_task(task, rules, _stop.is_set if _stop is not None else lambda: False)
