"""What the commands share: arguments, exit codes, errors as messages, `-q` and `-v`, signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from enum import IntEnum
from functools import partial
from inspect import getdoc
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from videop2r_data.cli.entry import begun
from videop2r_data.cli.terminal import SafeConsole, VisibleFormatter, print_json, print_traceback, say

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from videop2r_data.builders import Stop
    from videop2r_data.errors import P2RError
    from videop2r_data.schemas import Recipe


OK, FINDINGS, USAGE, UNFINISHED, OVER_BUDGET = 0, 1, 2, 3, 4
"""Exit codes: done; an error or wrong data; wrong usage; not done, run the same command again; the money
limit is reached."""

T = TypeVar("T")
R = TypeVar("R", bound="BaseModel")

# Arguments and options that several commands have.
RecipeArg = Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")]
WhereArg = Annotated[
    str, typer.Argument(help="A local folder, a Hub id, or the folder of the official release.")
]
BuiltArg = Annotated[Path, typer.Argument(help="A data set that was built here.")]
RevisionOpt = Annotated[str | None, typer.Option(metavar="REV", help="For a Hub id: commit, tag or branch.")]
BaseOpt = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder that the recipe's paths are relative to.")
]
OutOpt = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the data set; default: ./ and the recipe's name."),
]
WorkOpt = Annotated[
    Path | None,
    typer.Option("--work", metavar="DIR", help="Folder of the journal; default: the data set's with .build."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def err_console() -> Console:
    """A console on stderr for progress and notes; with `-q` it prints nothing."""
    return SafeConsole(stderr=True, highlight=False, quiet=level() is Level.QUIET)


def out_console() -> Console:
    """A console on stdout for results; piped, its width is COLUMNS, else 80."""
    if sys.stdout.isatty():
        return SafeConsole(highlight=False)
    columns = os.environ.get("COLUMNS", "")
    return SafeConsole(highlight=False, width=int(columns) if columns.isdecimal() and int(columns) else 80)


def show(report: R, render: Callable[[R, Console], None], *, as_json: bool) -> None:
    """Print a report on stdout: as one JSON document, or as `render` prints it for people."""
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        render(report, out_console())


def new_file(path: Path, name: str, *, force: bool) -> Path:
    """Where to write a file, in a folder that exists: at `path`, or as `name` in the folder `path`.

    Raises:
        ConfigError: the file exists, and may not be replaced (`force`).
    """
    from videop2r_data.errors import ConfigError

    if path.is_dir():
        path = path / name
    if path.exists() and not force:
        raise ConfigError("the file exists", where=str(path), hint="--force replaces it")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def named_folder(text: str) -> tuple[str, Path]:
    """`NAME=FOLDER`, or a folder alone."""
    name, sign, folder = text.partition("=")
    if sign and name and "/" not in name and not Path(text).exists():
        return name, Path(folder)
    return "", Path(text)


def shell(path: object) -> str:
    """A path or name, quoted for a shell.

    >>> shell("my set"), shell("my-set")
    ("'my set'", 'my-set')
    """
    return shlex.quote(str(path))


def same_build(recipe: str, out: Path | None, work: Path | None) -> str:
    """A recipe as the next command is typed, with the folders that this one was given: the journal is there.

    >>> same_build("my.yaml", Path("my set"), None)
    "my.yaml --out 'my set'"
    """
    given = (("", recipe), ("--out ", out), ("--work ", work))
    return " ".join(flag + shell(value) for flag, value in given if value is not None)


@contextmanager
def errors_as_messages(*, as_json: bool = False) -> Iterator[None]:
    """Print package and OS errors as messages on stderr and exit with 1; other exceptions pass through.

    Exit code 3 where running the same command again may help (Ctrl-C, a server that does not answer), 4 for a
    money limit that is reached.
    With `-v` a foreseen error shows its traceback above its message.

    Args:
        as_json: print `{"error": ...}` on stdout too, so that there is one document whatever happens.
    """
    from videop2r_data.errors import P2RError

    begun()
    try:
        yield
    except KeyboardInterrupt:
        _complain("stopped", "Interrupted", "every finished call is kept: the same command goes on", as_json)
        raise typer.Exit(UNFINISHED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the exit flushes into the pipe
        raise typer.Exit(FINDINGS) from None
    except (P2RError, OSError, ModuleNotFoundError, ExceptionGroup) as caught:
        error = _foreseen(caught)
        if error is None:
            raise
        if level() is Level.VERBOSE:
            print_traceback(caught)
        head = f"{error.where}: {error.message}" if error.where else error.message
        _complain(head, type(error).__name__, error.hint or "", as_json)
        raise typer.Exit(_code(error)) from None


def _code(error: P2RError) -> int:
    """The exit code of a command that ended with this error."""
    from videop2r_data.errors import AwayError, BudgetError, BusyError, TransientError

    if isinstance(error, AwayError | BusyError | TransientError):
        return UNFINISHED
    return OVER_BUDGET if isinstance(error, BudgetError) else FINDINGS


def _foreseen(error: BaseException) -> P2RError | None:
    """The error to print, or None for a bug; of an exception group the first, if all are of the package."""
    from videop2r_data.errors import ConfigError, MissingExtraError, P2RError

    if isinstance(error, BaseExceptionGroup):
        found = [_foreseen(e) for e in error.exceptions]
        return None if None in found else found[0]
    if isinstance(error, P2RError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "transformers", "accelerate"):
        return MissingExtraError(error.name, "train")
    if isinstance(error, OSError):
        where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return ConfigError(
            error.strerror or str(error) or type(error).__name__,
            where=where or None,
            hint="check that the path exists and may be read or written, and that the disk has room",
        )
    return None


def _complain(message: str, kind: str, hint: str, as_json: bool) -> None:
    from rich.text import Text

    text = Text("error: ", style="bold red") + Text(message)
    if hint:
        text += Text("\n  " + hint.replace("\n", "\n  "))
    SafeConsole(stderr=True, highlight=False).print(text, soft_wrap=True)  # with -q too
    if as_json:
        with suppress(OSError):  # stdout itself may be what failed: it was told above
            print_json({"error": {"kind": kind, "message": message, "hint": hint}})


def with_overrides(recipe: Recipe, **changes: Any) -> Recipe:
    """The recipe with settings replaced and checked again.

    Args:
        recipe: of a file or packaged.
        changes: `generate__backend__concurrency=8` sets that nested field; None leaves it alone.

    Raises:
        ConfigError: a flag gives a value that the recipe does not allow.
    """
    from pydantic import ValidationError

    from videop2r_data.errors import ConfigError

    data = recipe.model_dump(mode="json")
    for dotted, value in changes.items():
        if value is None:
            continue
        place = data
        *path, last = dotted.split("__")
        for part in path:
            place = place[part]
        place[last] = value
    try:
        return type(recipe).model_validate(data)
    except ValidationError as error:
        lines = []
        for found in error.errors():
            field = ".".join(map(str, found["loc"]))
            # an error of the recipe as a whole has no field, and all of it as its input
            said = str(found["msg"]).removeprefix("Value error, ")
            lines.append(f"{field}: {said}, got {found['input']!r}" if field else said)
        raise ConfigError(
            "; ".join(lines), where="the recipe with the flags of the command", hint="mend the flag"
        ) from None


# How much is said on stderr: `-q` and `-v`.


class Level(IntEnum):
    """How much is printed on stderr."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


