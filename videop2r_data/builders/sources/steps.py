"""From rows as a benchmark publishes them to rows with a column for each thing, by one of its layouts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videop2r_data.builders.sources.answers import FieldError
from videop2r_data.builders.sources.normalise import fill_template, value_of
from videop2r_data.files import RAW_CHARS, RawRow
from videop2r_data.schemas import Layout, MakeStep, TagValues, safe_relative_path
from videop2r_data.validators import parse_interval

Row = dict[str, Any]
Level = str | tuple[str, ...]
PATH = "@path"
"""Column with the path of the clip, where a layout makes it."""


@dataclass
class Rows:
    """What the rows of one layout become.

    Attributes:
        layout: their form.
        root: where clips may lie.
        prefix: what is cut off the paths of clips.
        left_out: reason -> rows that the layout left out so far.
    """

    layout: Layout
    root: Path | None = None
    prefix: str = ""
    left_out: Counter[str] = field(default_factory=Counter)

    def __call__(self, raw: RawRow, part: str) -> Iterator[RawRow]:
        """The rows that a published row of a file or config stands for; those that do not fit say why."""
        if raw.value is None:
            yield raw
            return
        for row in _unfolded(self.layout.unfold, raw.value, {"@part": part, "@row": raw.index}):
            try:
                if isinstance(row, FieldError):
                    raise row
                left = [why for why, when in self.layout.leave_out.items() if _matches(row, when)]
                self.left_out.update(left[:1])
                if not left:
                    yield self._made(raw.index, row)
            except FieldError as error:
                yield RawRow(raw.index, None, str(error))

    def _made(self, index: int, published: Row) -> RawRow:
        """The row with its further columns; after a fault too: its tags may say where it belongs."""
        layout, row, faults = self.layout, published, []
        for step in layout.steps:
            if _matches(row, step.when):
                try:
                    row = row | {step.make: _made(step, row)}
                except FieldError as error:
                    faults.append(str(error))
                    row = {name: value for name, value in row.items() if name != step.make}
        if layout.length:
            row = _ended(row, layout.columns.solution, layout.length)
        try:
            paths = [fill_template(row, one).removeprefix(self.prefix) for one in layout.media]
        except FieldError as error:
            faults.append(str(error))
        if faults:
            return RawRow(index, None, faults[0], repr(published)[:RAW_CHARS], known=row)
        return RawRow(index, row | {PATH: next(filter(self._lies, paths), paths[0])} if paths else row)

    def _lies(self, path: str) -> bool:
        try:
            return self.root is not None and (self.root / safe_relative_path(path)).is_file()
        except (ValueError, OSError):
            return False


def _matches(row: Row, when: TagValues) -> bool:
    found = {column: value_of(row, column) for column in when}
    return all(("" if found[c] is None else str(found[c])) in values for c, values in when.items())


# --- from one object to the rows inside of it ---


def _unfolded(levels: Sequence[Level], value: Any, outer: Row) -> Iterator[Row | FieldError]:
    """The rows; in the place of an entry that does not fit, what is wrong with it."""
    if not levels and isinstance(value, dict):
        yield outer | value
        return
    try:
        entries = _entries(levels[0] if levels else ("a row",), value)
    except FieldError as error:
        places = [f"{name} {key!r:.60}" for name, key in outer.items() if not name.startswith("@")]
        yield FieldError(f"{error}, inside of {', '.join(places) or 'the file'}")
        return
    for found, inner in entries:
        yield from _unfolded(levels[1:], inner, outer | found)


def _entries(level: Level, value: Any) -> list[tuple[Row, Any]]:
    """What each entry of a level adds to its rows, and what stands inside of it."""
    if not (isinstance(value, dict) if level else isinstance(value, list)):
        wanted = "a row is expected" if level else "a list is expected"
        wanted = f"{level!r} leads on" if isinstance(level, str) else wanted
        raise FieldError(f"{type(value).__name__} where {wanted}")
    if not level:
        return [({"@n": place}, inner) for place, inner in enumerate(value)]
    if isinstance(level, tuple):
        return _side_by_side(level, value)
    return [({level: key}, inner) for key, inner in value.items()]


def _side_by_side(columns: Sequence[str], row: Row) -> list[tuple[Row, Any]]:
    """A row for each place of lists of one length."""
    lists = {column: value_of(row, column) for column in columns}
    for column, found in lists.items():
        if not isinstance(found, list | tuple):
            raise FieldError(f'"{column}" is {type(found).__name__}, a list is needed')
    if len({len(found) for found in lists.values()}) > 1:
        told = ", ".join(f"{column} {len(found)}" for column, found in lists.items())
        raise FieldError(f"lists of different lengths: {told}")
    made = []
    for place, entries in enumerate(zip(*lists.values(), strict=True)):
        inner = dict(row)
        for column, entry in zip(lists, entries, strict=True):
            inner |= entry if isinstance(entry, dict) else {column: entry}
        made.append(({"@n": place}, inner))
    return made


# --- columns that are made of others ---


def _made(step: MakeStep, row: Row) -> str:
    try:
        text = fill_template(row, step.of)
    except FieldError:
        if step.otherwise is None:
            raise
        text = ""
    if step.after and (mark := fill_template(row, step.after)) in text:
        text = text.partition(mark)[2].strip()
    if step.before and (mark := fill_template(row, step.before)) in text:
        text = text.rpartition(mark)[0].strip()
    if step.every is not None:
        if not (text.isascii() and text.isdecimal()):
            raise FieldError(f'"{step.of}" is {text[:60]!r}, a whole number is needed')
        text = str(int(text) // step.every)
    if not step.values and step.otherwise is None:
        return text
    made = step.values.get(text, step.otherwise)
    if made is None:
        known = ", ".join(list(step.values)[:12]) + ", ..." * (len(step.values) > 12)
        raise FieldError(f'"{step.of}" is {text[:60]!r}, known are: {known}')
    return made


def _ended(row: Row, gold: str, length: str) -> Row:
    """The row with a gold interval in numbers, ended where the clip ends; any other gold as it is."""
    got, end_of_clip = value_of(row, gold), value_of(row, length)
    found = parse_interval(got if isinstance(got, str) else json.dumps(got, default=str))
    if not isinstance(found, tuple):
        return row  # what is wrong with it is told where golds are checked
    start, end = got if isinstance(got, list) and len(got) == 2 else found
    if isinstance(end_of_clip, int | float) and found[0] < end_of_clip < found[1]:
        end = end_of_clip
    return row | {gold: [start, end]}
