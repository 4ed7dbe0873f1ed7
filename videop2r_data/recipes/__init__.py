"""The recipes that come with the package: what `p2r-data init` writes and `p2r-data build NAME` runs."""

from __future__ import annotations

from importlib.resources import files

from videop2r_data.errors import ConfigError

__all__ = ["list_recipes", "recipe_text"]


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
