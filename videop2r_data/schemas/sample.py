"""A question of the pool, and the letters that its options go by."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self, cast

from pydantic import Field, field_validator, model_validator

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.verdict import RejectReason

AnswerForm = Literal["option", "number", "reading", "text", "interval", "box"]
"""What an answer is: a letter of the question's options, one number, text as it is written in the picture,
free text, `[start, end]` in seconds, `[x1, y1, x2, y2]` in pixels."""


class TypeTraits(NamedTuple):
    """What follows from a problem type, wherever it matters.

    Attributes:
        form: of the answer; questions of form `option` have options.
        grader: key of `validators.scorer.GRADERS`, which scores the answers.
        metric: the score in words, as docs/scoring.md has it.
        origin: where the metric comes from, as docs/scoring.md has it.
        aliases: other names in pools, lower case, with blanks for `_` and `-`.
        short: name in narrow tables; empty: the name itself.
        hint: end of the line "The answer: ..." where a prompt file has no section `hint: <name>`. The first
            seven types have none: their hints stand in the prompt files, which are versioned.
    """

    form: AnswerForm
    grader: str
    metric: str
    origin: str
    aliases: tuple[str, ...] = ()
    short: str = ""
    hint: str = ""


_PAPER = "[paper §7.2]"
_HERE = "this project"


class ProblemType(StrEnum):
    """What kind of answer a question wants; the values are those of the released column.

    An entry declares a problem type. Recipes, the readers of pools, prompts, scorers, `verify`, the cards and
    the tables of docs and terminal follow from it. An answer that no grader fits needs a new `Grader` too.
    """

    _value_: str
    traits: TypeTraits

    def __new__(cls, name: str, traits: TypeTraits | None = None) -> Self:
        """Declare a type; without traits, for type checkers alone: `ProblemType(name)` looks a member up."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.traits = cast(TypeTraits, traits)
        return member

    MULTIPLE_CHOICE = (
        "multiple choice",
        TypeTraits(
            form="option",
            grader="choice",
            metric="1 if the option matches, else 0",
            origin=_PAPER,
            aliases=("multiple choices", "multi choice", "multichoice", "mcq", "mc", "choice"),
            short="choice",
        ),
    )
    NUMERICAL = (
        "numerical",
        TypeTraits(
            form="number",
            grader="number",
            metric="1 if the numbers are equal, else 0",
            origin=_PAPER,
            aliases=("numeric", "number"),
        ),
    )
    OCR = (
        "OCR",
        TypeTraits(
            form="reading",
            grader="reading",
            metric="`max(0, 1 - WER)`, WER = word edits / words of the reference (jiwer); CJK by character",
            origin=_PAPER,
            aliases=("optical character recognition",),
        ),
    )
    FREE_FORM = (
        "free-form",
        TypeTraits(
            form="text",
            grader="text",
            metric="mean F of ROUGE-1, ROUGE-2, ROUGE-L, stemmer on (rouge-score)",
            origin=_PAPER,
            aliases=("freeform", "free text", "open ended", "openended", "open"),
        ),
    )
    REGRESSION = (
        "regression",
        TypeTraits(
            form="number",
            grader="relative",
            metric="`1 - |p - r| / |r|`, clipped to [0, 1]; for r = 0: 1 if p = 0, else 0",
            origin=_PAPER,
        ),
    )
    TEMPORAL_GROUNDING = (
        "temporal grounding",
        TypeTraits(
            form="interval",
            grader="interval",
            metric="interval IoU of `[start, end]`, seconds",
            origin=_HERE,
            aliases=("video temporal grounding", "temporal localization"),
            short="temporal",
        ),
    )
    SPATIAL_GROUNDING = (
        "spatial grounding",
        TypeTraits(
            form="box",
            grader="box",
            metric="box IoU of `[x1, y1, x2, y2]`",
            origin=_HERE,
            aliases=("visual grounding", "grounding box", "bounding box", "bbox"),
            short="spatial",
        ),
    )


class DataType(StrEnum):
    """What the question is about."""

    IMAGE = "image"
    VIDEO = "video"
    TEXT = "text"
    """No media at all."""


_ANSWER = re.compile(r"\A\s*<answer>(.*)</answer>\s*\Z", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f]")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def strip_answer_tag(solution: str) -> str:
    """The text inside one outer `<answer>…</answer>`, or the text itself if there is none; stripped.

    >>> strip_answer_tag("<answer> A </answer>")
    'A'
    """
    match = _ANSWER.match(solution)
    return (match.group(1) if match else solution).strip()


