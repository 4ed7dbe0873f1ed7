"""Reference answers: how they are read, and what is wrong with one, said when the pool is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from videop2r_data.schemas import Policy, ProblemType, ScoreReason
from videop2r_data.schemas.sample import strip_answer_tag
from videop2r_data.validators import metrics
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.grading import MAX_TEXT_CHARS
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.options import option_set
from videop2r_data.validators.quantity import Quantity
from videop2r_data.validators.several import read_several
from videop2r_data.validators.text import fold, ocr_units

_EVERY_SWITCH = Policy(number_words=True)
"""How a reference is read: with every reading on, for it is trusted."""


def check_reference(
    problem_type: ProblemType | str, reference: str, options: Sequence[str] = ()
) -> str | None:
    """What is wrong with a reference, for the pool's report; None if it can be scored against.

    >>> check_reference("multiple choice", "C", ["A. x", "B. y"])
    "'C' names none of the options A, B"
    """
    reference = strip_answer_tag(reference)
    if not reference:
        return "the reference is empty"
    if len(reference) > MAX_TEXT_CHARS:
        return f"the reference has {len(reference)} characters, {MAX_TEXT_CHARS} at most"
    return _FAULTS[ProblemType(problem_type)](reference, tuple(options))


def _choice_fault(reference: str, options: tuple[str, ...]) -> str | None:
    if reference_labels(reference, options) is None:
        labels = ", ".join(option_set(options).labels)
        return f"{reference[:60]!r} names none of the options {labels}"
    return None


def _number_fault(reference: str, options: tuple[str, ...]) -> str | None:
    number = reference_number(reference)
    if isinstance(number, ScoreReason):
        return f"{reference[:60]!r} is not one number ({number.value})"
    return None


def _interval_fault(reference: str, options: tuple[str, ...]) -> str | None:
    if isinstance(parse_interval(reference), ScoreReason):
        return f"{reference[:60]!r} is no interval [start, end] in seconds with start < end"
    return None


def _box_fault(reference: str, options: tuple[str, ...]) -> str | None:
    if isinstance(parse_box(reference), ScoreReason):
        return f"{reference[:60]!r} is no box [x1, y1, x2, y2] with x1 < x2 and y1 < y2"
    return None


def _ocr_fault(reference: str, options: tuple[str, ...]) -> str | None:
    return None if ocr_units(fold(reference)) else "the reference holds no text"


def _text_fault(reference: str, options: tuple[str, ...]) -> str | None:
    if not metrics.rouge_tokens(fold(reference), any_script=True):
        return f"{reference[:60]!r} holds neither letters nor digits"
    return None


_FAULTS: dict[ProblemType, Callable[[str, tuple[str, ...]], str | None]] = {
    ProblemType.MULTIPLE_CHOICE: _choice_fault,
    ProblemType.NUMERICAL: _number_fault,
    ProblemType.REGRESSION: _number_fault,
    ProblemType.OCR: _ocr_fault,
    ProblemType.FREE_FORM: _text_fault,
    ProblemType.TEMPORAL_GROUNDING: _interval_fault,
    ProblemType.SPATIAL_GROUNDING: _box_fault,
}


@lru_cache(maxsize=8192)
def reference_labels(reference: str, options: tuple[str, ...]) -> frozenset[str] | None:
    """The labels of a multiple-choice reference: one, or several if the question has several answers."""
    return read_several(reference, option_set(options))


@lru_cache(maxsize=8192)
def reference_number(reference: str) -> Quantity | ScoreReason:
    """The number of a reference, or why there is none."""
    return parse_quantity(reference, _EVERY_SWITCH)
