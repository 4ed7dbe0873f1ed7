"""YAML that strangers wrote, read safely: plain values, no key twice, a bounded size, all errors at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.field_errors import error_lines, key_places

_MAX_CHARACTERS = 1_000_000
_MAX_NODES = 20_000
"""Values in a document, each alias counted in full: a few nested aliases can stand for billions."""

M = TypeVar("M", bound=BaseModel)


def parse_yaml(text: str, model: type[M], *, where: str, what: str = "recipe", valid: str, allowed: str) -> M:
    """A record from YAML text.

    Args:
        text: the document.
        model: what it must be.
        where: file or name, for errors.
        what: what a person calls such a file.
        valid, allowed: what to do about text that is no such document, and about wrong fields.

    Raises:
        ConfigError: every error of the document at once, each with its field.
    """
    data = parse_mapping(text, where=where, what=what, valid=valid)
    return checked(data, model, where=where, what=what, allowed=allowed, text=text)


def checked(
    data: Any,
    model: type[M],
    *,
    where: str,
    what: str,
    allowed: str = "",
    text: str | None = None,
    file: str | None = None,
) -> M:
    """A record from plain values; the one place that tells what is wrong in a file of settings.

    Args:
        data: the values.
        model: what they must be.
        where: file or name, for errors.
        what: what a person calls such a file.
        allowed: what to do about wrong fields.
        text: the YAML document that the values come from; errors name the lines in it.
        file: name of that document, where it is not `where`.

    Raises:
        ConfigError: every error at once, each with field and line; an unknown key with the nearest right one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        places = key_places(text, file or where) if text is not None else {}
        lines = error_lines(error, what, model=model, data=data, lines=places)
        raise ConfigError(
            f"{len(lines)} error(s) in the {what}\n" + "\n".join(lines), where=where, hint=allowed or None
        ) from None


def parse_mapping(text: str, *, where: str, what: str = "recipe", valid: str) -> dict[str, Any]:
    """A YAML mapping, not validated further.

    Raises:
        ConfigError: it is not YAML, or no mapping.
    """
    try:
        data = read_yaml(text)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise ConfigError(f"not YAML: {error}", where=where, hint=valid) from None
    if not isinstance(data, dict):
        raise ConfigError(f"a {what} is a YAML mapping", where=where, hint=valid)
    return data


def read_text(path: Path, *, what: str = "recipe") -> str:
    """The text of a file.

    Raises:
        ConfigError: it is missing or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the {what}: {error}", where=str(path)) from None


def read_yaml(text: str) -> Any:
    """One plain YAML document, no key twice, of a bounded size; aliases are allowed.

    Raises:
        yaml.YAMLError, ValueError, LookupError, RecursionError: it is not.

    >>> read_yaml("lr: 0.001\\nsteps: [1, 2]")
    {'lr': 0.001, 'steps': [1, 2]}
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a recipe has at most {_MAX_CHARACTERS:,} characters")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, seen: dict[int, int]) -> int:
    """Values below a node; 0 marks one that is being counted, so that a node inside itself is found."""
    if seen.get(id(node)) == 0:
        raise ValueError(f"an alias inside of its own value{node.start_mark}")
    if id(node) in seen:
        return seen[id(node)]
    seen[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"a key stands twice: {', '.join(twice)}{node.start_mark}")
        total += sum(_weigh(key, seen) + _weigh(value, seen) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_weigh(child, seen) for child in node.value)
    if total > _MAX_NODES:
        raise ValueError(f"more than {_MAX_NODES:,} values, aliases counted in full")
    seen[id(node)] = total
    return total
