"""Which column of a foreign pool holds what, by common column names and by the values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from videop2r_data.builders.sources.answers import OptionsError, read_options, split_options
from videop2r_data.builders.sources.normalise import (
    DATA_TYPES,
    PROBLEM_TYPES,
    embedded_media,
    name_of_type,
    value_of,
)
from videop2r_data.schemas import DataType, ProblemType

NAMES = {
    "problem_id": "problem_id question_id id qid uid sample_id unique_id item_id key idx index",
    "problem": "problem question query prompt instruction question_text text q",
    "problem_type": "problem_type question_type answer_type qtype type task task_type",
    "data_type": "data_type media_type modality medium",
    "options": "options choices candidates answer_choices multiple_choices mc_options alternatives answers",
    "solution": "solution answer ground_truth correct_answer correct_choice correct_option gold gold_answer "
    "correct label target gt reference answer_idx answer_index correct_idx answer_key answer_letter a",
    "path": "path video video_path video_file video_name image image_path image_file img img_path file_name "
    "file file_path clip clip_path media media_path videos images vid visual",
    "data_source": "data_source source dataset dataset_name origin",
}
"""Setting -> names of columns that mean it, the surest first; case, blanks and `_` do not count."""
MEDIA_NAMES = "video_id vid video_key video_name videoid video image_id imageid image clip_id clip key id"
VIDEO = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".wmv", ".mpg", ".mpeg", ".3gp", ".ts", ".gif")
)
IMAGE = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"))
_GROUP = re.compile(r"(a|op|opt|option|options|choice|candidate|answer|ans|)[\s_.-]*(\d{1,2}|[A-Za-z])")
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_MOST = 0.9
"""Share of the values that must be of a kind."""
_DEEP = 3


@dataclass
class Column:
    """One column, or a field inside of one, with the values that the first rows have there."""

    name: str
    values: list[Any] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Last part of the name, normalised for comparison."""
        return plain(self.name.rpartition(".")[2])

    def share(self, holds: Callable[[Any], bool]) -> float:
        """Share of the values for which `test` is true; 0.0 without values."""
        return sum(map(holds, self.values)) / len(self.values) if self.values else 0.0


def plain(name: str) -> str:
    """A name as names are compared.

    >>> plain("Question ID"), plain("question_id")
    ('questionid', 'questionid')
    """
    return re.sub(r"[\W_]", "", name).lower()


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[Column]:
    """Columns of some rows in the order of first sight, those inside of others by a dot; nulls left out."""
    found: dict[str, Column] = {}
    for row in rows:
        for name, value in _flat(row, "", 0):
            column = found.setdefault(name, Column(name))
            if value is not None and value != "":
                column.values.append(value)
    return list(found.values())


