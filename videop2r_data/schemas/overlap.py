"""What a pool of questions and evaluation sets have in common: counts, with what could not be compared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.recipe import Signal
from videop2r_data.schemas.results import Measured

SIGNALS: dict[Signal, str] = {
    "identity": "same clip by its name",
    "file": "same file",
    "frames": "same frames",
    "text": "same or similar wording",
    "both": "same clip and question",
}
"""What each signal finds, in words."""


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


class OverlapEffect(Model):
    """One figure of an evaluation with and without the rows that overlap."""

    model: str
    """Who was evaluated."""
    signals: tuple[Signal, ...]
    """Rows found by one of these count as overlapping."""
    found: int
    """How many of the evaluated questions these are."""
    every: Measured
    """Of all questions."""
    apart: Measured
    """Of the others, as far as is known; without a value: there are none."""
    gain: Measured
    """`every` minus `apart`, over the same draws of clips."""


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
    effects: list[OverlapEffect] = Field(default_factory=list)
    """What the rows that overlap make of scores, where results of evaluations were given."""


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
