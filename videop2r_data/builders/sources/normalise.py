"""One raw row of any layout -> `Sample`, or `BadRow` with the field, what was got and what is allowed."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from videop2r_data.builders.sources.answers import (
    MAX_TEXT,
    FieldError,
    index_meant,
    option_meant,
    read_options,
    read_reference,
    split_options,
    whole_number,
)
from videop2r_data.errors import SourceError
from videop2r_data.files import RawRow
from videop2r_data.schemas import (
    BadRow,
    DataType,
    ProblemType,
    RejectReason,
    Sample,
    SourceSpec,
    part_fault,
    safe_relative_path,
)
from videop2r_data.validators import check_reference

MAX_ID = 256
RAW_CHARS = 200
_LONGEST_INDEX = 40
"""Characters of an index with its tag and some blanks."""

_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_BREAKS = re.compile(r"[\s_\-]+")


def name_of_type(got: Any) -> str:
    """A problem type or data type as the tables of this module spell it; empty if it is no short text."""
    return _BREAKS.sub(" ", got.strip().lower()) if isinstance(got, str) and len(got) < 100 else ""


PROBLEM_TYPES = {
    name: kind for kind in ProblemType for name in (name_of_type(kind.value), *kind.traits.aliases)
}
DATA_TYPES = {
    "image": DataType.IMAGE,
    "images": DataType.IMAGE,
    "picture": DataType.IMAGE,
    "video": DataType.VIDEO,
    "videos": DataType.VIDEO,
    "clip": DataType.VIDEO,
    "text": DataType.TEXT,
    "none": DataType.TEXT,
}
T = TypeVar("T")


@dataclass(frozen=True)
class Normaliser:
    """Turns the raw rows of one source into samples.

    Attributes:
        spec: columns, types and answer base of the source.
        media_root: an absolute path in a row is accepted when it lies under this folder.
        counted_from: what index answers count from where the recipe says nothing.
        embed: takes media that stand in the rows themselves, and gives their path below the media root.
    """

    spec: SourceSpec
    media_root: Path | None = None
    counted_from: int = 0
    embed: Callable[[bytes], str] | None = None

    def __call__(self, row: int, value: Mapping[str, Any]) -> Sample | BadRow:
        """One row; never raises on what a row holds."""
        try:
            return self._sample(row, value)
        except FieldError as error:
            return self.bad(row, str(error), reason=error.reason, value=value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            detail = f'"{place}": {first["msg"]}' if place else first["msg"]
            return self.bad(row, detail, value=value)

    def index_answer(self, value: Mapping[str, Any]) -> tuple[int, int] | None:
        """Answer and number of options of a choice row whose answer can only be an index, else None."""
        columns = self.spec.columns
        got = _get(value, columns.solution)
        if isinstance(got, bool) or not isinstance(got, int | float | str) or len(str(got)) > _LONGEST_INDEX:
            return None  # most rows end here, without reading their options
        try:
            reference = read_reference(got, columns.solution)
            if whole_number(reference) is None:
                return None
            kind = self._type(value, "problem_type", PROBLEM_TYPES)
            got_options = _options_of(value, columns.options)
            if columns.options == columns.problem:
                got_options = split_options(_text(value, columns.problem, needed=True))[1]
            options, labels = read_options(got_options)
            number = index_meant(reference, options, labels)
        except FieldError:
            return None
        choice = kind.traits.form == "option" and len(options) > 1
        return (number, len(options)) if choice and number is not None else None

    def bad(
        self,
        row: int,
        detail: str,
        *,
        reason: RejectReason = RejectReason.BAD_ROW,
        value: Mapping[str, Any] | None = None,
        raw: str = "",
    ) -> BadRow:
        """The record of a row that cannot be used."""
        problem_id, tags = "", {}
        if value is not None:
            raw = raw or repr({str(k)[:40]: _short(v) for k, v in list(value.items())[:16]})
            key = self.spec.columns.problem_id
            got = value.get(key) if key else None
            problem_id = str(got)[:MAX_ID] if isinstance(got, str | int) else ""
            # a question that stands there twice is no further one of its group
            tags = {} if reason is RejectReason.DUPLICATE_ID else self._known(value)
        return BadRow(
            source=self.spec.name,
            row=row,
            problem_id=_printable(problem_id),
            reason=reason,
            detail=_printable(detail[:500]),
            raw=_printable(raw[:RAW_CHARS]),
            tags={tag: _printable(text) for tag, text in tags.items()},
        )

    def _known(self, value: Mapping[str, Any]) -> dict[str, str]:
        """What an unreadable row says of where it belongs."""
        found = self._tags(value)
        for setting, known in (("problem_type", PROBLEM_TYPES), ("data_type", DATA_TYPES)):
            with contextlib.suppress(FieldError):
                found[setting] = str(self._type(value, setting, known))
        return found

    def known_by(self, row: int, value: Mapping[str, Any]) -> tuple[str, str]:
        """Id of a row, and where its file should lie, unchecked; empty: the row holds it, or there is none.

        Raises:
            FieldError: its columns do not fit.
        """
        problem_id = _identifier(_get(value, self.spec.columns.problem_id), row)
        got = _path_of(value, self.spec.columns.path)
        if not isinstance(got, str):
            _, got = embedded_media(got[0] if isinstance(got, list | tuple) and got else got)
        if not isinstance(got, str) or not got or self.media_root is None:
            return problem_id, ""
        got = got.removeprefix(self.spec.path_prefix)
        return problem_id, got if got.startswith("/") else f"{self.media_root}/{got}"

    def _sample(self, row: int, value: Mapping[str, Any]) -> Sample:
        columns = self.spec.columns
        problem_id = _identifier(_get(value, columns.problem_id), row)
        problem, within = _text(value, columns.problem, needed=True), None
        problem_type = self._type(value, "problem_type", PROBLEM_TYPES)
        choice = problem_type.traits.form == "option"
        if columns.options == columns.problem:
            problem, within = split_options(problem, choice=choice)
        data_type = self._type(value, "data_type", DATA_TYPES)
        options, labels = read_options(_options_of(value, columns.options) if within is None else within)
        if any(len(option) > MAX_TEXT for option in options):
            raise FieldError(f'an entry of "options" is longer than {MAX_TEXT} characters')
        reference = read_reference(_get(value, columns.solution), columns.solution)
        if choice:
            # A declared benchmark is read as it is published: some ask with one option.
            least = 1 if self.spec.kind == "benchmark" else 2
            if len(options) < least:
                why = "" if within is None else f': "{columns.problem}" does not end in options, one a line'
                raise FieldError(
                    f"{problem_type.value} needs at least {least} options, got {len(options)}{why}"
                )
            reference = option_meant(
                reference, options, labels, answer_base=self.spec.answer_base, counted_from=self.counted_from
            )
        else:
            options = ()
        sample = Sample(
            sample_id=f"{self.spec.name}/{problem_id}",
            problem_id=problem_id,
            problem=problem,
            problem_type=problem_type,
            data_type=data_type,
            options=options,
            solution=f"<answer>{reference}</answer>",
            path=self._path(_path_of(value, columns.path), data_type),
            data_source=_text(value, columns.data_source, needed=False),
            source=self.spec.name,
            row=row,
            tags=self._tags(value),
            **self._part(value, data_type),
        )
        fault = check_reference(problem_type, sample.reference, options)
        if fault:
            raise FieldError(f'"{columns.solution}": {fault}', RejectReason.BAD_REFERENCE)
        return sample

    def _type(self, value: Mapping[str, Any], setting: str, known: Mapping[str, T]) -> T:
        column = getattr(self.spec.columns, setting)
        got = _get(value, column)
        got = getattr(self.spec, setting) if got is None or got == "" else got
        shown = column or setting
        if got is None:
            raise FieldError(f'"{shown}" is missing: name its column, or set {setting} of this source')
        name = name_of_type(got)
        if name not in known:
            allowed = ", ".join(dict.fromkeys(str(kind) for kind in known.values()))
            raise FieldError(f'"{shown}" is {_short(got)!r}, allowed are: {allowed}')
        return known[name]

    def _tags(self, value: Mapping[str, Any]) -> dict[str, str]:
        """Tags of a row; those whose column says nothing there are none."""
        found = {tag: value_of(value, column) for tag, column in self.spec.columns.tags.items()}
        return {
            tag: (got if isinstance(got, str) else json.dumps(got, ensure_ascii=False, default=str))[:MAX_ID]
            for tag, got in found.items()
            if isinstance(got, str | int | float | list)
        }

    def _part(self, value: Mapping[str, Any], data_type: DataType) -> dict[str, float | None]:
        """Begin and end of the part of the clip, out of their columns or out of one that holds both."""
        columns = self.spec.columns
        start, end = _get(value, columns.start), _get(value, columns.end)
        if isinstance(start, list | tuple) and len(start) == 2 and columns.end in (None, columns.start):
            start, end = start
        part = {
            "start_s": _seconds(start, columns.start),
            "end_s": _seconds(end, columns.end or columns.start),
        }
        if fault := part_fault(part["start_s"], part["end_s"], data_type):
            raise FieldError(f'"{columns.start or columns.end}": {fault}')
        return part

    def _path(self, got: Any, data_type: DataType) -> str:
        column = self.spec.columns.path
        if isinstance(got, list | tuple) and len(got) > 1:
            raise FieldError(f'"{column}" holds {len(got)} files, a question has one')
        data, got = embedded_media(got[0] if isinstance(got, list | tuple) and got else got)
        if self.embed is not None and data:
            return self.embed(data)
        if self.embed is not None and got:
            raise FieldError(f'"{column}" holds a path, and in other rows the bytes: {got!r:.120}')
        if got is None or got == "":
            if data_type is DataType.TEXT:
                return ""
            raise FieldError(f'"{column}" is empty, a {data_type.value} row needs the path of its file')
        if not isinstance(got, str):
            raise FieldError(f'"{column}" is {type(got).__name__}, a text is needed')
        if len(got) > 4096:
            raise FieldError(f'"{column}" is longer than 4096 characters', RejectReason.UNSAFE_PATH)
        got = got.removeprefix(self.spec.path_prefix)
        if got.startswith("/") and self.media_root:
            try:
                got = str(PurePosixPath(got).relative_to(self.media_root))
            except ValueError:
                raise FieldError(
                    f'"{column}": {got[:120]!r} lies outside the media root {self.media_root}; if it names a '
                    "folder of another machine, set path_prefix of this source to what is to be cut off",
                    RejectReason.UNSAFE_PATH,
                ) from None
        try:
            return safe_relative_path(got)
        except ValueError as error:
            raise FieldError(f'"{column}": {str(error)[:200]}', RejectReason.UNSAFE_PATH) from None


def embedded_media(got: Any) -> tuple[bytes | None, Any]:
    """Bytes and path of an undecoded media column: `{"bytes": …, "path": …}`, bytes alone or a path alone."""
    if isinstance(got, Mapping):
        data = got.get("bytes")
        return (data if isinstance(data, bytes) else None), got.get("path")
    return (got, None) if isinstance(got, bytes) else (None, got)


def _get(value: Mapping[str, Any], column: str | None) -> Any:
    return value_of(value, column) if column else None


def value_of(value: Mapping[str, Any], column: str) -> Any:
    """What a row holds under a column's name; a dot steps inside, unless a column has that very name.

    >>> value_of({"row": {"answer": 3}}, "row.answer"), value_of({"row.answer": 4}, "row.answer")
    (3, 4)
    """
    if column in value or "." not in column:
        return value.get(column)
    head, _, rest = column.partition(".")
    inner = value.get(head)
    return value_of(inner, rest) if isinstance(inner, Mapping) else None


def columns_in(mapped: str | Iterable[str] | Mapping[str, str] | None) -> tuple[str, ...]:
    """The columns that a setting of `columns` names: one, several, or those in the braces of a template.

    >>> columns_in("clips/{video_id}.mp4"), columns_in(("a0", "a1")), columns_in(None)
    (('video_id',), ('a0', 'a1'), ())
    """
    if mapped is None:
        return ()
    if isinstance(mapped, str):
        return tuple(_TEMPLATE.findall(mapped)) or (mapped,)
    return tuple(mapped.values() if isinstance(mapped, Mapping) else mapped)


def _path_of(value: Mapping[str, Any], column: str | None) -> Any:
    """The media of a row: what its column holds, or a path put together from columns (`{video_id}.mp4`)."""
    return fill_template(value, column) if column and _TEMPLATE.search(column) else _get(value, column)


def fill_template(value: Mapping[str, Any], template: str) -> str:
    """A template with what a row holds under the names in its braces; of `{a|b}` the first that it has.

    Raises:
        FieldError: the row has nothing there.

    >>> fill_template({"video id": "x_1"}, "clips/{video id}.mp4")
    'clips/x_1.mp4'
    """
    parts: dict[str, str] = {}
    for names in _TEMPLATE.findall(template):
        found = (_part_of(value, name) for name in names.split("|"))
        part = next((one for one in found if isinstance(one, str | int) and one != ""), None)
        if part is None:
            raise FieldError(f'"{names}" is empty, {template} is made of it')
        parts[names] = str(part)
    return _TEMPLATE.sub(lambda match: parts[match.group(1)], template)


def _part_of(value: Mapping[str, Any], name: str) -> Any:
    found = value_of(value, name.removeprefix("#"))
    return len(found) if name[0] == "#" and isinstance(found, list | tuple) else found


def _options_of(value: Mapping[str, Any], columns: str | tuple[str, ...] | None) -> Any:
    """What the pool holds as options: one value, or those of several columns without the empty last ones."""
    if not isinstance(columns, tuple):
        return _get(value, columns)
    found = [_get(value, column) for column in columns]
    while found and (found[-1] is None or str(found[-1]).strip() == ""):
        found.pop()
    for column, option in zip(columns, found, strict=False):
        if option is None or str(option).strip() == "":
            raise FieldError(
                f'"{column}" is empty and a later option is not: options may lack only at the end'
            )
    return found


def _identifier(got: Any, row: int) -> str:
    """The id of a row; without a column for it, its place in the pool."""
    if got is None or got == "":
        return f"row-{row}"
    if isinstance(got, float) and got.is_integer():
        got = int(got)
    if isinstance(got, bool) or not isinstance(got, str | int):
        raise FieldError(f'"problem_id" is {type(got).__name__}, allowed are text and whole numbers')
    text = str(got).strip()
    if not text or len(text) > MAX_ID or not text.isprintable():
        raise FieldError(f'"problem_id" {text[:40]!r}: 1 to {MAX_ID} printable characters are allowed')
    return text


def _seconds(got: Any, column: str | None) -> float | None:
    """A time of the clip: a number, or a text that is one; None where the row says nothing.

    >>> _seconds(" 2.5", "start"), _seconds("", "end")
    (2.5, None)
    """
    if got is None or (isinstance(got, str) and not got.strip()):
        return None
    number = math.nan
    if isinstance(got, int | float | str) and not isinstance(got, bool) and len(str(got)) <= _LONGEST_INDEX:
        with contextlib.suppress(ValueError, OverflowError):
            number = float(got)
    if not 0 <= number < math.inf:
        raise FieldError(f'"{column}" is {_short(got)!r}, seconds are needed: a number from 0 on')
    return number


def _text(value: Mapping[str, Any], column: str | None, *, needed: bool) -> str:
    got = _get(value, column)
    if got is None and not needed:
        return ""
    if got is None:
        raise FieldError(f'"{column}" is missing, a text is needed')
    if not isinstance(got, str):
        raise FieldError(f'"{column}" is {type(got).__name__}, a text is needed')
    if needed and not got.strip():
        raise FieldError(f'"{column}" is empty, a text is needed')
    if len(got) > MAX_TEXT:
        raise FieldError(f'"{column}" is {len(got)} characters long, at most {MAX_TEXT} are allowed')
    return str(got)


def _short(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value[:60]
    if isinstance(value, int):
        return str(value)[:60]
    return value if isinstance(value, float) or value is None else f"<{type(value).__name__}>"


def _printable(text: str) -> str:
    """Valid Unicode: lone surrogates, which Parquet and JSON cannot hold, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# Index answers may count from 0 or from 1. The whole pool decides, never one row or one share of it.


