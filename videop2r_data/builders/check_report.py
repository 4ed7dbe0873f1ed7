"""What `check` found: one record per source, ready for a table or for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from videop2r_data.builders.findings import Finding, ServerLook, no_error
from videop2r_data.builders.sources import BadRow
from videop2r_data.media import MediaProbe
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.sample import DataType
from videop2r_data.schemas.verdict import RejectReason


class Spread(Model):
    """Smallest, middle and largest of some measurements."""

    min: float
    median: float
    """Of an even number of values: the lower middle one, so that it is a value that occurs."""
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of no values.

        >>> Spread.of([3.0, 1.0, 2.0])
        Spread(min=1.0, median=2.0, max=3.0)
        """
        if not values:
            return None
        ordered = sorted(values)
        return cls(min=ordered[0], median=ordered[(len(ordered) - 1) // 2], max=ordered[-1])


class MediaStats(Model):
    """The usable files of one kind."""

    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    width: Spread
    height: Spread
    """Pixels, upright."""
    frames: Spread
    """Frames that a file shows; 1 for an image."""
    duration_s: Spread | None = None
    """Seconds; None for images."""
    fps: Spread | None = None
    total_s: float = 0.0
    """Seconds of all of them."""


class BadFile(Model):
    """One media file that cannot be used, and the rows that need it."""

    path: str
    """As in the rows: relative to the media root."""
    data_type: DataType
    reason: RejectReason
    detail: str
    rows: int = Field(ge=1)
    """Rows that need it."""
    sample_ids: list[str]
    """Their ids; in a report only the first few."""


class MediaFault(Model):
    """All files of one source that fail for one reason."""

    reason: RejectReason
    files: int = Field(ge=1)
    rows: int = Field(ge=1)
    examples: list[BadFile]
    """The first files, in the order of the pool."""


class FileWarning(Model):
    """A usable file with something odd about it."""

    path: str
    warnings: list[str]


class SourceCheck(Model):
    """One source."""

    name: str
    kind: str
    media_root: str | None
    error: str | None = None
    """Why the pool could not be read to its end; the rows before that are checked all the same."""
    note: str = ""
    """What was read from the pool as a whole, and the recipe does not say."""
    rows: int = Field(ge=0)
    """All rows, bad ones included."""
    bad_rows: dict[str, int]
    """Reason -> rows of the pool that cannot be used at all."""
    bad_examples: list[BadRow]
    """The first of them."""
    table: dict[str, dict[str, int]]
    """Data type -> problem type -> good rows of the pool."""
    files: int = Field(ge=0)
    """Different media files that good rows need."""
    files_ok: int = Field(ge=0)
    rows_ok: int = Field(ge=0)
    """Good rows whose media can be used (or that need none)."""
    faults: list[MediaFault]
    """Most frequent first."""
    videos: MediaStats | None
    images: MediaStats | None
    times: dict[str, int] = Field(default_factory=dict)
    """Where frame times come from (`exact`, `repaired`, `assumed`) -> usable clips."""
    warned: int = Field(ge=0)
    """Usable files with a warning."""
    warning_kinds: dict[str, int] = Field(default_factory=dict)
    """Warning, its numbers as `N` -> usable files."""
    warnings: list[FileWarning]
    """The first of them."""
    left_out: int = Field(default=0, ge=0)
    """Of a folder: files that are neither clip nor image by their ending."""

    @property
    def ok(self) -> bool:
        """Every row can be used."""
        return self.error is None and self.rows == self.rows_ok


class FileLine(Model):
    """One line of `--report`: a file, or a row of the pool that cannot be used at all."""

    what: Literal["file", "row"]
    source: str
    ok: bool
    reason: str = ""
    detail: str = ""
    path: str = ""
    data_type: str = ""
    rows: int = Field(default=1, ge=1)
    """Rows that need the file."""
    sample_ids: list[str] = Field(default_factory=list)
    """All of them."""
    row: int | None = None
    """Of a bad row: its place in the pool, from 0."""
    probe: MediaProbe | None = None
    """What the file is; None if it cannot be used."""

    @classmethod
    def of_row(cls, source: str, bad: BadRow) -> FileLine:
        """The line of a bad row."""
        return cls(
            what="row",
            source=source,
            ok=False,
            reason=bad.reason.value,
            detail=bad.detail,
            row=bad.row,
            sample_ids=[bad.sample_id] if bad.sample_id else [],
        )


class CheckReport(Model):
    """Every source of a recipe, and what a build needs besides, looked at before anything is spent."""

    deep: bool
    """Every frame of every file was decoded."""
    ok: bool
    """Every row of every source can be used, and no finding of setup and servers is an error."""
    rows: int = Field(ge=0)
    rows_ok: int = Field(ge=0)
    files: int = Field(ge=0)
    files_ok: int = Field(ge=0)
    sources: list[SourceCheck]
    setup: list[Finding] = Field(default_factory=list)
    """Settings, libraries, folders."""
    servers: list[ServerLook] = Field(default_factory=list)
    calls_usd: float = Field(default=0.0, ge=0)
    """What the trial calls cost by the recipe's prices."""

    def joined(self, setup: list[Finding], servers: list[ServerLook]) -> CheckReport:
        """With what was found beside the pool."""
        return self.model_copy(
            update={
                "ok": self.ok and no_error(setup) and all(server.ok for server in servers),
                "setup": setup,
                "servers": servers,
                "calls_usd": sum(call.usd for server in servers for call in server.calls),
            }
        )

    @classmethod
    def of(cls, sources: list[SourceCheck], *, deep: bool) -> CheckReport:
        """Add the sources up."""
        return cls(
            deep=deep,
            ok=all(source.ok for source in sources),
            rows=sum(source.rows for source in sources),
            rows_ok=sum(source.rows_ok for source in sources),
            files=sum(source.files for source in sources),
            files_ok=sum(source.files_ok for source in sources),
            sources=sources,
        )


def total_seconds(durations: Sequence[float]) -> float:
    """An exact sum: the same whatever order the files were finished in."""
    return math.fsum(durations)
