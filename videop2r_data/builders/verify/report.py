"""What `verify` finds: faults by code, what each slice adds up to, and what only the whole release shows."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from videop2r_data.files import LOCK_NAME, Release
from videop2r_data.schemas import (
    PAPER,
    PLAIN,
    Extra,
    LengthSpec,
    Model,
    NamedJudge,
    TraceGrammar,
    VerifySpec,
    default_grammar,
)

# Findings: one code per kind of fault, each counted, the first places kept.


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
    """How ambiguous columns were read; never a fault."""
    locked: bool = False
    """There is a lock, so that a missing file or row is found."""
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


# The rules: the settings of the release's own lock, else those of the paper.


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the row checks; small, and sent to every worker.

    Attributes:
        layout: which columns.
        spec: threshold, policy and optional checks of the verify step.
        own: `spec` is the recipe's own, so that its whole verify step can be run again.
        bounded: the recipe bounds the length of segments.
        judge: whether the recipe has a judge; None: not known.
        synthetic: what every row must say; None: not known.
        judges: the list of judges, if the recipe has one.
        extra: columns that not every data set has.
        grammar: what a trace is.
    """

    layout: Literal["ours", "official"]
    spec: VerifySpec
    own: bool = False
    bounded: bool = False
    judge: bool | None = None
    synthetic: bool | None = None
    judges: tuple[NamedJudge, ...] = ()
    extra: Extra = PLAIN
    grammar: TraceGrammar = dataclasses.field(default_factory=default_grammar)


def rules_of(release: Release, findings: Findings) -> Rules:
    """Take the rules from the lock's recipe; a recipe that cannot be read is reported."""
    if release.layout == "official":
        return Rules("official", VerifySpec(policy=PAPER))
    if release.lock is None:
        return Rules("ours", VerifySpec())
    try:
        recipe = release.lock.read_recipe()
    except ValidationError as error:
        first = error.errors()[0]
        findings.add(
            Code.LOCK_INVALID,
            LOCK_NAME,
            field="recipe." + ".".join(map(str, first["loc"])),
            got=first["msg"],
            expected="a valid recipe",
        )
        return Rules("ours", VerifySpec())
    return Rules(
        "ours",
        recipe.verify,
        own=True,
        bounded=recipe.verify.length != LengthSpec(),
        judge=any(one.decides == "sufficiency" and one.does == "filter" for one in recipe.all_judges),
        judges=tuple(recipe.judges),
        extra=recipe.extra,
        synthetic=recipe.synthetic,
        grammar=recipe.trace,
    )


# The tally of one slice: mergeable, and small enough to travel between processes.


class Tally:
    """Counts, findings and 64-bit digests of some rows of one config.

    A digest of 64 bits stands for each text: among 260,000 rows two different texts share one with a
    probability of 2e-9.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.findings = Findings()
        self.table: Counter[tuple[str, str]] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.at = array("Q")
        """Row index in the file of each remembered row."""
        self.ids = bytearray()
        self.contents = bytearray()
        self.questions = bytearray()
        self.busy_s = 0.0
        """Seconds that reading and checking took, without imports."""
        self.process = 0
        """Id of the operating-system process that made it."""
        self.sha256 = ""
        """Of a whole file, for a digest task."""

    def remember(self, row: int, sample_id: str, content: str, question: str) -> None:
        """Keep the digests by which rows are compared with other rows."""
        self.at.append(row)
        self.ids += _digest(sample_id)
        self.contents += _digest(content)
        self.questions += _digest(question)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


# Across slices: duplicates, and the configs against each other.


_U64 = np.dtype("<u8")
Digests = NDArray[np.uint64]
Remembered = Literal["ids", "contents", "questions"]


class Gathered:
    """All rows of one config: counts, and the digests with the place of each row."""

    def __init__(self) -> None:
        self.total = Tally()
        self._files: list[str] = []
        self._starts: list[int] = []

    def add(self, file: str, tally: Tally) -> None:
        """Append the tally of the next slice."""
        total = self.total
        self._files.append(file)
        self._starts.append(len(total.at))
        total.rows += tally.rows
        for name in ("table", "outcomes", "reasons", "notes"):
            getattr(total, name).update(getattr(tally, name))
        for name in ("at", "ids", "contents", "questions"):
            getattr(total, name).extend(getattr(tally, name))

    def digests(self, of: Remembered) -> Digests:
        """64-bit digest of each row's id, content or question columns, in order."""
        return np.frombuffer(bytes(getattr(self.total, of)), _U64)

    def place(self, at: int) -> tuple[str, int]:
        """(file, row) of the row at a position."""
        part = int(np.searchsorted(self._starts, at, side="right")) - 1
        return self._files[part], self.total.at[at]


