"""One task of a verification: a slice of a file, its columns, cell types and rows; runs in any process."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from videop2r_data.builders.verify.official import COLUMNS, check_official
from videop2r_data.builders.verify.quick import check_sft_arrow
from videop2r_data.builders.verify.report import Code, Findings, Rules, Tally
from videop2r_data.builders.verify.rows import check_rejected, check_rl, check_sft
from videop2r_data.errors import SourceError
from videop2r_data.files import MISSING, Batch, file_digest, read_batches, record_batches
from videop2r_data.schemas import (
    ADDED_LATER,
    PLAIN,
    QuestionColumns,
    arrow_schema,
    configs_of,
    default_grammar,
)

# Columns and cells, compared with the Arrow schema of the row model.


Test = Callable[[Any], bool]


@cache
def expected_schema(model: type[QuestionColumns]) -> pa.Schema:
    """Schema of a config, from its row model."""
    return arrow_schema(model)


@cache
def cell_tests(model: type[QuestionColumns]) -> dict[str, tuple[Test, str]]:
    """Column -> (whether a Python value fits it, what is expected in words)."""
    return {
        field.name: (_test(field.type, field.nullable), f"{field.type}{' or null' if field.nullable else ''}")
        for field in expected_schema(model)
    }


def check_schema(
    config: str, file: str, schema: pa.Schema, findings: Findings, model: type[QuestionColumns]
) -> bool:
    """Compare the schema of a Parquet file with the model; a different nullability alone is a warning.

    A data set made before a column was added may lack it.

    Returns:
        Whether it is exactly the one expected, so that cells need no type check.
    """
    want = expected_schema(model)
    exact = True
    for field in want:
        at = schema.get_field_index(field.name)
        got = schema.field(at) if at >= 0 else None
        if got is None and field.name in ADDED_LATER.get(config, ()):
            exact = False
            continue
        if got is not None and got.type == field.type and got.nullable == field.nullable:
            continue
        exact = False
        same = got is not None and _same_values(got.type, field.type)
        findings.add(
            Code.SCHEMA_MISMATCH,
            file,
            field=field.name,
            got="no such column" if got is None else f"{got.type}{'' if got.nullable else ' not null'}",
            expected=f"{field.type}{'' if field.nullable else ' not null'}",
            severity="warning" if same else "error",
        )
    check_names(config, file, schema.names, findings, model, missing=False)
    return exact


def check_names(
    config: str,
    file: str,
    names: Iterable[str],
    findings: Findings,
    model: type[QuestionColumns],
    *,
    missing: bool = True,
) -> None:
    """Report columns that no model has, and if asked those that are not there."""
    want, have = expected_schema(model).names, list(names)
    for name in have:
        if name not in want:
            findings.add(Code.SCHEMA_MISMATCH, file, field=name, got="a column of this name", expected="none")
    for name in want if missing else ():
        if name not in have and name not in ADDED_LATER.get(config, ()):
            findings.add(Code.SCHEMA_MISMATCH, file, field=name, got="no such column", expected="one")


def sound_rows(
    config: str,
    batch: Batch,
    file: str,
    *,
    known_bad: frozenset[str],
    findings: Findings,
    model: type[QuestionColumns],
) -> list[int]:
    """Positions in the batch whose cells all have their type; the others are reported cell by cell.

    Columns that earlier data sets lack are filled in.

    Args:
        config: `sft`, `rl` or `rejected`.
        batch: the rows.
        file: for the places.
        known_bad: columns that are reported as a whole already.
        findings: where to report.
        model: of its rows.
    """
    unsound: set[int] = set()
    count = len(batch.index)
    for name, absent in ADDED_LATER.get(config, {}).items():
        batch.columns.setdefault(name, [absent] * count)
    for name, (test, expected) in cell_tests(model).items():
        values = batch.columns.get(name)
        if values is None:
            if name not in known_bad:
                findings.add(
                    Code.BAD_VALUE, file, batch.start, name, got=MISSING, expected=expected, count=count
                )
            return []
        for at, value in enumerate(values):
            if not test(value):
                unsound.add(at)
                if name not in known_bad:
                    findings.add(Code.BAD_VALUE, file, batch.index[at], name, got=value, expected=expected)
    return [at for at in range(count) if at not in unsound]


def _same_values(got: pa.DataType, want: pa.DataType) -> bool:
    """Equal up to the nullability of the column and of a list's elements and their name."""
    if pa.types.is_list(got) and pa.types.is_list(want):
        return bool(got.value_type == want.value_type)
    return bool(got == want)


def _test(kind: pa.DataType, nullable: bool) -> Test:
    plain = _plain(kind)
    return (lambda value: value is None or plain(value)) if nullable else plain


def _plain(kind: pa.DataType) -> Test:
    if pa.types.is_list(kind):
        element = _plain(kind.value_type)
        return lambda value: type(value) is list and all(map(element, value))
    if pa.types.is_struct(kind):
        inner = {field.name: _plain(field.type) for field in kind}
        return lambda value: (
            type(value) is dict
            and value.keys() == inner.keys()
            and all(test(value[name]) for name, test in inner.items())
        )
    if pa.types.is_string(kind):
        return lambda value: type(value) is str
    if pa.types.is_boolean(kind):
        return lambda value: type(value) is bool
    if pa.types.is_integer(kind):
        bound = 2 ** (kind.bit_width - 1)
        return lambda value: type(value) is int and -bound <= value < bound
    if pa.types.is_floating(kind):
        return lambda value: type(value) in (float, int) and math.isfinite(value)
    raise TypeError(f"no cell test for {kind}")


# The task, as it runs in any process.


BATCH_ROWS = 512
_ALWAYS = ("pyarrow.parquet", "pandas", "numpy")
"""Imported before the clock starts: Arrow imports pandas at its first conversion."""
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
            tally.sha256 = file_digest(task.path)
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


def _check_rows(task: Task, rules: Rules, tally: Tally, stopped: Callable[[], bool]) -> None:
    official = rules.layout == "official"
    plain = task.exact and rules.grammar == default_grammar() and rules.extra == PLAIN
    model = configs_of(rules.grammar, rules.extra)[task.config]
    if plain and task.config == "sft" and task.path.name.endswith(".parquet"):
        for start, part in record_batches(task.path, size=ARROW_ROWS, groups=task.groups, rows=task.rows):
            if stopped():
                return
            tally.rows += part.num_rows
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
        if official:
            check_official(batch, task.config, task.name, rules, tally)
            continue
        keep = None
        if not task.exact:
            keep = sound_rows(
                task.config,
                batch,
                task.name,
                known_bad=task.known_bad,
                findings=tally.findings,
                model=model,
            )
            if not keep:
                continue
        _CHECKS[task.config](batch, keep, task.name, rules, tally)