def _flat(row: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        yield f"{prefix}{name}", value
        inner = isinstance(value, Mapping) and "bytes" not in value and not _is_options(value)
        if inner and depth < _DEEP:
            yield from _flat(value, f"{prefix}{name}.", depth + 1)


def by_name(columns: Sequence[Column], setting: str, holds: Callable[[Column], bool]) -> Column | None:
    """The column whose name means a setting, and whose values are of its kind; the surest name first."""
    for name in NAMES[setting].split():
        for column in columns:
            if column.key == plain(name) and column.values and holds(column):
                return column
    return None


def find_problem(columns: Sequence[Column]) -> Column | None:
    """The question: by name, else the text that most often ends in a question mark."""

    def is_text(column: Column) -> bool:
        return column.share(lambda v: isinstance(v, str) and len(v) > 3 and not is_media(v)) >= _MOST

    found = by_name(columns, "problem", is_text)
    if found is not None:
        return found
    asking = [(c.share(lambda v: isinstance(v, str) and "?" in v[-3:]), c) for c in columns if is_text(c)]
    best = max(asking, key=lambda one: one[0], default=None)
    return best[1] if best is not None and best[0] > 0.5 else None


def find_options(columns: Sequence[Column], problem: Column | None) -> str | tuple[str, ...] | None:
    """The options: a column of lists, several columns with one each, or the last lines of the question."""
    found = by_name(columns, "options", lambda c: c.share(_is_options) >= 0.5)
    if found is None:
        found = next(
            (c for c in columns if c.share(lambda v: isinstance(v, dict) and _is_options(v)) >= 0.5), None
        )
    if found is not None:
        return found.name
    group = _group(columns)
    if group or problem is None:
        return group or None
    inside = problem.share(lambda v: isinstance(v, str) and len(split_options(v)[1]) > 1)
    return problem.name if inside >= 0.5 else None


def _is_options(value: Any) -> bool:
    listed = not isinstance(value, str) or value.strip().startswith(("[", "{"))
    if not listed and "\n" not in value and "|" not in value:
        return False
    try:
        return len(read_options(value)[0]) > 1
    except OptionsError:
        return False


def _group(columns: Sequence[Column]) -> tuple[str, ...]:
    """Columns that are numbered or lettered through: a0, a1 ...; option_a, option_b ...; A, B, C."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for column in columns:
        match = _GROUP.fullmatch(column.name.rpartition(".")[2])
        scalar = column.share(lambda v: isinstance(v, str | int | float) and not is_media(v)) == 1.0
        if match and scalar:
            prefix, place = match.group(1), match.group(2)
            number = int(place) if place.isdigit() else ord(place.lower()) - ord("a")
            kind = f"{column.name.rpartition('.')[0]}.{prefix.lower()}.{place.isdigit()}"
            groups.setdefault(kind, []).append((number, column.name))
    for found in sorted(groups.values(), key=len, reverse=True):
        found.sort()
        numbers = [number for number, _ in found]
        through = numbers == list(range(numbers[0], numbers[0] + len(found)))
        if len(found) > 1 and numbers[0] in (0, 1) and through:
            return tuple(name for _, name in found)
    return ()


def find_solution(columns: Sequence[Column], taken: set[str]) -> Column | None:
    """The reference answer: by name."""
    free = [c for c in columns if c.name not in taken]
    return by_name(free, "solution", lambda c: c.share(_is_answer) >= _MOST)


def _is_answer(value: Any) -> bool:
    if isinstance(value, list):
        return 0 < len(value) <= 4
    return isinstance(value, str | int | float) and str(value).strip() != ""


def find_media(columns: Sequence[Column]) -> Column | None:
    """The media file: a column of file names or of files; the name decides between several."""
    fitting = [c for c in columns if c.share(is_media) >= _MOST and "." not in c.name.replace(".bytes", "")]
    fitting = fitting or [c for c in columns if c.share(is_media) >= _MOST]
    local = [c for c in fitting if c.share(_is_url) == 0.0]
    return by_name(local, "path", lambda _: True) or next(iter(local), None)


def find_urls(columns: Sequence[Column]) -> Column | None:
    """A column of addresses of media, which a build does not fetch."""
    return next((c for c in columns if c.share(_is_url) >= _MOST), None)


def media_ids(columns: Sequence[Column]) -> list[Column]:
    """Columns that may be names of media files without their ending, the likeliest first."""
    order = {plain(name): n for n, name in reversed(list(enumerate(MEDIA_NAMES.split())))}
    found = [c for c in columns if c.key in order and c.share(lambda v: isinstance(v, str | int)) == 1.0]
    return sorted(found, key=lambda c: order[c.key])


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def is_media(value: Any) -> bool:
    """Whether a value is a media file: its bytes, or a name with the ending of one."""
    return kind_of_media(value) is not None


def kind_of_media(value: Any) -> DataType | None:
    """What kind of file a value holds or names; None: no media."""
    if isinstance(value, list | tuple):
        return kind_of_media(value[0]) if len(value) == 1 else None
    data, path = embedded_media(value)
    if data:
        video = data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"heic", b"mif1")
        return DataType.VIDEO if video or data[:4] == b"\x1aE\xdf\xa3" else DataType.IMAGE
    if not isinstance(path, str) or len(path) > 4096:
        return None
    ending = PurePosixPath(path.partition("?")[0]).suffix.lower()
    return DataType.VIDEO if ending in VIDEO else DataType.IMAGE if ending in IMAGE else None


def find_types(columns: Sequence[Column], setting: str) -> Column | None:
    """A column whose values all are types that are known."""
    known: Mapping[str, Any] = PROBLEM_TYPES if setting == "problem_type" else DATA_TYPES
    return by_name(columns, setting, lambda c: c.share(lambda v: name_of_type(v) in known) == 1.0)


def find_id(columns: Sequence[Column], rows: int) -> Column | None:
    """A column with another value in each row."""

    def is_id(column: Column) -> bool:
        values = [str(v) for v in column.values if isinstance(v, str | int) and not isinstance(v, bool)]
        return len(values) == rows == len(set(values)) and max(map(len, values)) <= 256

    return by_name(columns, "problem_id", is_id)


def find_data_source(columns: Sequence[Column]) -> Column | None:
    """A column of few repeating texts, or one with an exact name."""

    def is_origin(column: Column) -> bool:
        texts = column.share(lambda v: isinstance(v, str) and not is_media(v)) == 1.0
        few = len(set(map(str, column.values))) <= max(1, len(column.values) // 2)
        return texts and (few or column.key == "datasource")

    return by_name(columns, "data_source", is_origin)


def rows_with_options(
    rows: Iterable[Mapping[str, Any]], options: str | Sequence[str], *, in_question: bool
) -> int:
    """How many rows have two options at least, where the options were found."""

    def count(row: Mapping[str, Any]) -> int:
        if isinstance(options, str):
            got = value_of(row, options)
            return len(split_options(str(got))[1]) if in_question else 2 * _is_options(got)
        return sum(value_of(row, name) not in (None, "") for name in options)

    return sum(count(row) > 1 for row in rows)


def type_of_answers(answers: Column) -> ProblemType:
    """What questions without options ask for, as their answers look."""
    if answers.share(lambda v: isinstance(v, list) and len(v) == 2) >= _MOST:
        return ProblemType.TEMPORAL_GROUNDING
    if answers.share(lambda v: isinstance(v, list) and len(v) == 4) >= _MOST:
        return ProblemType.SPATIAL_GROUNDING
    return ProblemType.NUMERICAL if answers.share(_is_number) >= _MOST else ProblemType.FREE_FORM


def answer_form(answers: Column) -> str:
    """Form of multiple-choice answers: `letters`, `numbers` or `texts`."""
    if answers.share(lambda v: isinstance(v, str) and bool(_LETTER.fullmatch(_inside(v)))) >= 0.5:
        return "letters"
    whole = answers.share(lambda v: _is_number(v) and _inside(str(v)).isdigit())
    return "numbers" if whole >= 0.5 else "texts"


def _inside(text: str) -> str:
    return text.removeprefix("<answer>").removesuffix("</answer>").strip()


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    try:
        float(_inside(value) if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return False
    return True
