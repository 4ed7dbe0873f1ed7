"""Guess the source section of a recipe from a pool's rows; what cannot be guessed is listed."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from videop2r_data.builders.guess_columns import (
    IMAGE,
    VIDEO,
    Column,
    answer_form,
    columns_of,
    find_data_source,
    find_id,
    find_media,
    find_options,
    find_problem,
    find_solution,
    find_types,
    find_urls,
    kind_of_media,
    media_ids,
    rows_with_options,
    type_of_answers,
)
from videop2r_data.builders.sources import Source, open_source
from videop2r_data.builders.sources.base import refuse_wrapped
from videop2r_data.builders.sources.normalise import Normaliser, embedded_media, value_of
from videop2r_data.errors import SourceError
from videop2r_data.schemas import (
    BadRow,
    ColumnMapping,
    DataType,
    Model,
    ProblemType,
    Sample,
    SourceSpec,
    safe_relative_path,
)

LOOKED = 1000
"""Rows that a guess is made from."""
_FILES = 20_000
"""Media files of a folder that are looked through for names."""
_MOST_ROWS = 0.8
"""Share of the rows with options above which the others are bad rows, not questions of another type."""
_SPLITS = ("train", "validation", "test")


class ShownRow(Model):
    """One row as a build would read it."""

    sample_id: str
    problem: str
    options: list[str]
    answer: str
    path: str
    found: bool | None
    """Whether its file is there; None: it needs none."""


class Guess(Model):
    """What was seen in a pool."""

    source: dict[str, Any]
    """The source of the recipe, defaults left out."""
    columns: dict[str, Any]
    """Its column mapping, defaults left out."""
    seen: list[str]
    """Columns that the pool has."""
    notes: dict[str, str]
    """Setting -> why this value was guessed."""
    todo: dict[str, str]
    """Setting -> what the user must fill in."""
    rows: int
    """Rows that were looked at, those that cannot be read among them."""
    good: int
    """Of these, how many would be read."""
    bad: dict[str, int]
    """Why the others would not: the first words of the reason -> rows."""
    shown: list[ShownRow]
    files_found: int
    files_looked: int


@dataclass
class _Draft:
    """A guess under way."""

    spec: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    todo: dict[str, str] = field(default_factory=dict)

    def settle(self, setting: str, value: Any, why: str) -> None:
        """Take a setting, and note why."""
        self.spec[setting] = value
        self.notes[setting] = why

    def source(self) -> SourceSpec:
        """The settings so far, as a source."""
        return SourceSpec.model_validate(self.spec | {"columns": self.columns})


def guess_source(data: str, *, recipe: Path, cwd: Path, work: Path, split: str | None = None) -> Guess:
    """Look at a pool and guess how to read it.

    Args:
        data: a file, folder or glob (relative to `cwd`), or a Hub id.
        recipe: the file that will hold the source; paths in it become relative to its folder.
        cwd: folder that `data` is relative to.
        work: folder for media that the rows hold, for the rows that are shown.
        split: which split; None: train, else the first that there is.

    Raises:
        SourceError: the pool cannot be read, or has no row.
    """
    base = recipe.parent
    draft = _Draft({"name": _name(data), "kind": "dataset", "path": _path(data, base, cwd)})
    raw = _open(draft, base, split)
    looked = list(islice(raw.raw_rows(), LOOKED))
    rows = [row.value for row in looked if row.value is not None]
    if not looked:
        raise SourceError(
            "the pool holds no row", where=data, hint="it was read to its end: fill it, or name another"
        )
    if not rows:
        raise SourceError(
            f"none of its first {len(looked):,} rows can be read; the first: {looked[0].fault}",
            where=data,
            hint="p2r-data reads CSV, JSON, Parquet and the Hub",
        )
    commit = getattr(raw, "commit", "")
    if commit:
        draft.settle("revision", commit, "the newest commit of now: a branch would move")
    if len(rows) == 1:
        refuse_wrapped(rows[0], data)
    columns = columns_of(rows)
    _guess_columns(draft, columns, len(rows))
    _guess_media(draft, columns, raw, base)
    _guess_data_type(draft, columns, rows)
    _guess_problem_type(draft, columns, rows)
    if not draft.todo.keys() & {"columns.solution", "problem_type"}:
        _guess_answers(draft, columns, base)
    _prefer_video_r1(draft, base)
    return _shown(draft, columns, len(looked), base, work)


def _name(data: str) -> str:
    stem = data.rstrip("/").rpartition("/")[2].partition(".")[0].strip("*?[]") or "pool"
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem).strip("-._")
    return kept[:60] or "pool"


def _path(data: str, base: Path, cwd: Path) -> str:
    """The pool as the recipe names it: relative to the recipe's folder if it lies near, a Hub id as it is."""
    place = cwd / Path(data).expanduser()
    if not place.exists() and not any(c in data for c in "*?["):
        return data
    relative = os.path.relpath(place, (cwd / base).absolute())
    return str(place.absolute()) if relative.startswith("../../..") else relative


