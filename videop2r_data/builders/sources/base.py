"""What all sources share: needed columns, limit, unique ids and digest, around a reader of raw rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from hashlib import blake2b, sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from videop2r_data.builders.sources.answers import FieldError
from videop2r_data.builders.sources.normalise import (
    DATA_TYPES,
    PROBLEM_TYPES,
    Normaliser,
    columns_in,
    name_of_type,
    read_base,
)
from videop2r_data.errors import SourceError
from videop2r_data.files import RawRow
from videop2r_data.schemas import (
    BadRow,
    ColumnMapping,
    DataType,
    RejectReason,
    Sample,
    SourceSpec,
    canonical_bytes,
)

if TYPE_CHECKING:
    from videop2r_data.builders.finished import Finished

# Columns that the mapping needs, compared with those of the pool once, before the first row.


_SHOWN, _SHOWN_CHARS = 40, 60
HINT = "set `columns` of this source in the recipe; p2r-data init --from-data shows a guess"


def needed_columns(spec: SourceSpec) -> list[tuple[str, str]]:
    """Setting and column of everything without which no row of the pool can be read, or that was named.

    A column of the default mapping that is only useful (`data_source`, `problem_id`) may be missing.
    """
    columns, default = spec.columns, ColumnMapping()
    needed = {"problem", "solution"}
    needed |= {"problem_type"} if spec.problem_type is None else set()
    needed |= {"data_type"} if spec.data_type is None else set()
    needed |= {"path"} if _all_media(spec) else set()
    needed |= {"options"} if _all_choice(spec) else set()
    found: list[tuple[str, str]] = []
    for setting in ColumnMapping.model_fields:
        value = getattr(columns, setting)
        named = value != getattr(default, setting)
        if value is None or not (named or setting in needed):
            continue
        found += [(setting, column) for column in columns_in(value)]
    return found


def check_settings(spec: SourceSpec, where: str) -> None:
    """Check the settings that need no row of the pool.

    Raises:
        SourceError: a field that every row needs has neither a column nor a value for all rows.
    """
    lacking = [
        setting
        for setting in ("problem_type", "data_type")
        if getattr(spec.columns, setting) is None and getattr(spec, setting) is None
    ]
    if lacking:
        raise SourceError(
            f"`columns` has null for {' and '.join(lacking)}, and the source sets no value for all rows",
            where=where,
            hint="\n".join(
                f"name the column, or set `{s}` of this source (not of `columns`)" for s in lacking
            ),
        )
    if _all_choice(spec) and spec.columns.options is None:
        raise SourceError(
            f"problem_type is {spec.problem_type}, and `columns` says that there is no column for options",
            where=where,
            hint="options: one column, or a list of columns with an option each",
        )
    if _all_media(spec) and spec.columns.path is None:
        raise SourceError(
            f"data_type is {spec.data_type}, and `columns` says that there is no column for path",
            where=where,
            hint="path: the column with the media files, or data_type: text for questions without media",
        )


def check_names(spec: SourceSpec, names: Sequence[str], where: str) -> None:
    """Compare the mapping with the columns that a pool declares.

    Raises:
        SourceError: a needed column is missing, or stands there twice.
    """
    lacking = [(s, c) for s, c in needed_columns(spec) if not _is_there(c, names)]
    if lacking:
        raise no_column(lacking, names, where)
    mapped = (getattr(spec.columns, setting) for setting in ColumnMapping.model_fields)
    used = {column for value in mapped for column in columns_in(value)}
    twice = sorted({name for name in names if name in used and names.count(name) > 1})
    if twice:
        raise SourceError(
            f"the column {', '.join(map(repr, twice))} stands there {names.count(twice[0])} times",
            where=where,
            hint="give each column a name of its own: which of them is meant, nobody can tell",
        )


def check_rows(spec: SourceSpec, rows: Iterable[RawRow], where: str) -> None:
    """The same for a pool whose rows each bring their own fields: reads on until each needed one was seen.

    Raises:
        SourceError: no row has a needed column.
    """
    missing = dict.fromkeys(needed_columns(spec))
    names: dict[str, None] = {}
    first, seen = None, 0
    for raw in rows:
        seen += 1
        if raw.value is None:
            continue
        first = first or raw.value
        names.update(dict.fromkeys(_flat(raw.value)))
        for one in [one for one in missing if _is_there(one[1], list(raw.value))]:
            del missing[one]
        if not missing:
            return
    if first is not None and seen == 1:
        refuse_wrapped(first, where)
    if names:  # without a good row, the bad rows say what is wrong
        raise no_column(list(missing), list(names), where)


def refuse_wrapped(value: Mapping[str, Any], where: str) -> None:
    """Refuse a file that is one JSON object with the rows inside of it.

    Raises:
        SourceError: a field holds a list of objects, or each field holds one.
    """
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    if lists:
        name = str(max(lists, key=lambda key: len(value[key])))[:_SHOWN_CHARS]
        raise SourceError(
            f"the file is one object, and its rows seem to stand in its field {name!r}",
            where=where,
            hint=f"keep that array alone: jq '.\"{name}\"' old.json > rows.json",
        )
    inner = [set(v) for v in value.values() if isinstance(v, dict)]
    if len(inner) > 1 and len(inner) == len(value) and len(set.intersection(*inner)) > 1:
        first = str(next(iter(value)))[:_SHOWN_CHARS]
        raise SourceError(
            f"the file is one object around all rows, each under its own name ({first!r} ...)",
            where=where,
            hint="make an array of them: jq 'to_entries | map({key: .key} + .value)' old.json > rows.json",
        )


def no_column(lacking: Sequence[tuple[str, str]], names: Sequence[str], where: str) -> SourceError:
    """The error that names the settings, the columns they name, and the columns that there are."""
    told = ", ".join(f"{setting}: {column}" for setting, column in lacking)
    shown = ", ".join(name[:_SHOWN_CHARS] for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    spelt = {name.lower(): name for name in reversed(names)}
    meant = "".join(
        f"did you mean {spelt[near]!r} for {column!r}? "
        for column in dict(lacking).values()
        for near in get_close_matches(column.lower(), spelt, n=1, cutoff=0.65)
    )
    return SourceError(f"no column for {told}; there are: {shown}{more}", where=where, hint=meant + HINT)


def _is_there(column: str, names: Sequence[str]) -> bool:
    return column in names or ("." in column and column.partition(".")[0] in names)


def _flat(value: Mapping[str, Any]) -> list[str]:
    """Names of a row's fields, and of those one level inside, as a mapping names them."""
    found = []
    for name, inner in value.items():
        found.append(str(name))
        if isinstance(inner, Mapping):
            found += [f"{name}.{key}" for key in list(inner)[:20]]
    return found


