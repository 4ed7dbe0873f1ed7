"""The recipes that come with the package: what `p2r-data init` writes and `p2r-data build NAME` runs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import ConfigError

if TYPE_CHECKING:
    from videop2r_data.schemas import Recipe

__all__ = ["list_recipes", "read_recipe", "recipe_text"]


def list_recipes() -> list[str]:
    """Names of the packaged recipes, in alphabetical order.

    >>> "demo" in list_recipes()
    True
    """
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """A packaged recipe as YAML text, comments included.

    Raises:
        ConfigError: there is none of this name.

    >>> "kind: demo" in recipe_text("demo")
    True
    """
    known = list_recipes()
    if name not in known:
        raise ConfigError(
            f"no packaged recipe {name!r}, there are: {', '.join(known)}",
            hint="give one of these names, or the path of a recipe file",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


def read_recipe(name: str) -> tuple[Recipe, Path]:
    """The recipe in a file or the packaged one of that name, and the folder that its paths are relative to.

    Raises:
        ConfigError: neither.
    """
    from videop2r_data.schemas import is_file, is_folder, load_recipe, parse_recipe

    path = Path(name)
    if is_file(path):
        return load_recipe(path), path.parent
    if name in list_recipes():  # before folders: `demo` stays a recipe where a folder has its name
        return parse_recipe(recipe_text(name), where=f"packaged recipe {name}"), Path.cwd()
    if is_folder(path):
        raise ConfigError("a folder, not a recipe", where=name, hint="give the YAML file in it")
    raise ConfigError(
        f"no recipe {name!r}: neither a file nor one of {', '.join(list_recipes())}",
        hint="p2r-data init writes a commented recipe to start from",
    )