def _open(draft: _Draft, base: Path, split: str | None) -> Source:
    """The source with the split that there is."""
    first: SourceError | None = None
    for name in (split,) if split else _SPLITS:
        given = {} if name == "train" else {"split": name}
        try:
            source = open_source(SourceSpec.model_validate(draft.spec | given), base=base)
            next(source.raw_rows(), None)
        except SourceError as error:
            first = first or error
            if "split" not in error.message:
                raise
            continue
        draft.spec |= given
        return source
    assert first is not None
    raise first


def _guess_columns(draft: _Draft, columns: list[Column], rows: int) -> None:
    problem = find_problem(columns)
    options = find_options(columns, problem)
    solution = find_solution(columns, set(options) if isinstance(options, tuple) else {str(options)})
    there = ", ".join(c.name for c in columns[:30])
    if problem is not None:
        draft.columns["problem"] = problem.name
    else:
        draft.todo["columns.problem"] = f"which column holds the question? There are: {there}"
    if solution is not None:
        draft.columns["solution"] = solution.name
    else:
        draft.todo["columns.solution"] = f"which column holds the reference answer? There are: {there}"
    draft.columns["options"] = list(options) if isinstance(options, tuple) else options
    if options is not None and problem is not None and options == problem.name:
        draft.notes["columns.options"] = "the last lines of the question"
    found = find_id(columns, rows)
    draft.columns["problem_id"] = found.name if found else None
    found = find_data_source(columns)
    draft.columns["data_source"] = found.name if found else None
    for setting in ("problem_type", "data_type"):
        found = find_types(columns, setting)
        draft.columns[setting] = found.name if found else None


def _guess_media(draft: _Draft, columns: list[Column], source: Source, base: Path) -> None:
    """Column and root of the media files."""
    draft.columns["path"] = None
    column = find_media(columns)
    folder = source.media_root
    if column is None:
        _guess_media_by_id(draft, columns, folder, base)
        return
    draft.columns["path"] = column.name
    if any(embedded_media(_first(v))[0] for v in column.values[:100]):
        draft.notes["columns.path"] = "the files stand in the rows themselves"
        return
    paths = [str(embedded_media(_first(v))[1]) for v in column.values[:200]]
    if all(path.startswith("/") for path in paths):
        common = os.path.commonpath([str(Path(path).parent) for path in paths])
        draft.settle("media_root", common, "the paths are absolute: the folder that they have in common")
        return
    roots = _roots(folder) if folder is not None and folder.is_dir() else []
    counts = {root: sum(_is_file(root, path) for path in paths) for root in roots}
    best = max(counts, key=lambda root: counts[root], default=None)
    if best is None or not counts[best]:
        draft.todo["media_root"] = f"the folder that {paths[0]!r} is relative to; no such file was found near"
    elif best != folder:
        draft.spec["media_root"] = os.path.relpath(best, base.absolute())


