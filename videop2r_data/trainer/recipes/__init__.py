"""The training recipes that come with the package: what `p2r-train init` writes and `--recipe NAME` runs."""

from __future__ import annotations

from importlib.resources import files

from videop2r_data.errors import ConfigError

__all__ = ["list_train_recipes", "train_recipe_text"]


def list_train_recipes() -> list[str]:
    """Names of the packaged training recipes, in alphabetical order.

    >>> "tiny-sft" in list_train_recipes()
    True
    """
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def train_recipe_text(name: str) -> str:
    """A packaged training recipe as YAML text, comments included.

    Raises:
        ConfigError: there is none of this name.

    >>> "stage: sft" in train_recipe_text("tiny-sft")
    True
    """
    known = list_train_recipes()
    if name not in known:
        raise ConfigError(
            f"no packaged training recipe {name!r}, there are: {', '.join(known)}",
            hint="give one of these names, or the path of a recipe file",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
