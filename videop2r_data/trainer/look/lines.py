"""Reads the files of lines that a run writes, also while it writes them, and also when they are damaged.

Looking at a run must never be what fails: a torn last line is dropped, other lines that are no JSON object
are left out and counted, and `NaN` (which no JSON has, but many a writer writes) is read as a gap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from videop2r_data.errors import SourceError

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class Lines(NamedTuple):
    """What a file of lines holds."""

    rows: list[dict[str, Any]]
    damaged: int
    """Lines before the last that are no JSON object."""


def read_lines(path: Path) -> Lines:
    """The JSON objects of a file, in order.

    Raises:
        SourceError: the file is missing or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"cannot read it: {error.strerror or error}",
            where=str(path),
            hint="name the folder of a run of p2r-train sft or rl that has made a step",
        ) from None
    rows: list[dict[str, Any]] = []
    damaged = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _read(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            damaged += 1
    return Lines(rows, damaged)


def _read(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None
