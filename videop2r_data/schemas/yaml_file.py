"""YAML files of strangers, read safely; all errors at once, with key, line and the nearest right key."""

from __future__ import annotations

import re
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from videop2r_data.errors import ConfigError

# --- errors of pydantic, told with key, line and the nearest right key ---

Place = tuple[str | int, ...]
"""From the top of a document to a value: keys, and indices of list entries."""

_DEEPEST = 8
_QUOTED = re.compile(r"'([^']*)'")


def error_lines(
    error: ValidationError,
    what: str,
    *,
    model: type[BaseModel],
    data: Any,
    lines: Mapping[Place, str],
) -> list[str]:
    """One indented line per error, with its field, in the order of pydantic's errors.

    Args:
        error: what pydantic raised; an error of the whole document has no field.
        what: what a person calls such a document.
        model: what the document must be.
        data: the document, plain values.
        lines: where each key stands (`key_places`).
    """
    found = error.errors(include_url=False)
    # `modle: x` gives two errors of pydantic, an unknown key and a missing one: one typo, told once.
    typos = {
        (*e["loc"][:-1], right)
        for e in found
        if e["type"] == "extra_forbidden" and (right := _nearest(model, e["loc"]))
    }
    told: dict[Place, list[str]] = {}
    at: dict[Place, str] = {}
    for one in found:
        if (one["type"] == "missing" and one["loc"] in typos) or _follows(one, found):
            continue
        place = _real(one["loc"], data)
        texts = told.setdefault(place, [])
        stands = place[:-1] if one["type"] == "missing" else place
        at[place] = lines.get(stands, "")
        text = _told(model, one["loc"], one)
        if text not in texts:
            texts.append(text)
    heads = {place: ".".join(map(str, place)) or f"({what})" for place in told}
    ends = {place: f" ({at[place]})" if at[place] else "" for place in told}
    return [f"  {heads[place]}: {', or '.join(texts)}{ends[place]}" for place, texts in told.items()]


