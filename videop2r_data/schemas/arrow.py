"""Arrow schema and `datasets` features, derived from the row models so that they cannot drift."""

from __future__ import annotations

import types
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel

_PLAIN: dict[type, tuple[str, str]] = {
    str: ("string", "string"),
    bool: ("bool", "bool"),
    int: ("int64", "int64"),
    float: ("double", "float64"),
}


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """The one explicit schema of every shard of a config.

    Raises:
        TypeError: for a field type that has no column type.
    """
    fields = []
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if info.metadata:
            annotation = Annotated[(annotation, *info.metadata)]
        kind, nullable = _column(annotation)
        fields.append(pa.field(name, _arrow_type(kind), nullable=nullable))
    return pa.schema(fields)


def feature_info(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The `dataset_info.features` entry of a dataset card."""
    out: list[dict[str, Any]] = []
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if info.metadata:
            annotation = Annotated[(annotation, *info.metadata)]
        kind, _ = _column(annotation)
        out.append(
            {"name": name, "list": kind[1]} if isinstance(kind, tuple) else {"name": name, "dtype": kind}
        )
    return out


_ARROW = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
}


def _arrow_type(kind: str | tuple[str, str]) -> pa.DataType:
    if isinstance(kind, tuple):
        return pa.list_(pa.field("element", _ARROW[kind[1]], nullable=False))
    return _ARROW[kind]


def _column(annotation: Any) -> tuple[str | tuple[str, str], bool]:
    """Column kind (`"string"` or `("list", "string")`) and whether it may be null."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *marks = get_args(annotation)
        width = next((m for m in marks if isinstance(m, str) and m in _ARROW), None)
        if width:
            return width, False
        return _column(base)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"no column type for {annotation}")
        return _column(inner[0])[0], True
    if origin in (list, tuple):
        kind, _ = _column(get_args(annotation)[0])
        if isinstance(kind, tuple):
            raise TypeError(f"no column type for {annotation}")
        return ("list", kind), False
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return "string", False
        if annotation in _PLAIN:
            return _PLAIN[annotation][1], False
    raise TypeError(f"no column type for {annotation}")