def _guess_media_by_id(draft: _Draft, columns: list[Column], folder: Path | None, base: Path) -> None:
    """Media names without an ending: compared with the names of files in nearby folders."""
    inside = sorted(folder.rglob("*")) if folder is not None and folder.is_dir() else []
    media = (path for path in inside if path.suffix.lower() in VIDEO | IMAGE)
    files = {path.stem: path for path in islice(media, _FILES)}
    for column in media_ids(columns):
        hits = [files[str(v)] for v in column.values if str(v) in files]
        forms = Counter((p.parent, p.suffix) for p in hits)
        if hits and len(hits) >= len(column.values) // 2:
            ((parent, suffix), _), *_ = forms.most_common(1)
            draft.columns["path"] = f"{{{column.name}}}{suffix}"
            draft.spec["media_root"] = os.path.relpath(parent, base.absolute())
            return
    urls, ids = find_urls(columns), media_ids(columns)
    if urls is not None:
        draft.todo["columns.path"] = (
            f"the column {urls.name!r} holds addresses: download the files, then give their path below "
            f"media_root, e.g. '{{{ids[0].name if ids else 'id'}}}.mp4'"
        )
    elif ids:
        draft.todo["columns.path"] = (
            f"where are the media? If {ids[0].name!r} is the name of a file: '{{{ids[0].name}}}.mp4', with "
            "media_root; without media: data_type: text"
        )
    else:
        draft.todo["columns.path"] = (
            "which column holds the media file? For questions without media: data_type: text"
        )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else value


def _roots(folder: Path) -> list[Path]:
    """Folders that paths may be relative to, the likeliest first: the pool's, those in it and beside it."""
    near = [folder, *_folders(folder), folder.parent, *_folders(folder.parent)]
    return list(dict.fromkeys(near))


