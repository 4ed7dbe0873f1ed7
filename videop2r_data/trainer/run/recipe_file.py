"""From a name or file and a few flags to a training recipe, every error at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import parse_mapping, read_settings, read_yaml, validate_settings
from videop2r_data.trainer.recipes import list_train_recipes, train_recipe_text
from videop2r_data.trainer.run.config import TrainRecipe

_VALID = "p2r-train init NAME writes a valid recipe"
_PATHS = (
    ("data", "source"),
    ("data", "media_root"),
    ("data", "prompt"),
    ("evaluation", "source"),
    ("evaluation", "media_root"),
    ("evaluation", "prompt"),
    ("model", "model"),
    ("reference",),
    ("judging", "cache"),
    ("judging", "prompt"),
)
"""Settings that may name a file or folder; in a recipe file they are relative to it."""


def load_train_recipe(
    name: str | Path, *, sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> TrainRecipe:
    """A packaged recipe by its name, or a file, with changes from the command line.

    Args:
        name: of `list_train_recipes()`, or the path of a YAML file.
        sets: changes as `key.path=value`; the value is read as YAML (`optim.lr=1e-5`, `trackers=[wandb]`).
        flags: changes as `{"key.path": value}`; None leaves a setting alone. They win over `sets`.

    Returns:
        the recipe; paths that exist are absolute: those of a file relative to its folder, the others to the
        working directory.

    Raises:
        ConfigError: no such recipe, a change of something that is not there, or values that do not fit.
    """
    path = Path(name)
    if path.is_file():
        text, where, base = read_settings(path), str(path), path.resolve().parent
    elif str(name) in list_train_recipes():
        text, where, base = train_recipe_text(str(name)), f"packaged recipe {name}", Path.cwd()
    else:
        raise ConfigError(
            f"no training recipe {str(name)!r}: neither a file nor one of {', '.join(list_train_recipes())}",
            hint="p2r-train recipes lists them, p2r-train init NAME writes one to start from",
        )
    data = parse_mapping(text, where=where, what="training recipe", valid=_VALID)
    _resolve(data, base)
    changes = [_parse_set(one) for one in sets]
    changes += [(key, value) for key, value in (flags or {}).items() if value is not None]
    for key, value in changes:
        _put(data, key, value)
    _resolve(data, Path.cwd())
    flagged = f"{where} with the flags of the command" if changes else where
    return validated(data, where=flagged, text=text, file=where)


def validated(
    data: dict[str, Any], *, where: str, text: str | None = None, file: str | None = None
) -> TrainRecipe:
    """The recipe that plain values describe; `text` is the YAML of `file` that they come from, for errors.

    Raises:
        ConfigError: every error at once, each with its field.
    """
    return validate_settings(
        data,
        TrainRecipe,
        where=where,
        what="training recipe",
        allowed="p2r-train schema prints what is allowed",
        text=text,
        file=file,
    )


def recipe_yaml(recipe: TrainRecipe) -> str:
    """The settings that are not the defaults, as YAML that loads to an equal recipe."""
    data = {"train": recipe.train, **recipe.model_dump(mode="json", exclude_defaults=True)}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _parse_set(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(
            f"got {text!r}", where="--set", hint="write key.path=value, e.g. --set optim.lr=1e-5"
        )
    try:
        return key.strip(), read_yaml(value)
    except (yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise ConfigError(f"the value is not YAML: {error}", where=f"--set {key}") from None


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a nested value; sections that the recipe leaves to their defaults are made."""
    *parts, last = key.split(".")
    place = data
    for part in parts:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(
                f"{part} holds no settings", where=key, hint="p2r-train schema prints what is allowed"
            )
    if key == "steps" and value is not None:
        data.pop("epochs", None)
    if key == "epochs" and value is not None:
        data.pop("steps", None)
    place[last] = value


def _resolve(data: dict[str, Any], base: Path) -> None:
    """Make paths absolute that exist under `base`; names of other things (Hub ids, prompts) stay."""
    for *parts, last in _PATHS:
        place: Any = data
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        value = place.get(last) if isinstance(place, dict) else None
        if isinstance(value, str | Path) and str(value) and not Path(value).is_absolute():
            found = base / Path(value).expanduser()
            if found.exists():
                place[last] = str(found.resolve())
