"""A question of the pool, and the letters that its options go by."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from pydantic import Field, field_validator, model_validator

from videop2r_data.schemas.base import Model


class ProblemType(StrEnum):
    """What kind of answer a question wants; the values are those of the released column."""

    MULTIPLE_CHOICE = "multiple choice"
    NUMERICAL = "numerical"
    OCR = "OCR"
    FREE_FORM = "free-form"
    REGRESSION = "regression"
    TEMPORAL_GROUNDING = "temporal grounding"
    """Answer `[start, end]` in seconds."""
    SPATIAL_GROUNDING = "spatial grounding"
    """Answer `[x1, y1, x2, y2]`."""


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
    if "\\" in path or "://" in path or path.startswith("/") or _DRIVE.match(path):
        raise ValueError(f"a media path is relative, with forward slashes: {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise ValueError(f"a media path never leaves its root: {path!r}")
    return "/".join(parts)


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

    @property
    def reference(self) -> str:
        """The reference answer without its tag."""
        return strip_answer_tag(self.solution)

    @field_validator("path")
    @classmethod
    def _stay_in_root(cls, value: str) -> str:
        return safe_relative_path(value) if value else value

    @model_validator(mode="after")
    def _fits(self) -> Sample:
        if (self.data_type is DataType.TEXT) != (self.path == ""):
            raise ValueError(f"data_type {self.data_type.value!r} with path {self.path!r}")
        if self.problem_type is ProblemType.MULTIPLE_CHOICE and len(self.options) < 2:
            raise ValueError(f"multiple choice needs at least 2 options, got {len(self.options)}")
        return self


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
    if len(read) == len(options) and _rises([option.label for option in read]):
        return tuple(read)
    return tuple(LabelledOption(_by_position(i), option.strip()) for i, option in enumerate(options))


def _rises(labels: list[str]) -> bool:
    if not labels or labels[0] not in ("A", "1"):
        return False
    if labels[0] == "1":
        return labels == [str(i + 1) for i in range(len(labels))]
    return all(len(x) == 1 and x.isalpha() for x in labels) and all(a < b for a, b in pairwise(labels))


def _by_position(index: int) -> str:
    return LETTERS[index] if index < len(LETTERS) else str(index + 1)
