"""What `check` and `doctor` found, as records ready for a table or for JSON."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from videop2r_data.errors import P2RError
from videop2r_data.media import MediaProbe
from videop2r_data.schemas import BadRow, DataType, Model, RejectReason

# Settings, folders, servers and trial calls: `doctor` reports these alone, `check` beside the pool.


State = Literal["ok", "note", "warning", "error"]
"""`error`: a build would fail or keep nothing; `warning`: it would run, and something is odd or will be dear;
`note`: something was not looked at, and why."""
StepName = str


class Finding(Model):
    """One thing that was looked at."""

    about: str
    """`prompts`, `decoder`, `folders`, `disk`, `price`, `key`, `models`, `context`, `call` ..."""
    state: State
    message: str
    hint: str = ""
    """What to do; empty where there is nothing to do."""


class TrialCall(Model):
    """One real call, as a build would make it."""

    data_type: str
    """`video`, `image` or `text`; a judge is shown no media."""
    sample_id: str
    """The question that it was about."""
    frames: int = Field(ge=0)
    input_tokens: int = Field(ge=0)
    """As the server counted, prompt caches included; 0 where it does not say."""
    output_tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)
    usd: float = Field(ge=0)
    """By the recipe's price; 0.0 without one."""
    finish: str
    reply: str
    """The first characters of the answer."""


class ServerLook(Model):
    """One step's model, and what answers for it."""

    step: StepName
    kind: str
    model: str
    address: str
    """Base URL without its query (the first, and how many more); empty for a model in this process."""
    listed: list[str] | None = None
    """Ids of the models that the server lists (the first 20); None: not asked, or it keeps no list."""
    context: int | None = None
    """Tokens of prompt and answer together (Anthropic: of the prompt alone), where the server says."""
    needed: int | None = None
    """Tokens that the longest request of this recipe likely takes, its answer included."""
    calls: list[TrialCall] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing of it would stop a build."""
        return no_error(self.findings)


class DoctorReport(Model):
    """What `p2r-data doctor` found."""

    ok: bool
    """No finding is an error."""
    setup: list[Finding]
    """Settings, libraries, folders."""
    servers: list[ServerLook]
    calls_usd: float = Field(ge=0)
    """What the calls cost by the recipe's prices."""


def no_error(findings: Iterable[Finding]) -> bool:
    """Nothing among them would stop a build."""
    return all(found.state != "error" for found in findings)


def of_error(about: str, error: P2RError, *, hint: str = "") -> Finding:
    """A foreseen error as a finding; its own hint comes first."""
    message = f"{error.where}: {error.message}" if error.where else error.message
    return Finding(about=about, state="error", message=message, hint=error.hint or hint)


def attempted(about: str, look: Callable[[], str]) -> list[Finding]:
    """What a look says, or the error that it ends with; nothing if it says nothing."""
    try:
        said = look()
    except P2RError as error:
        return [of_error(about, error)]
    return [Finding(about=about, state="ok", message=said)] if said else []


# The pool: one `SourceCheck` per source, with its media files, their faults and their sizes.


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


@dataclass
class Measures:
    """Numbers of the usable files of one kind, 8 bytes each."""

    bytes: int = 0
    width: array[float] = field(default_factory=lambda: array("d"))
    height: array[float] = field(default_factory=lambda: array("d"))
    frames: array[float] = field(default_factory=lambda: array("d"))
    duration_s: array[float] = field(default_factory=lambda: array("d"))
    fps: array[float] = field(default_factory=lambda: array("d"))

    def add(self, probe: MediaProbe) -> None:
        """Take one file in."""
        self.bytes += probe.file_bytes
        self.width.append(probe.width)
        self.height.append(probe.height)
        self.frames.append(probe.frames)
        if probe.duration_s is not None:
            self.duration_s.append(probe.duration_s)
        if probe.fps is not None:
            self.fps.append(probe.fps)

    def stats(self) -> MediaStats | None:
        """None of no files. Seconds are summed exactly, so the order of the files does not matter."""
        width, height, frames = Spread.of(self.width), Spread.of(self.height), Spread.of(self.frames)
        if width is None or height is None or frames is None:
            return None
        return MediaStats(
            files=len(self.width),
            bytes=self.bytes,
            width=width,
            height=height,
            frames=frames,
            duration_s=Spread.of(self.duration_s),
            fps=Spread.of(self.fps),
            total_s=math.fsum(self.duration_s),
        )


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
