"""The columns that a source's mapping needs, held against those of its pool: once, before the first row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from videop2r_data.builders.sources.normalise import DATA_TYPES, PROBLEM_TYPES, columns_in, name_of_type
from videop2r_data.errors import SourceError
from videop2r_data.files.json_rows import RawRow
from videop2r_data.schemas.recipe import ColumnMapping, SourceSpec
from videop2r_data.schemas.sample import DataType, ProblemType

_SHOWN = 40
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
    """What can be told from the recipe alone.

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
            "problem_type is multiple choice, and `columns` says that there is no column for options",
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
    """Hold the mapping against the columns that a pool says it has.

    Raises:
        SourceError: a needed column is missing, or stands there twice.
    """
    lacking = [(s, c) for s, c in needed_columns(spec) if not _is_there(c, names)]
    if lacking:
        raise no_column(lacking, names, where)
    used = {column for _, column in _mapped(spec.columns)}
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
    if names:  # a pool without one good row is told by its rows
        raise no_column(list(missing), list(names), where)


def refuse_wrapped(value: Mapping[str, Any], where: str) -> None:
    """Name what a file of one object is: all rows inside of it.

    Raises:
        SourceError: a field holds a list of objects, or each field holds one.
    """
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    if lists:
        name = max(lists, key=lambda key: len(value[key]))
        raise SourceError(
            f"the file is one object, and its rows seem to stand in its field {name!r}",
            where=where,
            hint=f"keep that array alone: jq '.\"{name}\"' old.json > rows.json",
        )
    inner = [set(v) for v in value.values() if isinstance(v, dict)]
    if len(inner) > 1 and len(inner) == len(value) and len(set.intersection(*inner)) > 1:
        raise SourceError(
            f"the file is one object around all rows, each under its own name ({next(iter(value))!r} ...)",
            where=where,
            hint="make an array of them: jq 'to_entries | map({key: .key} + .value)' old.json > rows.json",
        )


def no_column(lacking: Sequence[tuple[str, str]], names: Sequence[str], where: str) -> SourceError:
    """The error that names the settings, the columns they name, and the columns that there are."""
    told = ", ".join(f"{setting}: {column}" for setting, column in lacking)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    near = {
        column: match[0]
        for _, column in lacking
        if (match := get_close_matches(column.lower(), [n.lower() for n in names], n=1))
    }
    meant = "".join(f"did you mean {_spelt(right, names)!r} for {wrong!r}? " for wrong, right in near.items())
    return SourceError(
        f"no column for {told}; there are: {', '.join(names[:_SHOWN])}{more}", where=where, hint=meant + HINT
    )


def _spelt(lower: str, names: Sequence[str]) -> str:
    return next(name for name in names if name.lower() == lower)


def _mapped(columns: ColumnMapping) -> list[tuple[str, str]]:
    found = []
    for setting in ColumnMapping.model_fields:
        found += [(setting, column) for column in columns_in(getattr(columns, setting))]
    return found


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
    return PROBLEM_TYPES.get(name_of_type(spec.problem_type)) is ProblemType.MULTIPLE_CHOICE
