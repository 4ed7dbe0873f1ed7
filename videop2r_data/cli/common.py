"""What the commands share: errors as messages, JSON for machines, and the recipe that was meant."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.schemas.recipe import Recipe

OK, FINDINGS, USAGE, UNFINISHED = 0, 1, 2, 3
"""Exit codes: done; an error or wrong data; wrong usage; stopped before the end, to be gone on with."""


def err_console() -> Console:
    """For people: progress, notes and errors go to stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def out_console() -> Console:
    """For results: stdout, 80 columns when it is piped."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 80)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Errors that this package raises on purpose become one message and exit code 1."""
    from videop2r_data.errors import P2RError

    try:
        yield
    except P2RError as error:
        from rich.text import Text

        console = err_console()
        console.print(Text("error: ", style="bold red") + Text(str(error)))
        raise typer.Exit(FINDINGS) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(FINDINGS) from None


def read_recipe(name: str) -> tuple[Recipe, Path]:
    """A packaged recipe by its name, or a file; with the folder that its paths are relative to.

    Raises:
        ConfigError: neither.
    """
    from videop2r_data.errors import ConfigError
    from videop2r_data.recipes import list_recipes, recipe_text
    from videop2r_data.schemas.recipe import load_recipe, parse_recipe

    path = Path(name)
    if path.is_file():
        return load_recipe(path), path.parent
    if name in list_recipes():
        return parse_recipe(recipe_text(name), where=f"packaged recipe {name}"), Path.cwd()
    raise ConfigError(
        f"no recipe {name!r}: neither a file nor one of {', '.join(list_recipes())}",
        hint="p2r-data init writes a commented recipe to start from",
    )


def with_overrides(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with flags applied; None leaves a setting alone."""
    data = recipe.model_dump(mode="json")
    for dotted, value in changes.items():
        if value is None:
            continue
        place = data
        *path, last = dotted.split("__")
        for part in path:
            place = place[part]
        place[last] = value
    return type(recipe).model_validate(data)
