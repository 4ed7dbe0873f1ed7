"""Steps from the rows of a benchmark as they are published to rows with a column for each thing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from videop2r_data.builders.sources.answers import FieldError, read_options
from videop2r_data.builders.sources.normalise import fill_template, value_of
from videop2r_data.schemas import (
    LETTERS,
    AnyStep,
    EachStep,
    IntervalStep,
    LeaveOutStep,
    MakeStep,
    NestedStep,
    SetStep,
    SplitStep,
    TagValues,
)

Row = dict[str, Any]
PLACE = "@n"
"""Column with the place of a row in the list that it came from."""
_NAMED = re.compile(r"\s*(?:[A-Z][a-z]+ )?\(?([A-Z]|\d{1,2})(?:\)|\s*[.:])\s*(\S.*)")
"""`Sentence A: x`, `Option 1: x`, `B. x`."""
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)\s*")


class Steps:
    """All steps of a layout, in order.

    Attributes:
        left_out: reason -> rows that steps left out so far.
    """

    def __init__(self, steps: Sequence[AnyStep]) -> None:
        self._steps = steps
        self.left_out: Counter[str] = Counter()

    def __call__(self, row: Mapping[str, Any]) -> Iterator[Row]:
        """The rows that a published row stands for; none if it is left out.

        Raises:
            FieldError: a step does not fit it.
        """
        return self._from(dict(row), 0)

    def _from(self, row: Row, at: int) -> Iterator[Row]:
        for place in range(at, len(self._steps)):
            step = self._steps[place]
            if not matches(row, step.when):
                continue
            if isinstance(step, LeaveOutStep):
                self.left_out[step.why] += 1
                return
            if isinstance(step, NestedStep | EachStep):
                for inner in _unfold(step, row):
                    yield from self._from(inner, place + 1)
                return
            row = _CHANGES[type(step)](step, row)
        yield row


def matches(row: Mapping[str, Any], when: TagValues) -> bool:
    """Whether a row has one of the values in each of the columns."""
    return all(_plain(value_of(row, column)) in values for column, values in when.items())


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _unfold(step: NestedStep | EachStep, row: Row) -> Iterable[Row]:
    if isinstance(step, EachStep):
        return _each(step, row)
    outer = {name: value for name, value in row.items() if name.startswith("@")}
    inside = {name: value for name, value in row.items() if not name.startswith("@")}
    return _nested(step.levels, inside, outer)


def _nested(levels: Sequence[str], value: Any, outer: Row) -> Iterator[Row]:
    if not levels:
        if not isinstance(value, dict):
            raise FieldError(f"{type(value).__name__} where a row is expected, inside of {_told(outer)}")
        yield outer | value
        return
    level, rest = levels[0], levels[1:]
    if level == "[]":
        if not isinstance(value, list):
            raise FieldError(f"{type(value).__name__} where a list is expected, inside of {_told(outer)}")
        for place, inner in enumerate(value):
            yield from _nested(rest, inner, outer | {PLACE: place})
        return
    if not isinstance(value, dict):
        raise FieldError(f"{type(value).__name__} where {level!r} leads on, inside of {_told(outer)}")
    if level.startswith("="):
        if level[1:] not in value:
            raise FieldError(f"no {level[1:]!r} in the file")
        yield from _nested(rest, value[level[1:]], outer)
        return
    for key, inner in value.items():
        yield from _nested(rest, inner, outer | {level: key})


def _told(outer: Row) -> str:
    places = (f"{name} {value!r:.60}" for name, value in outer.items() if not name.startswith("@"))
    return ", ".join(places) or "the file"


def _each(step: EachStep, row: Row) -> Iterator[Row]:
    lists = {column: value_of(row, column) for column in step.columns}
    for column, found in lists.items():
        if not isinstance(found, list | tuple):
            raise FieldError(f'"{column}" is {type(found).__name__}, a list is needed')
    sizes = {column: len(found) for column, found in lists.items()}
    if len(set(sizes.values())) > 1:
        raise FieldError(f"lists of different lengths: {', '.join(f'{c} {n}' for c, n in sizes.items())}")
    for place, entries in enumerate(zip(*lists.values(), strict=True)):
        inner = row | {PLACE: place}
        for column, entry in zip(lists, entries, strict=True):
            inner |= entry if isinstance(entry, dict) else {column: entry}
        yield inner


# --- steps that change columns of one row ---


def _make(step: MakeStep, row: Row) -> Row:
    try:
        text = fill_template(row, step.of)
    except FieldError:
        if step.otherwise is None:
            raise
        text = ""
    if step.after and step.after in text:
        text = text.partition(step.after)[2]
    if step.before and step.before in text:
        text = text.rpartition(step.before)[0]
    if step.every is not None:
        if not (text.isascii() and text.isdecimal()):
            raise FieldError(f'"{step.of}" is {text[:60]!r}, a whole number is needed')
        text = str(int(text) // step.every)
    if step.values or step.otherwise is not None:
        made = step.values.get(text, step.otherwise)
        if made is None:
            known = ", ".join(list(step.values)[:12])
            raise FieldError(f'"{step.of}" is {text[:60]!r}, known are: {known}')
        text = made
    return row | {step.column: text}


def _set(step: SetStep, row: Row) -> Row:
    return row | step.columns


def _split(step: SplitStep, row: Row) -> Row:
    question = value_of(row, step.question)
    if not isinstance(question, str):
        raise FieldError(f'"{step.question}" is {type(question).__name__}, a text is needed')
    if step.known:
        return row | {step.question: _cut_known(question, value_of(row, step.known))}
    lines = question.rstrip().split("\n")
    first = len(lines)
    while first > 1 and _NAMED.fullmatch(lines[first - 1]):
        first -= 1
    found = [line.strip() for line in lines[first:]]
    parts = [match.groups() for match in map(_NAMED.fullmatch, found) if match]
    if len(parts) < 2 or [label for label, _ in parts] not in (list(LETTERS[: len(parts)]), _counted(parts)):
        raise FieldError(f'"{step.question}" does not end in options, one a line')
    question = "\n".join(lines[:first]).rstrip()
    texts = [text.strip() for _, text in parts]
    gold = _plain(value_of(row, step.answer)).strip()
    same = [place for place, options in enumerate(zip(found, texts, strict=True)) if gold in options]
    if len(same) == 1:
        gold = LETTERS[same[0]]
    return row | {step.question: question, "options": texts, step.answer: gold}


def _counted(parts: Sequence[object]) -> list[str]:
    return [str(place + 1) for place in range(len(parts))]


def _cut_known(question: str, known: Any) -> str:
    """The question without options that are written behind it as well."""
    options, _ = read_options(known)
    if not options:
        return question
    text = options[0][2:].strip()
    at = max(question.rfind(f"A.{gap}{text}") for gap in (" ", ""))
    return question[:at].rstrip() if at > 0 else question


def _interval(step: IntervalStep, row: Row) -> Row:
    got = value_of(row, step.column)
    while isinstance(got, list | tuple) and len(got) == 1:
        got = got[0]
    if isinstance(got, str) and (match := _SPAN.fullmatch(got)):
        got = [float(match.group(1)), float(match.group(2))]
    if not (isinstance(got, list | tuple) and len(got) == 2 and all(_is_time(x) for x in got)):
        raise FieldError(f'"{step.column}" is {got!r:.60}, an interval [start, end] is needed')
    start, end = got
    length = value_of(row, step.end) if step.end else None
    if _is_time(length) and start < length < end:
        end = length
    return row | {step.column: [start, end]}


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHANGES: dict[type, Callable[[Any, Row], Row]] = {
    MakeStep: _make,
    SetStep: _set,
    SplitStep: _split,
    IntervalStep: _interval,
}
