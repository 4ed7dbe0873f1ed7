"""One task of a verification: a slice of a file, or the digest of one; runs in any process."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from videop2r_data.builders.verify.cells import sound_rows
from videop2r_data.builders.verify.official import COLUMNS, check_official
from videop2r_data.builders.verify.quick import check_sft_arrow
from videop2r_data.builders.verify.rejected import check_rejected, check_rl
from videop2r_data.builders.verify.report import Code
from videop2r_data.builders.verify.rules import Rules
from videop2r_data.builders.verify.sft import check_sft
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.errors import SourceError
from videop2r_data.files.rows import read_batches, record_batches
from videop2r_data.schemas.sample import ProblemType

BATCH_ROWS = 512
_ROUGE = "rouge_score.rouge_scorer"
_ALWAYS = ("pyarrow.parquet", "pandas", "numpy")
"""What reading rows imports: Arrow looks for pandas at its first conversion. Start-up, no work on rows."""
ARROW_ROWS = 1024
"""Rows of a batch that is looked at as a whole."""
_CHECKS = {"sft": check_sft, "rl": check_rl, "rejected": check_rejected}


@dataclass(frozen=True, slots=True)
class Task:
    """What one worker does in one go.

    Attributes:
        path: the file.
        name: relative to the release.
        config: which rows it holds; empty for a digest of the file.
        exact: its parquet schema is the one expected, so that cells need no type check.
        known_bad: columns already reported as a whole.
        groups: parquet row groups to read, None: all.
        rows: row indices inside of them, None: all.
    """

    path: Path
    name: str
    config: str
    exact: bool = False
    known_bad: frozenset[str] = frozenset()
    groups: tuple[int, ...] | None = None
    rows: range | None = None


def run_task(task: Task, rules: Rules, stopped: Callable[[], bool] = lambda: False) -> Tally:
    """Check the rows of a slice, or hash its file; a damaged file is a finding, never an error.

    Args:
        task: which slice.
        rules: what its rows are held against.
        stopped: asked between batches; True ends the task early, its tally is then of no use.
    """
    tally = Tally()
    for name in _ALWAYS:
        with suppress(ImportError):
            importlib.import_module(name)
    begin = time.monotonic()
    try:
        if task.config:
            _check_rows(task, rules, tally, stopped)
        else:
            with task.path.open("rb") as stream:
                tally.sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (SourceError, OSError) as error:
        message = error.message if isinstance(error, SourceError) else str(error)
        tally.findings.add(
            Code.FILE_UNREADABLE,
            task.name,
            tally.rows or None,
            got=message,
            expected="a file that reads to its end",
        )
    tally.busy_s += time.monotonic() - begin
    tally.process = os.getpid()
    return tally


def _load_for(problem_types: Sequence[object], tally: Tally) -> None:
    """Load what only free text is scored with; the first time takes seconds, which are no work on rows."""
    if _ROUGE not in sys.modules and ProblemType.FREE_FORM in problem_types:
        begin = time.monotonic()
        importlib.import_module(_ROUGE)
        tally.busy_s -= time.monotonic() - begin


def _check_rows(task: Task, rules: Rules, tally: Tally, stopped: Callable[[], bool]) -> None:
    official = rules.layout == "official"
    if task.exact and task.config == "sft" and task.path.name.endswith(".parquet"):
        for start, part in record_batches(task.path, size=ARROW_ROWS, groups=task.groups, rows=task.rows):
            if stopped():
                return
            tally.rows += part.num_rows
            _load_for(part.column("problem_type").unique().to_pylist(), tally)
            check_sft_arrow(start, part, task.name, rules, tally)
        return
    columns = COLUMNS if official else None
    for batch in read_batches(
        task.path, columns=columns, size=BATCH_ROWS, groups=task.groups, rows=task.rows
    ):
        if stopped():
            return
        tally.rows += batch.rows
        for row, what in batch.bad:
            tally.findings.add(Code.BAD_RECORD, task.name, row, got=what, expected="a JSON object")
        if not batch.index:
            continue
        _load_for(batch.columns.get("problem_type", ()), tally)
        if official:
            check_official(batch, task.config, task.name, rules, tally)
            continue
        keep = None
        if not task.exact:
            keep = sound_rows(task.config, batch, task.name, task.known_bad, tally.findings)
            if not keep:
                continue
        _CHECKS[task.config](batch, keep, task.name, rules, tally)
