"""What every config says of its question, and how a fault in it is reported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from videop2r_data.builders.verify.report import Code
from videop2r_data.builders.verify.tally import Tally
from videop2r_data.files.rows import Batch
from videop2r_data.schemas.sample import DataType, ProblemType, safe_relative_path

QUESTION = (
    "sample_id",
    "problem_id",
    "problem",
    "problem_type",
    "data_type",
    "options",
    "solution",
    "path",
    "data_source",
)
HEX = re.compile(r"[0-9a-f]{64}\Z")
DATA_TYPES = {t.value for t in DataType}
_TYPES: dict[str, ProblemType] = {t.value: t for t in ProblemType}
PLAIN_PATH = r"\A[A-Za-z0-9_-][A-Za-z0-9_. -]*(?:/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*\z"
"""A path that is safe beyond doubt, as RE2 writes it; Python writes `\\Z` for its last part."""
_PLAIN_PATH = re.compile(PLAIN_PATH[:-1] + "Z")
_LABEL = re.compile(r"\s*[(\[]?([A-Z])\s*[.):\]]")


class Say:
    """Reports faults of the row at hand."""

    def __init__(self, tally: Tally, file: str) -> None:
        self.tally = tally
        self.file = file
        self.row = 0

    def __call__(self, code: Code, field: str, got: Any, expected: Any) -> None:
        """One fault in one field of the row."""
        self.tally.findings.add(code, self.file, self.row, field, got=got, expected=expected)


def rows_of(batch: Batch, names: Sequence[str], keep: Sequence[int] | None) -> Iterator[tuple[Any, ...]]:
    """(index in the file, value of each name) of the kept positions."""
    columns = [batch.columns[name] for name in names]
    rows = zip(batch.index, *columns, strict=True)
    if keep is None or len(keep) == len(batch.index):
        return rows
    kept = set(keep)
    return (row for at, row in enumerate(rows) if at in kept)


def check_question(
    say: Say, problem_type: str, data_type: str, *, options: list[str], solution: str, path: str
) -> tuple[ProblemType | None, str | None]:
    """What every config says of its question.

    Returns:
        Type and reference, each None where it cannot be told.
    """
    kind = _TYPES.get(problem_type)
    if kind is None:
        say(Code.UNKNOWN_PROBLEM_TYPE, "problem_type", problem_type, " | ".join(_TYPES))
    if data_type not in DATA_TYPES:
        say(Code.UNKNOWN_DATA_TYPE, "data_type", data_type, " | ".join(sorted(DATA_TYPES)))
    reference = inner_answer(solution)
    if reference is None:
        say(Code.BAD_SOLUTION, "solution", solution, "<answer>…</answer>, once and not blank")
    fault = options_fault(kind, options)
    if fault:
        say(Code.BAD_OPTIONS, "options", options, fault)
        reference = None  # what it names cannot be told: no second complaint about it
    if path and not _PLAIN_PATH.match(path):
        try:
            safe_relative_path(path)
        except ValueError:
            say(Code.UNSAFE_PATH, "path", path, "a relative POSIX path that stays in its root")
    if (data_type == "text") != (path == "") and data_type in DATA_TYPES:
        say(Code.PATH_AND_DATA_TYPE, "path", path, "empty for text, else a file")
    return kind, reference


def kind_of(problem_type: str) -> ProblemType | None:
    """The type of this name, if there is one."""
    return _TYPES.get(problem_type)


def inner_answer(solution: str) -> str | None:
    """The reference inside its one tag, or None if it is not well formed.

    >>> inner_answer("<answer> A </answer>"), inner_answer("A")
    ('A', None)
    """
    text = solution.strip()
    if not (text.startswith("<answer>") and text.endswith("</answer>")):
        return None
    inner = text[8:-9].strip()
    return None if not inner or "<answer>" in inner or "</answer>" in inner else inner


def options_fault(kind: ProblemType | None, options: list[str]) -> str:
    """What is wrong with the options of a question, or an empty text."""
    if kind is not ProblemType.MULTIPLE_CHOICE:
        return ""
    if len(options) < 2:
        return "2 options or more"
    labels = [match.group(1) for option in options if (match := _LABEL.match(option))]
    if "" in map(str.strip, options):
        return "no blank option"
    if labels and (len(labels) != len(options) or len(set(labels)) != len(labels)):
        return "a different letter before each option"
    return ""
