"""What `verify` finds: one code per kind of fault, each counted, the first places kept."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from videop2r_data.schemas.base import Model

Severity = Literal["error", "warning"]
PLACES = 5
"""Places kept per finding."""

PAPER_TABLE: dict[str, dict[str, int]] = {
    "image": {
        "multiple choice": 47_091,
        "numerical": 18_476,
        "OCR": 4_014,
        "free-form": 2_501,
        "regression": 693,
    },
    "video": {"multiple choice": 86_910, "numerical": 1_371, "free-form": 1_006},
}
"""The released table, data type -> problem type -> rows; 162,062 in all [paper, table of the data]."""


class Code(StrEnum):
    """What can be wrong with a release."""

    # files
    FILE_UNREADABLE = "file_unreadable"
    BAD_RECORD = "bad_record"
    """A line or an element of a list that is no JSON object."""
    PART_MISSING = "part_missing"
    PART_EMPTY = "part_empty"
    NO_ROWS = "no_rows"
    SCHEMA_MISMATCH = "schema_mismatch"
    WORKER_CRASH = "worker_crash"
    """Reading this slice killed its process."""
    # lock and card
    LOCK_MISSING = "lock_missing"
    LOCK_INVALID = "lock_invalid"
    LOCK_DIGEST = "lock_digest"
    """Not the lock that the card was made of."""
    FILE_MISSING = "file_missing"
    FILE_UNLISTED = "file_unlisted"
    FILE_DIGEST = "file_digest"
    LOCK_ROWS = "lock_rows"
    LEDGER = "ledger"
    CARD_MISSING = "card_missing"
    CARD_INVALID = "card_invalid"
    CARD_CONFIG = "card_config"
    """A loader would take other files than those of the config, or older rows."""
    CARD_COUNT = "card_count"
    CARD_FEATURES = "card_features"
    NOT_AS_WRITTEN = "not_as_written"
    """Not what the maker of the card writes of these files: edited, or made by another version."""
    # one row
    BAD_VALUE = "bad_value"
    """A cell of the wrong type, missing, or outside of its range."""
    UNKNOWN_PROBLEM_TYPE = "unknown_problem_type"
    UNKNOWN_DATA_TYPE = "unknown_data_type"
    BAD_OPTIONS = "bad_options"
    BAD_SOLUTION = "bad_solution"
    BAD_REFERENCE = "bad_reference"
    UNSAFE_PATH = "unsafe_path"
    PATH_AND_DATA_TYPE = "path_and_data_type"
    TRACE_FAULT = "trace_fault"
    NOT_CANONICAL = "not_canonical"
    SEGMENT_DIFFERS = "segment_differs"
    REWARD_DIFFERS = "reward_differs"
    BELOW_THRESHOLD = "below_threshold"
    VERIFY_STEP = "verify_step"
    """The recipe's own verify step would drop this row (length, observation, consistency, copied verdict)."""
    JUDGEMENT = "judgement"
    BAD_KEY = "bad_key"
    FRAMES = "frames"
    SYNTHETIC = "synthetic"
    BAD_REASON = "bad_reason"
    REASON_DIFFERS = "reason_differs"
    """A rejected row whose output does not show the reason given."""
    # rows against rows
    DUPLICATE_ID = "duplicate_id"
    DUPLICATE_ROW = "duplicate_row"
    ID_IN_TWO_CONFIGS = "id_in_two_configs"
    QUESTION_DIFFERS = "question_differs"
    """One sample_id, two questions."""
    NOT_IN_RL = "not_in_rl"


class Place(Model):
    """Where a fault was seen."""

    file: str
    row: int | None = None
    """Index in the file, from 0; None: the file as a whole."""
    field: str = ""
    got: str = ""
    expected: str = ""


class Finding(Model):
    """All faults of one kind."""

    code: Code
    severity: Severity
    count: int = Field(ge=1)
    places: list[Place]
    """The first ones, in file order."""


class PaperDifference(Model):
    """This release against the paper's table."""

    table: dict[str, dict[str, int]]
    """data type -> problem type -> rows here minus rows there; only cells that differ."""
    rows: int
    """All rows here minus 162,062."""


class VerifyReport(Model):
    """The outcome of `verify`."""

    where: str
    layout: Literal["ours", "official"]
    revision: str = ""
    """Commit of a Hub data set."""
    files: int
    configs: dict[str, int]
    """Config -> rows."""
    rows: int
    table: dict[str, dict[str, int]]
    """data type -> problem type -> rows of `sft`, or of `rl` if there is no `sft`."""
    outcomes: dict[str, int] = Field(default_factory=dict)
    """Outcome -> rows of `rejected`."""
    funnel: dict[str, int] = Field(default_factory=dict)
    """`stage/reason` -> rows of `rejected`, in the order of the stages."""
    findings: list[Finding]
    duplicates: dict[str, int] = Field(default_factory=dict)
    """`id` and `row` -> rows that repeat an earlier one."""
    paper: PaperDifference | None = None
    """Only for a release that claims to be the paper's."""
    notes: list[str] = Field(default_factory=list)
    """How open points were read; never a fault."""
    locked: bool = False
    """There is a lock, by which a missing file or row would show."""
    ok: bool
    """No finding of severity error."""
    seconds: float
    """In all."""
    startup_s: float = 0.0
    """The part of it for imports, for starting processes, and for waiting for them."""
    rows_per_s: float
    """Without the start-up."""
    workers: int


class Findings:
    """A mergeable collection of faults."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Code, Severity], tuple[int, list[Place]]] = {}

    def add(
        self,
        code: Code,
        file: str,
        row: int | None = None,
        field: str = "",
        *,
        got: Any = "",
        expected: Any = "",
        count: int = 1,
        severity: Severity = "error",
    ) -> None:
        """Count a fault; its place is kept if it is one of the first."""
        number, places = self._seen.get((code, severity), (0, []))
        if len(places) < PLACES:
            places.append(Place(file=file, row=row, field=field, got=clip(got), expected=clip(expected)))
        self._seen[code, severity] = (number + count, places)

    def merge(self, other: Findings) -> None:
        """Append those of a later slice."""
        for key, (count, places) in other._seen.items():
            number, mine = self._seen.get(key, (0, []))
            self._seen[key] = (number + count, (mine + places)[:PLACES])

    @property
    def errors(self) -> bool:
        """Whether any fault is an error."""
        return any(severity == "error" for _, severity in self._seen)

    def listing(self) -> list[Finding]:
        """Errors first, then by the order of `Code`."""
        order = list(Code)
        keys = sorted(self._seen, key=lambda key: (key[1] != "error", order.index(key[0])))
        return [
            Finding(code=c, severity=s, count=self._seen[c, s][0], places=self._seen[c, s][1])
            for c, s in keys
        ]


def clip(value: Any, limit: int = 160) -> str:
    """A value as one line for people; long ones are cut in the middle, lone surrogates escaped."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > limit:
        text = f"{text[: limit - 40]}…[{len(text):,} characters]…{text[-12:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nested(table: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Counts by pair as a table of tables, sorted.

    >>> nested(Counter({("video", "OCR"): 2}))
    {'video': {'OCR': 2}}
    """
    out: dict[str, dict[str, int]] = {}
    for (data_type, problem_type), count in sorted(table.items()):
        out.setdefault(data_type, {})[problem_type] = count
    return out