def _folders(folder: Path) -> list[Path]:
    try:
        inside = [p for p in islice(folder.iterdir(), _FILES) if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []
    return sorted(inside)[:100]


def _is_file(root: Path, path: str) -> bool:
    try:
        return (root / safe_relative_path(path)).is_file()
    except (ValueError, OSError):
        return False


def _without(rows: list[dict[str, Any]], column: str | None) -> list[dict[str, Any]]:
    """The rows that have nothing in a column; all of them if there is none."""
    return rows if column is None else [row for row in rows if value_of(row, column) in (None, "")]


def _guess_data_type(draft: _Draft, columns: list[Column], rows: list[dict[str, Any]]) -> None:
    """One data type for all rows, where no column holds it."""
    if not _without(rows, draft.columns["data_type"]):
        return
    path = draft.columns["path"]
    if path and "{" in path:
        kinds = {kind_of_media(path)}
    else:
        kinds = {kind_of_media(v) for c in columns if c.name == path for v in c.values} - {None}
    if len(kinds) == 1:
        draft.settle("data_type", next(k.value for k in kinds if k), "by the endings of the files")
    elif kinds:
        draft.todo["data_type"] = (
            "some files are clips and some are images: a column must say which, or two sources"
        )
    else:
        draft.todo["data_type"] = "video, image or text?"


def _guess_problem_type(draft: _Draft, columns: list[Column], rows: list[dict[str, Any]]) -> None:
    """One problem type for all rows, where no column holds it."""
    rows = _without(rows, draft.columns["problem_type"])
    if not rows:
        return
    options = draft.columns["options"]
    answers = next((c for c in columns if c.name == draft.columns.get("solution")), None)
    if options is not None:
        have = rows_with_options(rows, options, in_question=options == draft.columns.get("problem"))
        if have >= _MOST_ROWS * len(rows):
            less = f" in {have:,} of {len(rows):,} rows" if have < len(rows) else ""
            draft.settle("problem_type", ProblemType.MULTIPLE_CHOICE.value, f"there are options{less}")
        else:
            draft.todo["problem_type"] = (
                f"{have:,} of {len(rows):,} rows have options, and no column says which: add one, or "
                "make a pool of each type"
            )
    elif answers is not None:
        kind = type_of_answers(answers)
        draft.settle(
            "problem_type", kind.value, "by the look of the answers; regression, OCR ... are possible too"
        )


def _guess_answers(draft: _Draft, columns: list[Column], base: Path) -> None:
    """`answer_base` of whole-number answers, written so that a build need not read the whole pool for it."""
    answers = next(c for c in columns if c.name == draft.columns["solution"])
    if draft.columns["options"] is None:
        return
    form = answer_form(answers)
    draft.notes["columns.solution"] = f"the answers are {form}"
    if form != "numbers":
        return
    source = open_source(draft.source(), base=base)
    try:
        counted = source.counted_from()
    except SourceError as error:
        draft.todo["answer_base"] = f"0 or 1? {error.message}"
        return
    shares = {value: _share_good(source, value) for value in (counted, 1 - counted, "text")}
    best = max(shares, key=lambda value: shares[value])
    if sum(share == shares[best] for share in shares.values()) > 1 and best != counted:
        draft.todo["answer_base"] = "0, 1 or text? The numbers can be indices, or texts of options"
    else:
        draft.settle("answer_base", best, "read from the pool as a whole")


def _share_good(source: Source, answer_base: Any) -> int:
    """Rows whose answer has a reading."""
    normalise = Normaliser(source.spec.model_copy(update={"answer_base": answer_base}), source.media_root)
    rows = [normalise(raw.index, raw.value) for raw in islice(source.raw_rows(), LOOKED) if raw.value]
    return sum(not (isinstance(row, BadRow) and row.reason == "bad_reference") for row in rows)


def _prefer_video_r1(draft: _Draft, base: Path) -> None:
    """Kind `video-r1` where it reads the pool: it keeps numbers as they are printed (`3.0`)."""
    default = ColumnMapping().model_dump()
    named = {k: v for k, v in draft.columns.items() if v is not None}
    is_json = draft.spec["path"].removesuffix(".gz").endswith((".json", ".jsonl", ".ndjson"))
    if is_json and (base / draft.spec["path"]).is_file() and named and named.items() <= default.items():
        draft.spec["kind"] = "video-r1"


def _shown(draft: _Draft, columns: list[Column], looked: int, base: Path, work: Path) -> Guess:
    """Read the rows with what was guessed, and count."""
    default = ColumnMapping().model_dump()
    mapping = {k: v for k, v in draft.columns.items() if v != default[k] and not _idle(draft, k, columns)}
    draft.columns = mapping
    shown: list[ShownRow] = []
    bad: Counter[str] = Counter()
    good = 0
    files: dict[Path, bool] = {}
    if not draft.todo.keys() - {"media_root", "columns.path", "data_type"}:
        spec = draft.source()
        if draft.todo.keys() - {"media_root"}:  # treated as text, so that the other fields can be shown
            text = {"path": None, "data_type": None}
            spec = spec.model_copy(
                update={"data_type": "text", "columns": spec.columns.model_copy(update=text)}
            )
        source = open_source(spec, base=base, demo_root=work / "demo")
        for row in islice(source.rows(), LOOKED):
            if isinstance(row, BadRow):
                bad[row.detail[:100]] += 1
                continue
            good += 1
            found = None
            if source.media_root is not None and row.path:
                place = source.media_root / row.path
                if place not in files and len(files) < 200:
                    files[place] = place.is_file()
                found = files.get(place)
            if len(shown) < 3:
                shown.append(_show(row, found))
    return Guess(
        source=draft.spec,
        columns=mapping,
        seen=[c.name for c in columns],
        notes=draft.notes,
        todo=draft.todo,
        rows=looked,
        good=good,
        bad=dict(bad.most_common(5)),
        shown=shown,
        files_found=sum(files.values()),
        files_looked=len(files),
    )


def _idle(draft: _Draft, setting: str, columns: list[Column]) -> bool:
    """Whether `null` for a setting may be left out, as no column has the default name."""
    if draft.columns[setting] is not None or setting in ("problem_type", "data_type"):
        return False
    return all(c.name != ColumnMapping().model_dump()[setting] for c in columns)


def _show(row: Sample, found: bool | None) -> ShownRow:
    return ShownRow(
        sample_id=row.sample_id,
        problem=row.problem,
        options=list(row.options),
        answer=row.reference,
        path=row.path,
        found=found if row.data_type is not DataType.TEXT else None,
    )