class _State:
    level = Level.NORMAL


def level() -> Level:
    """The level of the running command."""
    return _State.level


def set_level(chosen: Level) -> None:
    """Set the level for this process; verbose turns the log of the libraries on, quiet their warnings off."""
    before, _State.level = _State.level, chosen
    logging.disable(logging.WARNING if chosen is Level.QUIET else logging.NOTSET)
    if chosen is Level.QUIET:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read as transformers is imported, later than this
    if chosen is Level.VERBOSE and before is not chosen:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(VisibleFormatter("%(name)s: %(message)s"))
        # not DEBUG: at that level some libraries log request headers, and with them keys
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        say(_environment(), err=True)


def _environment() -> str:
    """Which version runs where: the first thing that a report of a fault needs."""
    import platform

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
        from videop2r_data.version import __version__

        say(__version__)
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
    """A program whose commands print their errors as messages, and take its own `-q` and `-v` too.

    People put these flags at either place.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        own = [copy(option) for option in self.params if option.name in ("quiet", "verbose")]
        for option in own:
            option.expose_value = False
        for command in self.commands.values():
            command.params += own
            command.callback = partial(_guarded, command.callback)

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """Begin at the normal level: tests run several commands in one process."""
        set_level(Level.NORMAL)
        return super().make_context(*args, **settings)


def _guarded(command: Callable[..., Any] | None, **given: Any) -> None:
    assert command is not None  # a program has no groups of commands
    with errors_as_messages(as_json=given.get("json", False)):
        command(**given)


def register(app: typer.Typer, commands: dict[Callable[..., None], str]) -> None:
    """Put commands on a program: function -> an example, which begins with the name of the command."""
    for function, example in commands.items():
        # lines are broken for the terminal, not where the docstring breaks them
        paragraphs = (" ".join(part.split()) for part in (getdoc(function) or "").split("\n\n"))
        epilog = f"Example: {app.info.name} {example}"
        app.command(example.split()[0], help="\n\n".join(paragraphs), epilog=epilog)(function)


# Ctrl-C and SIGTERM.


def run_draining(main: Coroutine[Any, Any, T], stop: Stop, tell: Callable[[str], None]) -> T:
    """Run a coroutine; the first SIGINT or SIGTERM asks `stop`, the second cancels the coroutine.

    Raises:
        KeyboardInterrupt: after the second signal.
    """
    heard = 0

    async def guarded() -> T:
        """Await the work with the signals caught."""
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main)

        def on_signal() -> None:
            """The first signal drains, the second cancels."""
            nonlocal heard
            heard += 1
            if heard > 1:
                task.cancel()
            else:  # the build may be draining after an error already; its calls in flight are paid too
                stop.ask()
                tell("finishing the calls under way; again to stop at once (those calls are then lost)")

        if heard:
            stop.ask()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            return await task
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    # until the loop runs and has its own handlers
    def early(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1

    before = {number: signal.signal(number, early) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _run(guarded())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(main: Coroutine[Any, Any, T]) -> T:
    # Imported modules live as long as the process. Frozen, they are left out of the collections that the many
    # small objects of a build trigger.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
