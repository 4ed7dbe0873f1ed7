"""What a source is, what it gives for a row that cannot be used, and the digest of a pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from videop2r_data.schemas.base import Model, canonical_bytes
from videop2r_data.schemas.sample import Sample
from videop2r_data.schemas.verdict import RejectReason


class BadRow(Model):
    """A row of a pool that cannot become a `Sample`: counted, kept, never fatal."""

    source: str
    """Name of the recipe's source."""
    row: int
    """0-based index in its source."""
    problem_id: str = ""
    """As far as it could be read."""
    reason: RejectReason
    """`BAD_ROW`, `DUPLICATE_ID`, `UNSAFE_PATH` or `BAD_REFERENCE`."""
    detail: str
    """Field, what was got, what is allowed."""
    raw: str = ""
    """Start of the row, for a person to find it."""

    @property
    def sample_id(self) -> str:
        """Unique in the pool: `<source>/<problem_id>@<row>`; `@` keeps it apart from ids of good rows."""
        return f"{self.source}/{self.problem_id}@{self.row}"


@runtime_checkable
class Source(Protocol):
    """One pool of questions, opened."""

    @property
    def name(self) -> str:
        """As in the recipe."""
        ...

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to; None: no folder was named and none lies near."""
        ...

    @property
    def note(self) -> str:
        """What was read from the pool as a whole and the recipe does not say; empty if there is nothing."""
        ...

    def check(self) -> None:
        """Hold the recipe's columns against those of the pool, before the first row.

        Raises:
            SourceError: a column that every row needs, or that the recipe names, is not there.
        """
        ...

    def rows(self) -> Iterator[Sample | BadRow]:
        """All rows in the order of the pool, in constant memory; may be called again.

        Raises:
            SourceError: the pool as a whole cannot be read (on); the good rows before that were given.
        """
        ...

    def sha256(self) -> str:
        """Digest of the rows: that of the last complete pass, else a pass is made for it."""
        ...


def content(sample: Sample) -> dict[str, Any]:
    """What makes a question itself, without its place: equal content, same question."""
    return {
        "problem_id": sample.problem_id,
        "problem": sample.problem,
        "problem_type": sample.problem_type.value,
        "data_type": sample.data_type.value,
        "options": list(sample.options),
        "solution": sample.solution,
        "path": sample.path,
        "data_source": sample.data_source,
    }


class PoolDigest:
    """sha256 over the canonical rows of a pool, in order, built up while they stream by.

    >>> PoolDigest().hexdigest()[:8]
    'e3b0c442'
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.rows = 0

    def update(self, row: Sample | BadRow) -> None:
        """Take one row in: content and id of a good one, place and text of a bad one."""
        if isinstance(row, BadRow):
            record = {"bad": row.reason.value, "row": row.row, "problem_id": row.problem_id, "raw": row.raw}
        else:
            record = content(row) | {"sample_id": row.sample_id}
        self._hash.update(canonical_bytes(record) + b"\n")
        self.rows += 1

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()
