"""What a pool of questions and evaluation sets have in common: counts, with what could not be compared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from videop2r_data.schemas.base import Model

Signal = Literal["identity", "file", "frames", "text", "both"]
"""An id in a file name; equal files; alike frames at alike times; a question with its options; a question and
its clip, which one of the first three finds, together."""


class LeaveOut(Model):
    """Rows of the pool that a build leaves out."""

    rows: str
    """Parquet file or JSON lines with a column `sample_id`, as `p2r-data overlap` writes it; relative to the
    recipe."""
    signals: tuple[Signal, ...] = ("identity", "file", "frames", "both")
    """Where the file has a column `signal`: rows found by one of these."""
    benches: tuple[str, ...] = ()
    """Where the file has a column `bench`: rows found in one of these evaluation sets; empty: in any."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"rows": data} if isinstance(data, str) else data


class Shared(Model):
    """Rows of one side that have a partner on the other side, by one signal."""

    found: int = Field(ge=0)
    known: int = Field(ge=0)
    """Rows that could be compared: the others may overlap or not."""
    rows: int = Field(ge=0)
    """All rows, those without media included."""
    same: int = Field(default=0, ge=0)
    """Of `found`: those with a partner of equal wording (text, both)."""


class SharedSplit(Model):
    """Rows on both sides that are of one part of one source set, as names and numbers of files say."""

    namespace: str
    split: str
    """train, validation or test; empty: not declared."""
    pool_rows: int
    bench_rows: int


class Scores(Model):
    """A mean score with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


class OverlapEffect(Model):
    """Scores of one evaluation with and without the rows that overlap."""

    signals: tuple[Signal, ...]
    """Rows found by one of these count as overlapping."""
    every: Scores
    """All rows."""
    apart: Scores | None
    """Rows that do not overlap, as far as is known; None: there are none."""
    shared: Scores | None
    """Rows that do."""
    difference: Scores | None
    """`every` minus `apart`, interval by the bootstrap over rows."""


class OverlapBench(Model):
    """One evaluation set against the pool."""

    name: str
    rows: int
    bad: int
    """Rows that could not be read."""
    sha256: str
    """Of its canonical rows."""
    bench: dict[Signal, Shared]
    """Signal -> rows of the evaluation set."""
    pool: dict[Signal, Shared]
    """Signal -> rows of the pool."""
    by_source: dict[str, dict[str, int]]
    """`data_source` of pool rows -> signal -> overlapping rows; `rows`: all of them."""
    by_group: dict[str, dict[str, int]]
    """Task or data_source of the evaluation set -> the same."""
    splits: list[SharedSplit]
    """Source sets that both sides have clips of, by their declared splits."""
    apart: int
    """Rows of the evaluation set whose clip is in the pool with another part only, as both sides declare."""
    effect: OverlapEffect | None = None


class PoolFact(Model):
    """One source of the pool, as it was compared."""

    rows: int
    sha256: str
    """Of its canonical rows, as the lock of a build has it."""


class Overlap(Model):
    """`overlap.json`."""

    overlap: Literal[1] = 1
    """Version of this format."""
    pool: str
    rows: int
    bad: int
    sources: dict[str, PoolFact]
    files: dict[str, str] = Field(default_factory=dict)
    """Of a data set of ours: path -> sha256 of the files that were compared, as its lock has them."""
    looked: tuple[Signal, ...]
    """Signals that were looked for."""
    benches: list[OverlapBench]
    statement: str
    """What the card says."""
