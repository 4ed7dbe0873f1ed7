"""Rows that were read against those that the publishers count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from videop2r_data.schemas import BadRow, Expected, Sample


@dataclass
class RowCounts:
    """Rows of a benchmark, counted while they stream by.

    Attributes:
        rows: questions, those that cannot be read included.
        bad: reason of the reader -> rows.
        by: tag, or `problem_type` -> value -> questions that could be read.
    """

    rows: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    by: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: Sample | BadRow) -> None:
        """Take one row in."""
        self.rows += 1
        if isinstance(row, BadRow):
            self.bad[row.detail] += 1
            return
        for tag, value in (row.tags | {"problem_type": row.problem_type.value}).items():
            self.by.setdefault(tag, Counter())[value] += 1


def count_faults(expected: Expected, found: RowCounts, *, limit: int | None = None) -> tuple[str, ...]:
    """What the rows that were read lack, or have too many of, by the publishers' counts.

    Args:
        expected: of the layout.
        found: the rows that were read.
        limit: rows that were asked for; with fewer than there are, only a surplus is a fault.

    Returns:
        one text for each count that differs, the whole first; none: all is there.
    """
    partly = limit is not None and (expected.rows is None or limit < expected.rows)
    faults = []
    if expected.rows is not None and _differs(found.rows, expected.rows, partly):
        faults.append(f"{found.rows:,} rows, {expected.rows:,} are published")
    bad = sum(found.bad.values())
    if bad:
        faults.append(f"{bad:,} of them cannot be read: {next(iter(found.bad))}")
    for tag, counts in expected.by.items():
        got = found.by.get(tag, Counter())
        for value, rows in counts.items():
            if _differs(got[value], rows, partly):
                faults.append(f"{tag} {value}: {got[value]:,} rows, {rows:,} are published")
        faults += [f"{tag} {value!r}: no such value is published" for value in got if value not in counts]
    return tuple(faults)


def _differs(found: int, expected: int, partly: bool) -> bool:
    return found > expected if partly else found != expected