def _all_media(spec: SourceSpec) -> bool:
    return DATA_TYPES.get(name_of_type(spec.data_type), DataType.TEXT) is not DataType.TEXT


def _all_choice(spec: SourceSpec) -> bool:
    kind = PROBLEM_TYPES.get(name_of_type(spec.problem_type))
    return kind is not None and kind.traits.form == "option"


# The source itself, over raw rows.


class PoolDigest:
    """sha256 over the canonical rows of a pool, in order, built up while they stream by.

    >>> PoolDigest().hexdigest()[:8]
    'e3b0c442'
    """

    def __init__(self) -> None:
        self._hash = sha256()
        self.rows = 0

    def update(self, row: Sample | BadRow) -> None:
        """Take one row in: content and id of a good one, place and text of a bad one."""
        if isinstance(row, BadRow):
            record = {"bad": row.reason.value, "row": row.row, "problem_id": row.problem_id, "raw": row.raw}
        else:
            record = row.content() | {"sample_id": row.sample_id}
        self._hash.update(canonical_bytes(record) + b"\n")
        self.rows += 1

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return self._hash.hexdigest()


class Source(ABC):
    """One pool of questions, opened; a subclass says where its raw rows come from."""

    def __init__(self, spec: SourceSpec, media_root: Path | None) -> None:
        self.spec = spec
        self._media_root = media_root
        self._checked = False
        self._counted_from: int | None = None
        self.embed: Callable[[bytes], str] | None = None
        """Takes the media that the rows themselves hold, for a pool of such rows."""

    @property
    def name(self) -> str:
        """As in the recipe."""
        return self.spec.name

    @property
    def media_root(self) -> Path | None:
        """Folder that `Sample.path` is relative to; None: no folder was named and none lies near."""
        return self._media_root

    @abstractmethod
    def raw_rows(self) -> Iterator[RawRow]:
        """The rows as they stand in the pool, numbered from 0."""

    @property
    def note(self) -> str:
        """What was read from the pool as a whole and the recipe does not say; empty if there is nothing."""
        if self._counted_from is None:
            return ""
        return (
            f"whole-number answers are indices from {self._counted_from}, as the pool as a whole says "
            f"(answer_base: {self._counted_from} in the recipe says so without reading it)"
        )

    def headers(self) -> Iterator[tuple[str, Sequence[str]]]:
        """(place, column names) of each header in the pool; empty where only rows name their fields."""
        return iter(())

    @property
    def where(self) -> str:
        """The source, for messages."""
        return f"source {self.name!r}, {self.spec.path}" if self.spec.path else f"source {self.name!r}"

    def check(self) -> None:
        """Compare the recipe's columns with those of the pool, once, before the first row.

        Raises:
            SourceError: a column that every row needs, or that the recipe names, is not there.
        """
        if self._checked:
            return
        check_settings(self.spec, self.where)
        told = False
        for place, names in self.headers():
            check_names(self.spec, names, f"source {self.name!r}, {place}")
            told = True
        if not told:
            check_rows(self.spec, self.raw_rows(), self.where)
        self._checked = True

    def rows(self, finished: Finished | None = None) -> Iterator[Sample | BadRow]:
        """All rows in the order of the pool, in constant memory; may be called again.

        Args:
            finished: in the place of a question that needs no look comes a `Done`.

        Raises:
            SourceError: the pool as a whole cannot be read (on); the good rows before that were given. Or it
                has no row, or not the columns that the recipe names.
        """
        self.check()
        normalise = Normaliser(self.spec, self.media_root, embed=self.embed)
        unique = _UniqueIds(normalise)
        counts = self.spec.answer_base is not None
        raw: RawRow | None = None
        for raw in islice(self.raw_rows(), self.spec.limit):
            if raw.value is None:
                yield normalise.bad(raw.index, raw.fault, raw=raw.raw, value=raw.known)
                continue
            mark = None
            if finished is not None:
                try:
                    problem_id, file = normalise.known_by(raw.index, raw.value)
                    mark = finished.mark(self.name, raw.value, file)
                except (FieldError, TypeError):
                    pass  # the row is looked at, and the fault is told
                else:
                    what, done = finished.find(mark)
                    if done is not None and unique.take(problem_id, what):
                        yield cast("BadRow", done)  # whoever names `finished` looks for it
                        continue
            if not counts and normalise.index_answer(raw.value) is not None:
                normalise, counts = replace(normalise, counted_from=self.counted_from()), True
            row = unique(normalise(raw.index, raw.value), raw.value)
            if finished is not None and mark is not None and isinstance(row, Sample):
                finished.begin(row, mark, unique.what)
            yield row
        if raw is None:
            raise SourceError(
                "the pool holds no row", where=self.where, hint="check `path` and `split` of this source"
            )

    def counted_from(self) -> int:
        """Whether index answers count from 0 or 1, read from the whole pool, beyond `limit` too.

        Raises:
            SourceError: the pool leaves it open, or says both.
        """
        if self._counted_from is None:
            self._counted_from = read_base(self.raw_rows(), Normaliser(self.spec), self.where)
        return self._counted_from