def safe_relative_path(path: str) -> str:
    r"""Normalise a media path and refuse whatever could leave its root.

    Returns:
        A POSIX path with no `.`, `..` or empty part.

    Raises:
        ValueError: absolute, parent, drive, URL, backslash, NUL or control characters, or empty.

    >>> safe_relative_path("./a//b.mp4")
    'a/b.mp4'
    """
    if not path or _CONTROL.search(path):
        raise ValueError(f"not a media path: {path!r}")
    # Backslashes and drives too: the data set may be unpacked on Windows.
    if "\\" in path or "://" in path or path.startswith("/") or _DRIVE.match(path):
        raise ValueError(f"a media path is relative, with forward slashes: {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError(f"a media path never leaves its root: {path!r}")
    return "/".join(parts)


class Focus(NamedTuple):
    """What of a clip a question is about: only this is sampled.

    Attributes:
        start_s: where the part begins, seconds from the first shown frame; None: where the clip begins.
        end_s: where it ends; None: where the clip ends.
        question: the text that frames are selected by; empty where they are not.
    """

    start_s: float | None = None
    end_s: float | None = None
    question: str = ""

    @property
    def part(self) -> tuple[float | None, float | None]:
        """Where the part begins and ends."""
        return self.start_s, self.end_s


WHOLE = Focus()


def part_fault(start_s: float | None, end_s: float | None, data_type: DataType) -> str:
    """What is wrong with a part of a clip, or an empty text."""
    if (start_s, end_s) == (None, None):
        return ""
    if data_type is not DataType.VIDEO:
        return f"start_s and end_s name a part of a clip, and this is {data_type.value}"
    begin, end = start_s or 0.0, math.inf if end_s is None else end_s
    if not (0 <= begin < math.inf and begin < end):
        return f"start_s {begin:g} is not in [0, end_s {end:g})"
    return ""


class Sample(Model):
    """One question with its reference answer and the media that it is about."""

    sample_id: str = Field(min_length=1)
    """Unique in the pool and stable across runs: `<source name>/<problem_id>`."""
    problem_id: str
    problem: str = Field(min_length=1)
    problem_type: ProblemType
    data_type: DataType
    options: tuple[str, ...] = ()
    """As in the pool: `"A. text"`; empty unless multiple choice."""
    solution: str
    """The reference as released: `<answer>…</answer>`."""
    path: str = ""
    """Relative to the media root of its source, POSIX; empty for `text`."""
    data_source: str = ""
    source: str
    """Name of the recipe's source that gave this row (its media root is found by this name)."""
    row: int = Field(ge=0)
    """Index of the row in its source, for error messages."""
    start_s: float | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)
    """Where the part of the clip that the question is about begins, seconds; None: at its beginning."""
    end_s: float | None = Field(default=None, gt=0, exclude_if=lambda value: value is None)
    """Where that part ends, seconds; None: at the end of the clip."""
    tags: dict[str, str] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """What tables of an evaluation go by (task, level, duration ...); no part of the question."""

    @property
    def reference(self) -> str:
        """The reference answer without its tag."""
        return strip_answer_tag(self.solution)

    @property
    def focus(self) -> Focus:
        """The part of the clip that is sampled."""
        return Focus(self.start_s, self.end_s)

    def content(self) -> dict[str, Any]:
        """What makes a question itself, without its place: equal content, same question."""
        part = {"start_s": self.start_s, "end_s": self.end_s}
        return {
            "problem_id": self.problem_id,
            "problem": self.problem,
            "problem_type": self.problem_type.value,
            "data_type": self.data_type.value,
            "options": list(self.options),
            "solution": self.solution,
            "path": self.path,
            "data_source": self.data_source,
            **{name: value for name, value in part.items() if value is not None},
        }

    @field_validator("path")
    @classmethod
    def _stay_in_root(cls, value: str) -> str:
        return safe_relative_path(value) if value else value

    @model_validator(mode="after")
    def _fits(self) -> Sample:
        if (self.data_type is DataType.TEXT) != (self.path == ""):
            raise ValueError(f"data_type {self.data_type.value!r} with path {self.path!r}")
        # Readers of pools ask for two; a declared benchmark may have questions with one.
        if self.problem_type.traits.form == "option" and not self.options:
            raise ValueError(f"{self.problem_type.value} needs options")
        if fault := part_fault(self.start_s, self.end_s, self.data_type):
            raise ValueError(fault)
        return self


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
    tags: dict[str, str] = Field(default_factory=dict, exclude=True)
    """As far as they can be read: those of `Sample`, `problem_type` and `data_type`."""

    @property
    def sample_id(self) -> str:
        """Unique in the pool: `<source>/<problem_id>@<row>`; `@` keeps it apart from ids of good rows."""
        return f"{self.source}/{self.problem_id}@{self.row}"


# --- the letter that each option goes by: read once, used by prompts and scorers alike ---

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABELLED = re.compile(r"\s*[(\[（]?\s*([A-Za-z]|\d{1,2})\s*[)\]）.:：．、]\s*(.*)", re.DOTALL)


class LabelledOption(NamedTuple):
    """One option: its label as models are asked to print it, and its text without the label."""

    label: str
    text: str


@lru_cache(maxsize=8192)
def label_options(options: tuple[str, ...]) -> tuple[LabelledOption, ...]:
    """Split every option into label and text.

    Labels are read from the options only if all of them carry one and they rise (`A. x`, `(B) y`, `3) z`);
    otherwise the options go by position: A, B, C ...

    >>> label_options(("A. cat", "B. dog"))[1]
    LabelledOption(label='B', text='dog')
    >>> label_options(("2.", "7.", "3."))[2]
    LabelledOption(label='C', text='3.')
    """
    found = [_LABELLED.fullmatch(option) for option in options]
    read = [LabelledOption(m.group(1).upper(), m.group(2).strip()) for m in found if m is not None]
    # `2.`, `7.`, `3.` are numbers as options and no labels: labels rise and begin at A or 1.
    if len(read) == len(options) and _rises([option.label for option in read]):
        return tuple(read)
    places = (LETTERS[i] if i < len(LETTERS) else str(i + 1) for i in range(len(options)))
    return tuple(LabelledOption(label, text.strip()) for label, text in zip(places, options, strict=True))


def _rises(labels: list[str]) -> bool:
    if labels[:1] == ["1"]:
        return labels == [str(i + 1) for i in range(len(labels))]
    letters = labels[:1] == ["A"] and all(len(x) == 1 and x.isalpha() for x in labels)
    return letters and all(a < b for a, b in pairwise(labels))
