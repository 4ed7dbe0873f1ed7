"""Records with nothing in them, for the few fields that matter to be set."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

_EMPTY: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, list: [], tuple: (), dict: {}}


def blank(model: type[BaseModel]) -> dict[str, Any]:
    """A value for each field of a model that has no default: None where it may be, else the empty one.

    >>> class Pet(BaseModel):
    ...     name: str
    ...     chip: int | None
    ...     toys: list[str]
    >>> blank(Pet)
    {'name': '', 'chip': None, 'toys': []}
    """
    fields = {name: field.annotation for name, field in model.model_fields.items() if field.is_required()}
    return {name: _value(annotation) for name, annotation in fields.items()}


def _value(annotation: Any) -> Any:
    kind = get_origin(annotation) or annotation
    if NoneType in get_args(annotation):
        return None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return blank(kind)
    return _EMPTY.get(kind)
