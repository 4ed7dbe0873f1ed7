"""`p2r-data init --from-data`: look at a pool, show how it would be read, and write the recipe."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from videop2r_data.cli.common import err_console, out_console, shell
from videop2r_data.cli.output import print_json, say
from videop2r_data.cli.render_tables import plural
from videop2r_data.schemas.visible_text import visible_line

if TYPE_CHECKING:
    from videop2r_data.builders.guess import Guess

_CUT = 200
"""Characters of a question or an option that are shown."""


def init_from_data(path: Path, data: str, *, template: str, split: str | None, as_json: bool) -> None:
    """Write a recipe over a pool that nobody described."""
    from videop2r_data.builders.guess import guess_source
    from videop2r_data.builders.guess_recipe import free_name, recipe_from

    path.parent.mkdir(parents=True, exist_ok=True)  # the pool's path becomes relative to it
    with tempfile.TemporaryDirectory(prefix="p2r-init-") as work, err_console().status("looking at the data"):
        guess = guess_source(data, recipe=path, cwd=Path.cwd(), work=Path(work), split=split)
    name = free_name(guess.source["name"], Path.cwd())
    text = recipe_from(guess, template, file=shell(path), data=data, name=name)
    path.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"wrote": str(path), **guess.model_dump(mode="json")})
        return
    _render(guess, out_console())
    if guess.todo:
        say(
            f"wrote {path}; fill in its {plural(len(guess.todo), 'TODO line')}, then: "
            f"p2r-data check {shell(path)}"
        )
    else:
        say(f"wrote {path}; next: p2r-data check {shell(path)}")


def _render(guess: Guess, console: Console) -> None:
    console.print(
        f"looked at {plural(guess.rows, 'row')} with the columns",
        Text(visible_line(", ".join(guess.seen))),
        soft_wrap=True,
    )
    for key, value in {**guess.source, **{f"columns.{k}": v for k, v in guess.columns.items()}}.items():
        why = f"  ({guess.notes[key]})" if key in guess.notes else ""
        console.print(Text(f"  {key:22} {visible_line(_told(value) + why)}"), soft_wrap=True)
    for key, question in guess.todo.items():
        console.print(Text(f"  {key:22} TODO: {visible_line(question)}", style="yellow"), soft_wrap=True)
    for row in guess.shown:
        console.print(Text(f"\n{visible_line(row.sample_id)}", style="bold"))
        console.print(Text(f"  {_cut(row.problem)}"), soft_wrap=True)
        for option in row.options:
            mark = "*" if option[:1] == row.answer else " "
            console.print(Text(f"  {mark} {_cut(option)}"), soft_wrap=True)
        if not row.options:
            console.print(Text(f"  answer: {_cut(row.answer)}"), soft_wrap=True)
        if row.path:
            there = {True: "", False: "  (not there)", None: ""}[row.found]
            console.print(Text(f"  {visible_line(row.path)}{there}"), soft_wrap=True)
    console.print()
    if guess.shown:
        console.print(f"{guess.good:,} of {plural(guess.rows, 'row')} can be read like this")
    for reason, count in guess.bad.items():
        console.print(Text(f"  {plural(count, 'row')} cannot: {visible_line(reason)}"), soft_wrap=True)
    if guess.files_looked:
        console.print(f"{guess.files_found:,} of {plural(guess.files_looked, 'media file')} are there")


def _told(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _cut(text: str) -> str:
    line = visible_line(text)
    return line if len(line) <= _CUT else line[: _CUT - 1] + "…"