def numbered_through(files: Iterable[Path], read: Callable[[Path], Iterable[RawRow]]) -> Iterator[RawRow]:
    """The rows of some files, one file after the other, numbered through."""
    start = 0
    for path in files:
        index = -1
        for row in read(path):
            index = row.index
            yield row if start == 0 else replace(row, index=start + index)
        start += index + 1


class _UniqueIds:
    """Keeps sample ids unique: about 150 bytes a row.

    The first row with an id keeps it. A row of equal content is a duplicate. A row of other content under
    the same id becomes `<id>#<8 digits of its content digest>`: pools merged out of several sets number each
    from 0, and dropping those rows would lose questions.
    """

    def __init__(self, normalise: Normaliser) -> None:
        self._normalise = normalise
        self._first: dict[str, int] = {}
        self.what = 0
        """Hash of the content of the row that was last read."""

    def __call__(self, row: Sample | BadRow, value: Mapping[str, Any]) -> Sample | BadRow:
        if isinstance(row, BadRow):
            return row
        try:
            self.what = _hash(canonical_bytes(row.content()))
        except TypeError:
            detail = f'"{_unwritable(row)}" holds half of a surrogate pair, which is no Unicode text'
            return self._normalise.bad(row.row, detail, value=value)
        problem_id = self.take(row.problem_id, self.what)
        if problem_id is None:
            detail = f"problem_id {row.problem_id!r} with this very content stands further up"
            return self._normalise.bad(row.row, detail, reason=RejectReason.DUPLICATE_ID, value=value)
        if problem_id == row.problem_id:
            return row
        return row.model_copy(update={"problem_id": problem_id, "sample_id": f"{row.source}/{problem_id}"})

    def take(self, problem_id: str, what: int) -> str | None:
        """The id that a row of this content goes by; None: the same stands further up."""
        for name in (problem_id, f"{problem_id}#{what >> 20:08x}"):
            if name not in self._first:
                self._first[name] = what
                return name
            if self._first[name] == what:
                break
        return None


def _unwritable(row: Sample) -> str:
    """Name of the first field whose text cannot be encoded."""
    for name, value in row.content().items():
        try:
            canonical_bytes(value)
        except TypeError:
            return name
    return "row"


def _hash(data: bytes) -> int:
    """52 bits: of 260,000 contents under one id two would meet by chance with probability 8e-6."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") >> 12
