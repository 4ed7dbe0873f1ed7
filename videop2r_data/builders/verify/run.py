"""`verify`: plan the slices, check them in parallel processes, compare the whole."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import pairwise, zip_longest
from multiprocessing.synchronize import Event
from pathlib import Path

from videop2r_data.builders.verify.documents import NO_LOCK, check_card, check_lock
from videop2r_data.builders.verify.report import (
    PAPER_TABLE,
    Code,
    Findings,
    Gathered,
    PaperDifference,
    Rules,
    Tally,
    VerifyReport,
    check_across,
    check_repeats,
    nested,
    rules_of,
)
from videop2r_data.builders.verify.work import Task, check_names, check_schema, run_task
from videop2r_data.errors import SourceError
from videop2r_data.files import LOCK_NAME, Release, ReleaseFile, missing_parts, open_release, parquet_file
from videop2r_data.schemas import QuestionColumns, Stage, safe_relative_path

# Tasks in spawned processes, results in task order; a task that kills its process costs only itself.


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
    futures: list[Future[Tally]] = []
    try:
        # ValueError: where one process dies while the next starts, the pool closes the pipes of that one
        with suppress(BrokenProcessPool, OSError, ValueError):
            for task in tasks:
                futures.append(executor.submit(_work, task, rules))
        for task, future in zip_longest(tasks, futures):
            try:
                tally = future.result() if future is not None else _alone(task, rules)
            except BrokenProcessPool:
                tally = _alone(task, rules)  # this task may have killed the pool, or another one
            yield tally
    finally:
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


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


# The verification: slices of files are planned, checked by the pool, and their tallies added up.


SLICE_ROWS = 50_000
"""Rows of one task at most: small enough to share the work, large enough that skipped pages cost little."""
AsWritten = Callable[[Path], Iterable[tuple[str, str, str, str]]]
"""Folder -> (file, field, what is there, what would be written)."""
_CLAIMS_PAPER = re.compile(r"videop2r.{0,12}162k", re.IGNORECASE)
_PAPER_ROWS = 162_062


def verify_release(
    where: str | Path,
    *,
    revision: str | None = None,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
    as_written: AsWritten | None = None,
) -> VerifyReport:
    """Re-parse and re-score every row of a release and check its fields against each other.

    With more than one worker, processes are spawned: call it under `if __name__ == "__main__":` in a script.

    Args:
        where: a folder, a file or a Hub id; see `open_release`.
        revision: commit, tag or branch of a Hub data set.
        workers: processes; None: one per core; 1: in this process.
        progress: called with the rows of each slice that is done.
        as_written: tells what of the card and what is made with it is not as the program would write it.

    Raises:
        SourceError: there is nothing to verify. What is wrong with a release is in the report instead.
    """
    begin = time.monotonic()
    release = open_release(where, revision=revision)
    findings = Findings()
    rules = rules_of(release, findings)
    for name, what in release.problems:
        code = Code.LOCK_INVALID if name == LOCK_NAME else Code.CARD_INVALID
        findings.add(code, name, got=what, expected="a file that `p2r-data build` wrote")
    for stem, number in missing_parts(file.name for file in release.files):
        findings.add(Code.PART_MISSING, stem, got=f"no part {number}", expected="all parts")
    tasks = [task for file in release.files for task in _plan(release, file, findings)]
    tasks += _digests(release)
    count = workers or default_workers()
    gathered, file_rows, digests, busy = _gather(tasks, rules, count, findings, progress)
    compare = time.monotonic()
    if release.lock is None and any(file_rows.values()):  # `check_lock` compares the counts with a lock's
        for part in release.files:
            if not part.error and not file_rows.get(part.name):
                findings.add(Code.PART_EMPTY, part.name, got="0 rows", expected="rows")
    duplicates = check_repeats(gathered, release, findings)
    if release.layout == "ours":
        check_across(gathered, findings)
    check_lock(release, gathered, file_rows, digests, findings)
    check_card(release, gathered, findings)
    checking = busy + time.monotonic() - compare
    if as_written is not None and release.lock is not None and not findings.errors:
        for file, field, got, expected in as_written(release.root):
            findings.add(
                Code.NOT_AS_WRITTEN, file, field=field, got=got, expected=expected, severity="warning"
            )
    if not sum(file_rows.values()):
        findings.add(Code.NO_ROWS, str(where), got="0 rows", expected="rows")
    return _report(
        release,
        rules,
        gathered,
        findings,
        duplicates=duplicates,
        workers=count,
        seconds=time.monotonic() - begin,
        checking=checking,
    )


def _plan(release: Release, file: ReleaseFile, findings: Findings) -> list[Task]:
    """Slices of a file; its schema is checked on the way."""
    model = release.models.get(file.config, QuestionColumns)
    if file.error:
        findings.add(Code.FILE_UNREADABLE, file.name, got=file.error, expected="a file of rows")
        return []
    if not file.name.endswith(".parquet"):
        if release.layout == "ours" and file.columns:
            check_names(file.config, file.name, file.columns, findings, model, missing=False)
        return [Task(file.path, file.name, file.config)]
    try:
        parquet = parquet_file(file.path)
    except SourceError as error:
        findings.add(Code.FILE_UNREADABLE, file.name, got=error.message, expected="a parquet file")
        return []
    with parquet:
        exact, known_bad = True, frozenset[str]()
        if release.layout == "ours":
            before = Findings()
            exact = check_schema(file.config, file.name, parquet.schema_arrow, before, model)
            errors = (found for found in before.listing() if found.severity == "error")
            known_bad = frozenset(place.field for found in errors for place in found.places)
            findings.merge(before)
        return _slices(file, parquet.metadata, exact, known_bad)


def _slices(file: ReleaseFile, metadata: object, exact: bool, known_bad: frozenset[str]) -> list[Task]:
    tasks, start = [], 0
    for group in range(metadata.num_row_groups):  # type: ignore[attr-defined]
        rows = metadata.row_group(group).num_rows  # type: ignore[attr-defined]
        parts = max(1, -(-rows // SLICE_ROWS))
        edges = [start + rows * part // parts for part in range(parts + 1)]
        tasks += [
            Task(file.path, file.name, file.config, exact, known_bad, (group,), range(low, high))
            for low, high in pairwise(edges)
        ]
        start += rows
    return tasks


def _digests(release: Release) -> list[Task]:
    """One task per file of the lock that exists and lies inside of the folder."""
    tasks = []
    for name in release.lock.files if release.lock else ():
        try:
            # links are followed: the Hub's cache is made of them
            path = release.root / safe_relative_path(name)
        except ValueError:
            continue
        if path.is_file():
            tasks.append(Task(path, name, ""))
    return tasks


def _gather(
    tasks: list[Task], rules: Rules, workers: int, findings: Findings, progress: Callable[[int], None] | None
) -> tuple[dict[str, Gathered], dict[str, int], dict[str, str], float]:
    """Everything by config, rows and digests by file, and the seconds that the busiest process worked."""
    busy: dict[int, float] = {}
    gathered: dict[str, Gathered] = {}
    file_rows: dict[str, int] = {}
    digests: dict[str, str] = {}
    for task, tally in zip(tasks, run_tasks(tasks, rules, workers), strict=True):
        findings.merge(tally.findings)
        busy[tally.process] = busy.get(tally.process, 0.0) + tally.busy_s
        if not task.config:
            digests[task.name] = tally.sha256
            continue
        gathered.setdefault(task.config, Gathered()).add(task.name, tally)
        file_rows[task.name] = file_rows.get(task.name, 0) + tally.rows
        if progress is not None:
            progress(tally.rows)
    return gathered, file_rows, digests, max(busy.values(), default=0.0)


def _report(
    release: Release,
    rules: Rules,
    gathered: dict[str, Gathered],
    findings: Findings,
    *,
    duplicates: dict[str, int],
    workers: int,
    seconds: float,
    checking: float,
) -> VerifyReport:
    configs = {name: gathered[name].total.rows for name in release.configs if name in gathered}
    main = gathered.get("sft") or gathered.get("rl")
    table = nested(main.total.table) if main else {}
    rejected = gathered["rejected"].total if "rejected" in gathered else None
    rows = sum(configs.values())
    listing = findings.listing()
    stages = [stage.value for stage in Stage]
    reasons = sorted(
        rejected.reasons.items() if rejected else [],
        key=lambda item: (
            stages.index(s) if (s := item[0].split("/")[0]) in stages else len(stages),
            -item[1],
            item,
        ),
    )
    return VerifyReport(
        where=release.where,
        layout=release.layout,
        revision=release.revision,
        files=len(release.files),
        configs=configs,
        rows=rows,
        table=table,
        outcomes=dict(sorted(rejected.outcomes.items())) if rejected else {},
        funnel=dict(reasons),
        findings=listing,
        duplicates=duplicates,
        paper=_paper_difference(release, configs.get("sft", 0), table),
        notes=_notes(release, rules, gathered),
        locked=release.lock is not None,
        ok=not findings.errors,
        seconds=round(seconds, 3),
        startup_s=round(max(0.0, seconds - checking), 3),
        rows_per_s=round(rows / checking, 1) if checking else 0.0,
        workers=workers,
    )


def _notes(release: Release, rules: Rules, gathered: dict[str, Gathered]) -> list[str]:
    notes = [f"{name}: {n:,} rows" for g in gathered.values() for name, n in sorted(g.total.notes.items())]
    if release.lock is None:
        notes.insert(0, NO_LOCK)
    if not rules.own:
        notes.append(
            f"no recipe: threshold {rules.spec.threshold}, policy {rules.spec.policy.profile}"
            + (" or robust, rewards compared within 0.005" if rules.layout == "official" else "")
        )
    return notes


def _paper_difference(
    release: Release, rows: int, table: dict[str, dict[str, int]]
) -> PaperDifference | None:
    names = [release.where, release.root.resolve().name, *(file.name for file in release.files)]
    claims = any(_CLAIMS_PAPER.search(name) for name in names) or rows == _PAPER_ROWS
    if not rows or not claims:
        return None
    gap = Counter({(d, kind): n for d, row in table.items() for kind, n in row.items()})
    gap.subtract({(d, kind): n for d, row in PAPER_TABLE.items() for kind, n in row.items()})
    difference = nested(Counter({cell: n for cell, n in gap.items() if n}))
    return PaperDifference(table=difference, rows=rows - _PAPER_ROWS)
