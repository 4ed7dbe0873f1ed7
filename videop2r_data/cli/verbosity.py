"""How much a command says on stderr: `-q`, nothing, or `-v`, before the command or after it.

Quiet: errors alone, no progress and no notes. Verbose: every wait and every retry as it happens, what the
libraries log, which version runs where, and the traceback of an error that is told in one line otherwise.
Results on stdout and exit codes are the same at each of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import copy
from enum import IntEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Level(IntEnum):
    """What is said on stderr."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


class _State:
    level = Level.NORMAL


def level() -> Level:
    """The level of the running command."""
    return _State.level


def set_level(chosen: Level) -> None:
    """Set it for this process; verbose turns the log of the libraries on.

    Their level is INFO: at DEBUG some of them log headers, and with them keys.
    """
    before, _State.level = _State.level, chosen
    if chosen is Level.VERBOSE and before is not chosen:
        import logging

        from videop2r_data.cli.output import VisibleFormatter

        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(VisibleFormatter("%(name)s: %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        typer.echo(_environment(), err=True)


def _environment() -> str:
    """Which version runs where: the first thing that a report of a fault needs."""
    import platform
    from pathlib import Path

    import videop2r_data

    where = Path(videop2r_data.__file__).parent
    python = f"{platform.python_version()} ({sys.executable})"
    return f"videop2r-data {videop2r_data.__version__} in {where}\nPython {python}, {platform.platform()}"


def _on(chosen: Level) -> Callable[[bool], None]:
    def heard(wanted: bool) -> None:
        if wanted:
            set_level(chosen)

    return heard


def _print_version(wanted: bool) -> None:
    if wanted:
        from videop2r_data import __version__

        typer.echo(__version__)
        raise typer.Exit()


VersionOpt = Annotated[
    bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
]
QuietOpt = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Errors alone: no progress and no notes.", callback=_on(Level.QUIET)),
]
VerboseOpt = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Every wait and retry, what libraries log, tracebacks.",
        callback=_on(Level.VERBOSE),
    ),
]


class Program(TyperGroup):
    """A program whose commands take its own `-q` and `-v` too: people put them at either place."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for option in self.params:
            if option.name in ("quiet", "verbose"):
                own = copy(option)
                own.expose_value = False
                for command in self.commands.values():
                    command.params.append(own)

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """One process may run several commands, as tests do: each begins at the normal level."""
        _State.level = Level.NORMAL
        return super().make_context(*args, **settings)
