"""What pydantic found wrong in a file of settings, told for people: key, line, and the nearest right key."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]
"""From the top of a document to a value: keys, and indices of list entries."""

_DEEPEST = 8
_QUOTED = re.compile(r"'([^']*)'")


def error_lines(
    error: ValidationError,
    what: str = "recipe",
    *,
    model: type[BaseModel] | None = None,
    data: Any = None,
    lines: Mapping[Path, str] | None = None,
) -> list[str]:
    """One indented line per error, with its field; an error of the whole document has no field.

    Args:
        error: what pydantic raised.
        what: what a person calls such a document.
        model: what the document must be; with it an unknown key is told with the nearest right one.
        data: the document, plain values; with it the branches of a union are told as one error.
        lines: where each key stands (`key_places`).

    Returns:
        lines in the order of pydantic's errors. A missing field whose misspelt key is among the errors is
        left out: both errors are the same typo.
    """
    found = error.errors(include_url=False)
    typos = {
        (*e["loc"][:-1], right)
        for e in found
        if e["type"] == "extra_forbidden" and model is not None and (right := _nearest(model, e["loc"]))
    }
    told: dict[Path, list[str]] = {}
    at: dict[Path, str] = {}
    for one in found:
        if (one["type"] == "missing" and one["loc"] in typos) or _follows(one, found):
            continue
        place = _real(one["loc"], data)
        texts = told.setdefault(place, [])
        stands = place[:-1] if one["type"] == "missing" else place
        at[place] = (lines or {}).get(stands, "")
        text = _told(model, one["loc"], one)
        if text not in texts:
            texts.append(text)
    return [_line(place, texts, what, at[place]) for place, texts in told.items()]


def _follows(error: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> bool:
    """A list is "too short" because an entry of it is wrong: that entry's error says all."""
    size = len(error["loc"])
    return error["type"] == "too_short" and any(
        len(e["loc"]) > size and e["loc"][:size] == error["loc"] for e in found
    )


def _line(place: Path, texts: list[str], what: str, at: str) -> str:
    head = ".".join(map(str, place)) or f"({what})"
    return f"  {head}: {', or '.join(texts)}{f' ({at})' if at else ''}"


def _told(model: type[BaseModel] | None, place: Path, error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden" and model is not None:
        return _no_such_setting(model, place)
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "literal_error":
        allowed = _QUOTED.findall(str(error.get("ctx", {}).get("expected", "")))
        near = get_close_matches(str(error["input"]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{error['msg']}, got {str(error['input'])[:60]!r}{hint}"
    return str(error["msg"]).removeprefix("Value error, ")


def _no_such_setting(model: type[BaseModel], place: Path) -> str:
    near = _nearest(model, place)
    if near:
        return f"no such setting; did you mean {near!r}?"
    elsewhere = sorted({".".join(p) for p in _paths_of(model, str(place[-1]))})[:3]
    if elsewhere:
        return f"no such setting here; there is {' and '.join(elsewhere)}"
    names = _names_at(model, place[:-1])
    return f"no such setting; allowed here: {', '.join(names)}" if names else "no such setting"


def _nearest(model: type[BaseModel], place: Path) -> str:
    near = get_close_matches(str(place[-1]).lower(), _names_at(model, place[:-1]), n=1, cutoff=0.7)
    return near[0] if near else ""


def _names_at(model: type[BaseModel], place: Path) -> list[str]:
    models = [model]
    for part in place:
        if isinstance(part, str):
            fields = [m.model_fields[part] for m in models if part in m.model_fields]
            models = [inner for field in fields for inner in models_in(field.annotation)] or models
    return [name for m in models for name in m.model_fields]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The records that a field may hold, in lists, mappings and unions as well."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models_in(inner)


def _paths_of(model: type[BaseModel], name: str, depth: int = 0) -> Iterator[tuple[str, ...]]:
    """Where in a document a setting of this name belongs."""
    for own, field in model.model_fields.items():
        if own == name:
            yield (own,)
        if depth < _DEEPEST:
            for inner in models_in(field.annotation):
                for path in _paths_of(inner, name, depth + 1):
                    yield (own, *path)


def _real(place: Sequence[str | int], data: Any) -> Path:
    """The place without the names of union branches, which pydantic puts in and no document has."""
    if data is None:
        return tuple(place)
    kept: list[str | int] = []
    for n, part in enumerate(place):
        if isinstance(data, Mapping) and (part in data or n == len(place) - 1):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and 0 <= part < len(data):
            data = data[part]
        else:
            continue
        kept.append(part)
    return tuple(kept)


def key_places(text: str, where: str) -> dict[Path, str]:
    """`where:line` of each key and list entry of a YAML document that was read without an error.

    >>> key_places("a:\\n  - b: 1", "x.yaml")[("a", 0, "b")]
    'x.yaml:2'
    """
    places: dict[Path, str] = {}
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
    finally:
        loader.dispose()
    if root is not None:
        _note(root, (), places, where)
    return places


def _note(node: yaml.Node, path: Path, places: dict[Path, str], where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                places[(*path, key.value)] = f"{where}:{key.start_mark.line + 1}"
                _note(value, (*path, key.value), places, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*path, index)] = f"{where}:{child.start_mark.line + 1}"
            _note(child, (*path, index), places, where)