_BASE_HINT = "set `answer_base` of this source: 0 or 1, or `text` if the numbers are the texts of options"


def read_base(rows: Iterable[RawRow], normalise: Normaliser, where: str) -> int:
    """Whether the index answers of a pool count from 0 or 1.

    An answer 0 can only count from 0, one as high as its number of options only from 1. Rows whose number is
    the text of an option, or printed before one, say nothing.

    Raises:
        SourceError: the answers of the whole pool say both, or leave it open.
    """
    zero: tuple[int, int, int] | None = None
    top: tuple[int, int, int] | None = None
    between: tuple[int, int, int] | None = None
    seen = 0
    for raw in rows:
        found = normalise.index_answer(raw.value) if raw.value is not None else None
        if found is None or not 0 <= found[0] <= found[1]:
            continue
        seen += 1
        told = (raw.index, *found)
        if found[0] == 0:
            zero = zero or told
        elif found[0] == found[1]:
            top = top or told
        else:
            between = between or told
    if zero and top:
        raise SourceError(
            f"answers are whole numbers that count from 0 ({_told(zero)}) and from 1 ({_told(top)})",
            where=where,
            hint=_BASE_HINT,
        )
    if between and not zero and not top:
        raise SourceError(
            f"{seen:,} answers are whole numbers that may count from 0 or from 1 ({_told(between)}): none is "
            "0, and none is as high as its number of options",
            where=where,
            hint=_BASE_HINT,
        )
    return 1 if top else 0


def _told(found: tuple[int, int, int]) -> str:
    row, answer, options = found
    return f"row {row}: answer {answer} of {options} options"
