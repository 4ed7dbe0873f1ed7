"""`p2r-data check` and `p2r-data doctor`: what to mend before anything is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videop2r_data.cli.common import (
    FINDINGS,
    OK,
    err_console,
    errors_as_messages,
    out_console,
    read_recipe,
    shell,
)
from videop2r_data.cli.output import print_json, say

if TYPE_CHECKING:
    from videop2r_data.builders.check_report import CheckReport, FileLine
    from videop2r_data.builders.check_tally import OnFile
    from videop2r_data.builders.findings import DoctorReport

OutOpt = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the data set; default: ./ and the recipe's name."),
]
WorkOpt = Annotated[
    Path | None,
    typer.Option("--work", metavar="DIR", help="Folder of the journal; default: the data set's with .build."),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


def add(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(epilog="Example: p2r-data check my-recipe.yaml --report files.jsonl")(check)
    app.command(epilog="Example: p2r-data doctor my-recipe.yaml")(doctor)


def check(
    recipe: Annotated[
        str,
        typer.Argument(help="A recipe file, the name of a packaged one, or a folder of clips and images."),
    ] = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame, not only the headers.")] = False,
    no_calls: Annotated[
        bool, typer.Option("--no-calls", help="Ask no server: neither its models nor a trial call.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="JSONL", help="Write a line for every file and every row that cannot be used."),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Look at all that a build needs before anything is spent: rows, media, settings, folders, servers.

    Each server gets one trial call per kind of media, with one frame, and a judge one with text: the cost is
    shown. All findings at once, each with what to do.

    Exit code 0: nothing wrong. 1: a row or a file cannot be used, or a build would fail.
    """
    with errors_as_messages(as_json=json):
        if Path(recipe).is_dir():
            _check_folder(Path(recipe), deep=deep, report=report, as_json=json)
        else:
            _check_recipe(recipe, out, work, deep=deep, calls=not no_calls, report=report, as_json=json)


def doctor(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a packaged recipe.")] = "demo",
    out: OutOpt = None,
    work: WorkOpt = None,
    json: JsonOpt = False,
) -> None:
    """Ask every server of a recipe a real question, with all frames, and say what to change.

    Looks at settings, keys, prompts, folders, models and context lengths as `check` does, and of the media at
    those of one row alone. A model in this process is loaded. The calls are paid, and are not kept.

    Exit code 0: a build can begin. 1: it would fail.
    """
    with errors_as_messages(as_json=json):
        _doctor(recipe, out, work, as_json=json)


def _check_recipe(
    name: str,
    out: Path | None,
    work: Path | None,
    *,
    deep: bool,
    calls: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    from videop2r_data.builders.check import check_recipe
    from videop2r_data.builders.workspace import Workspace

    recipe, base = read_recipe(name)
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    with _lines(report) as on_file, _Told("looking at the pool") as told:
        found = asyncio.run(
            check_recipe(
                recipe,
                place,
                deep=deep,
                calls="one-frame" if calls else "none",
                progress=told.files,
                tell=told.tell,
                on_file=on_file,
            )
        )
    _end(found, report, as_json=as_json, following=_next_step(found, name))


def _check_folder(folder: Path, *, deep: bool, report: Path | None, as_json: bool) -> None:
    from videop2r_data.builders.check import check_folder

    with _lines(report) as on_file, _Told("looking at the folder") as told:
        found = asyncio.run(check_folder(folder, deep=deep, progress=told.files, on_file=on_file))
    _end(found, report, as_json=as_json, following="")


def _end(found: CheckReport, report: Path | None, *, as_json: bool, following: str) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        render_check(found, out_console())
        if report is not None:
            say(f"every file: {shell(report)}")
        elif not found.ok and found.files_ok < found.files:
            say("every file with its detail: --report FILE.jsonl")
        if following:
            say(following)
    raise typer.Exit(OK if found.ok else FINDINGS)


def _next_step(found: CheckReport, name: str) -> str:
    from videop2r_data.builders.findings import no_error

    if found.ok:
        return f"next: p2r-data estimate {shell(name)} --pilot 50"
    if not no_error(found.setup) or not all(server.ok for server in found.servers):
        return f"next: mend what is marked `error`, then p2r-data check {shell(name)}"
    if found.rows_ok and not any(source.error for source in found.sources):
        return (
            "A build goes on without the others and keeps them, with the reason, in the config `rejected`.\n"
            f"next: mend them, or p2r-data estimate {shell(name)} --pilot 50"
        )
    return f"next: mend the source, then p2r-data check {shell(name)}"


def _doctor(name: str, out: Path | None, work: Path | None, *, as_json: bool) -> None:
    from videop2r_data.builders.check import doctor as look
    from videop2r_data.builders.workspace import Workspace

    recipe, base = read_recipe(name)
    place = Workspace.at(out or Path(recipe.name), base=base, work=work)
    with _Told("looking at the recipe") as told:
        found: DoctorReport = asyncio.run(look(recipe, place, tell=told.tell))
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        render_doctor(found, out_console())
        again = "next: mend what is marked `error`, then p2r-data doctor"
        say(f"{'next: p2r-data check' if found.ok else again} {shell(name)}")
    raise typer.Exit(OK if found.ok else FINDINGS)


class _Told:
    """What is being waited for: a moving line on a terminal, a line each when piped."""

    def __init__(self, first: str) -> None:
        self._console = err_console()
        self._status = self._console.status(first)
        self._live = self._console.is_terminal

    def __enter__(self) -> _Told:
        if self._live:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._status.stop()

    def files(self, source: str, done: int, total: int) -> None:
        """Media files looked at."""
        if self._live:
            self._status.update(f"{source}: {done:,} of {total:,} media files")
        elif done in (1, total) or done % 1000 == 0:
            self._console.print(f"{source}: {done:,} of {total:,} media files", markup=False)

    def tell(self, text: str) -> None:
        """A wait begins."""
        if self._live:
            self._status.update(text)
        else:
            self._console.print(text, markup=False, soft_wrap=True)


@contextmanager
def _lines(path: Path | None) -> Iterator[OnFile | None]:
    """Write the lines of `--report`; the file is replaced."""
    if path is None:
        yield None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(line: FileLine) -> None:
            file.write(line.model_dump_json(exclude_defaults=False) + "\n")

        writer: Callable[[FileLine], None] = write
        yield writer