def repeats(digests: Digests) -> list[tuple[int, int]]:
    """(position, first position) of each value that stands earlier already, by position.

    >>> repeats(np.array([7, 8, 7, 7], dtype=np.uint64))
    [(2, 0), (3, 0)]
    """
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    new = np.ones(len(digests), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = order[np.maximum.accumulate(np.where(new, np.arange(len(digests)), 0))] if len(digests) else order
    return sorted((int(a), int(b)) for a, b in zip(order[~new], first[~new], strict=True))


_REPEATS: tuple[tuple[str, Code, str, Remembered], ...] = (
    ("id", Code.DUPLICATE_ID, "sample_id", "ids"),
    ("row", Code.DUPLICATE_ROW, "output", "contents"),
)


def check_repeats(gathered: Mapping[str, Gathered], release: Release, findings: Findings) -> dict[str, int]:
    """Ids and contents that stand twice in one config."""
    official = release.layout == "official"
    counts: Counter[str] = Counter()
    for config, rows in gathered.items():
        for name, code, field, of in _REPEATS:
            if name == "row" and config == "rejected":
                continue
            mild = official or (name == "row" and config == "rl")
            twice = repeats(rows.digests(of))
            counts[name] += len(twice)
            for at, first in twice:
                got = "as in {}, row {}".format(*rows.place(first))
                severity: Severity = "warning" if mild else "error"
                findings.add(code, *rows.place(at), field, got=got, expected="once", severity=severity)
    return dict(counts)


def check_across(gathered: Mapping[str, Gathered], findings: Findings) -> None:
    """A question is accepted or rejected, not both; every accepted one stands in `rl`, word for word."""
    sft, rl, rejected = (gathered.get(name) for name in ("sft", "rl", "rejected"))
    if sft is None:
        return
    ids = sft.digests("ids")
    if rejected is not None:
        for at in np.flatnonzero(np.isin(ids, rejected.digests("ids"))).tolist():
            got = "in sft and in rejected"
            findings.add(Code.ID_IN_TWO_CONFIGS, *sft.place(at), "sample_id", got=got, expected="in one")
    if rl is None:
        return
    known = rl.digests("ids")
    order = np.argsort(known, kind="stable")
    known = known[order]
    spot = np.searchsorted(known, ids)
    found = np.zeros(len(spot), dtype=bool)
    inside = spot < len(known)
    found[inside] = known[spot[inside]] == ids[inside]
    for at in np.flatnonzero(~found).tolist():
        findings.add(Code.NOT_IN_RL, *sft.place(at), "sample_id", got="only in sft", expected="in rl too")
    rows, twins = np.flatnonzero(found), order[spot[found]]
    differ = sft.digests("questions")[rows] != rl.digests("questions")[twins]
    for at, twin in zip(rows[differ].tolist(), twins[differ].tolist(), strict=True):
        got = "another question than {}, row {}".format(*rl.place(twin))
        expected = "the same question columns"
        findings.add(Code.QUESTION_DIFFERS, *sft.place(at), "sample_id", got=got, expected=expected)
