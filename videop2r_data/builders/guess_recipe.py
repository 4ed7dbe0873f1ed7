"""A guessed source as a whole recipe: commented YAML, with a TODO line for each open setting."""

from __future__ import annotations

import json
import os
import re
from itertools import chain, count
from pathlib import Path
from typing import Any

from videop2r_data.builders.export import is_ours
from videop2r_data.builders.guessing import Guess
from videop2r_data.schemas import INIT_TODO, ColumnMapping, visible_line

_PLAIN = re.compile(r"[A-Za-z0-9_./~-]+")
_NUMBER = re.compile(r"[0-9._+-][0-9._eExX+-]*|[.].*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "~"}


def free_name(name: str, folder: Path) -> str:
    """A name for the data set whose folder a build could write: often the pool is a folder of that name."""
    names = chain([name, f"{name}-cot"], (f"{name}-cot-{n}" for n in count(2)))
    return next(one for one in names if not os.path.lexists(folder / one) or is_ours(folder / one))


def recipe_from(guess: Guess, template: str, *, file: str, data: str, name: str | None = None) -> str:
    """The text of a recipe: the guessed source, and the rest of a packaged recipe.

    Args:
        guess: what was seen.
        template: text of a packaged recipe.
        file: the file as a shell takes it, for the commands in its head.
        data: what the person named, for the head.
        name: of the data set to build; None: that of the source.
    """
    at = re.search(r"^media:", template, re.MULTILINE)
    rest = template[at.start() :] if at else template
    serve = [f"#   {line}" for line in _commands(template)]
    head = [
        f"# Written by p2r-data init from a look at {visible_line(data)}: read `sources`, it is a guess.",
        *(["#", "# The servers that it names:", *serve] if serve else []),
        "#",
        "# Then",
        f"#   p2r-data check {visible_line(file)}",
        f"#   p2r-data estimate {visible_line(file)} --pilot 50",
        f"#   p2r-data build {visible_line(file)}",
        "recipe: 1",
        f"name: {name or guess.source['name']}",
        "license: apache-2.0       # of the traces; questions and media stay under their own terms",
        "",
        "sources:",
        *_source(guess),
        "",
    ]
    return "\n".join(head) + "\n" + rest


def _commands(template: str) -> list[str]:
    """The commands that start the servers, from the template's head, a line each."""
    found: list[str] = []
    going = False
    for line in template.splitlines():
        text = line.removeprefix("#").strip() if line.startswith("#") else ""
        if text.startswith("vllm serve") or going:
            found.append(text if text.startswith("vllm serve") else f"  {text}")
            going = text.endswith("\\")
    return found


def _source(guess: Guess) -> list[str]:
    lines = []
    keys = "name kind path revision split media_root problem_type data_type answer_base"
    for key in keys.split():
        if key in guess.todo:
            lines.append(f"    {INIT_TODO} {key}: {visible_line(guess.todo[key])}")
        elif key in guess.source:
            lines.append(f"    {key}: {_value(guess.source[key])}{_note(guess, key)}")
    lines.append('    license: ""              # of the questions and media, for the card')
    if guess.columns or any(key.startswith("columns.") for key in guess.todo):
        lines.append("    columns:")
        for key in ColumnMapping.model_fields:
            name = f"columns.{key}"
            if name in guess.todo:
                lines.append(f"      {INIT_TODO} {key}: {visible_line(guess.todo[name])}")
            elif key in guess.columns:
                lines.append(f"      {key}: {_value(guess.columns[key])}{_note(guess, name)}")
        if not any(line.startswith("      ") and INIT_TODO not in line for line in lines):
            lines[lines.index("    columns:")] = "    columns: {}"
    lines[0] = lines[0].replace("    ", "  - ", 1)
    return lines


def _note(guess: Guess, key: str) -> str:
    return f"  # {visible_line(guess.notes[key])}" if key in guess.notes else ""


def _value(value: Any) -> str:
    """A value as YAML: plain where that is safe, else in JSON's quotation marks, which YAML reads."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and not _NUMBER.fullmatch(value)
    return value if plain and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)