def _follows(error: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> bool:
    """A list is "too short" because an entry of it is wrong: that entry's error says all."""
    size = len(error["loc"])
    return error["type"] == "too_short" and any(
        len(e["loc"]) > size and e["loc"][:size] == error["loc"] for e in found
    )


_SHAPES = dict.fromkeys(("tuple_type", "list_type"), "give a list, such as [a, b]") | dict.fromkeys(
    ("model_type", "model_attributes_type", "dict_type"), "give settings, each as `name: value`"
)
"""Types of pydantic's errors about a value of another shape -> what a recipe holds there."""


_OF_NUMBERS = ("int_", "float_", "bool_", "greater_than", "less_than")
"""Beginnings of pydantic's names for errors about numbers; texts are not repeated: one may be a key."""


def _told(model: type[BaseModel], place: Place, error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return _no_such_setting(model, place)
    if error["type"] == "missing":
        return "is missing"
    if error["type"] in _SHAPES:
        return f"{_SHAPES[error['type']]}, got {str(error['input'])[:60]!r}"
    if error["type"] in ("literal_error", "enum"):
        allowed = _QUOTED.findall(str(error.get("ctx", {}).get("expected", "")))
        near = get_close_matches(str(error["input"]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{error['msg']}, got {str(error['input'])[:60]!r}{hint}"
    if error["type"].startswith(_OF_NUMBERS):
        return f"{error['msg']}, got {str(error['input'])[:60]!r}"
    return str(error["msg"]).removeprefix("Value error, ")


def _no_such_setting(model: type[BaseModel], place: Place) -> str:
    near = _nearest(model, place)
    if near:
        return f"no such setting; did you mean {near!r}?"
    elsewhere = sorted({".".join(p) for p in _paths_of(model, str(place[-1]))})[:3]
    if elsewhere:
        return f"no such setting here; there is {' and '.join(elsewhere)}"
    names = _names_at(model, place[:-1])
    return f"no such setting; allowed here: {', '.join(names)}" if names else "no such setting"


def _nearest(model: type[BaseModel], place: Place) -> str:
    near = get_close_matches(str(place[-1]).lower(), _names_at(model, place[:-1]), n=1, cutoff=0.7)
    return near[0] if near else ""


def _names_at(model: type[BaseModel], place: Place) -> list[str]:
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


def _real(place: Sequence[str | int], data: Any) -> Place:
    """The place without the names of union branches, which pydantic puts in and no document has."""
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


def key_places(text: str, where: str) -> dict[Place, str]:
    """`where:line` of each key and list entry of a YAML document that was read without an error.

    >>> key_places("a:\\n  - b: 1", "x.yaml")[("a", 0, "b")]
    'x.yaml:2'
    """
    places: dict[Place, str] = {}
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
    finally:
        loader.dispose()
    if root is not None:
        _note(root, (), places, where)
    return places


def _note(node: yaml.Node, path: Place, places: dict[Place, str], where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                places[(*path, key.value)] = f"{where}:{key.start_mark.line + 1}"
                _note(value, (*path, key.value), places, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            places[(*path, index)] = f"{where}:{child.start_mark.line + 1}"
            _note(child, (*path, index), places, where)


# --- reading: plain values, no key twice, a bounded size ---

_MAX_CHARACTERS = 1_000_000
_MAX_NODES = 20_000
"""Values in a document, each alias counted in full: a few nested aliases can stand for billions."""

_INT, _MAX_DIGITS = "tag:yaml.org,2002:int", 1_000

M = TypeVar("M", bound=BaseModel)


def parse_yaml(
    text: str,
    model: type[M],
    *,
    where: str,
    what: str = "recipe",
    valid: str,
    allowed: str,
    base: Path | None = None,
) -> M:
    """A record from YAML text.

    Args:
        text: the document.
        model: what it must be.
        where: file or name, for errors.
        what: what a person calls such a file.
        valid, allowed: what to do about text that is no such document, and about wrong fields.
        base: folder that files named in the document are relative to; None: the current one.

    Raises:
        ConfigError: every error of the document at once, each with its field.
    """
    data = parse_mapping(text, where=where, what=what, valid=valid)
    return validate_settings(data, model, where=where, what=what, allowed=allowed, text=text, base=base)


def validate_settings(
    data: Any,
    model: type[M],
    *,
    where: str,
    what: str,
    allowed: str = "",
    text: str | None = None,
    file: str | None = None,
    base: Path | None = None,
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
        base: folder that files named in the document are relative to; None: the current one.

    Raises:
        ConfigError: every error at once, each with field and line; an unknown key with the nearest right one.
    """
    try:
        return model.model_validate(data, context={"base": base or Path()})
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
        said = str(error).replace("<unicode string>", where)  # what PyYAML calls the text that it was given
        raise ConfigError(f"not YAML: {said}", where=where, hint=valid) from None
    if not isinstance(data, dict):
        raise ConfigError(f"a {what} is a YAML mapping", where=where, hint=valid)
    return data


def expanded(path: str | Path) -> Path:
    """A path as a person writes it: `~` is the home folder, unless there is no such user."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):
        return Path(path)


def is_file(path: Path) -> bool:
    """Whether a file lies there; a name that no file system takes names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """The same of a folder."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_settings(path: Path, *, what: str = "recipe") -> str:
    """The text of a file.

    Raises:
        ConfigError: it is missing or not UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_CHARACTERS + 1)  # one too many is refused when it is parsed
    except (OSError, ValueError) as error:
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
    # Compose, weigh, then construct: an alias is one object here, but validation would walk it each time.
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _weigh(node, {})
        return loader.construct_document(node)
    except (AttributeError, ArithmeticError, TypeError) as error:  # of a tag that its value does not fit
        raise ValueError(f"a value that its type cannot have: {error}") from None
    finally:
        loader.dispose()


def _weigh(node: yaml.Node, seen: dict[int, int]) -> int:
    """Values below a node."""
    # A node under way is marked 0; meeting it again below itself is a cycle.
    if seen.get(id(node)) == 0:
        raise ValueError(f"an alias inside of its own value{node.start_mark}")
    if id(node) in seen:
        return seen[id(node)]
    if node.tag == _INT and len(node.value) > _MAX_DIGITS:  # Python can make such a number and not print it
        raise ValueError(f"a number of {len(node.value):,} digits{node.start_mark}")
    seen[id(node)] = 0
    total = 1
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted(key for key, count in Counter(keys).items() if count > 1)
        if twice:
            raise ValueError(f"a key stands twice: {', '.join(twice)}{node.start_mark}")
        total += sum(_weigh(key, seen) + _weigh(value, seen) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_weigh(child, seen) for child in node.value)
    if total > _MAX_NODES:
        raise ValueError(f"more than {_MAX_NODES:,} values, aliases counted in full")
    seen[id(node)] = total
    return total


def parse_set(text: str) -> tuple[str, Any]:
    """Key and value of a flag `--set key.path=value`; the value is YAML.

    Raises:
        ConfigError: it is none.

    >>> parse_set("media.frames=8")
    ('media.frames', 8)
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        hint = "write key.path=value, e.g. --set media.frames=8"
        raise ConfigError(f"got {text!r}", where="--set", hint=hint)
    try:
        return key.strip(), read_yaml(value)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise ConfigError(f"the value is not YAML: {error}", where=f"--set {key}") from None
