"""Write docs/recipe-reference.md: every setting of a recipe and of a judges file, from the models themselves.

python scripts/recipe_reference.py            writes the page
python scripts/recipe_reference.py --check    exit code 1 if the page is not current
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from videop2r_data.benchmarks import load_benchmark, packaged_benchmarks
from videop2r_data.schemas import Benchmark, EvalPlan, JudgesFile, Recipe, models_in
from videop2r_data.trainer import OBJECTIVES, TrainRecipe

DOCS = Path(__file__).resolve().parents[1] / "docs"
WRITTEN = "Written by `scripts/recipe_reference.py` from the models that read the files, not by hand.\n"
RECIPES = f"""# Every setting of a recipe

{WRITTEN}`p2r-data schema recipe` prints the same as JSON Schema, for editors. How the settings work together:
[recipes.md](recipes.md), [sources.md](sources.md), [prompts.md](prompts.md).
"""
TRAINING = f"""# Every setting of a training recipe

{WRITTEN}`p2r-train schema` prints the same as JSON Schema; `--set key.path=value` sets any of them for a run.
How they work together: [training.md](training.md).
"""
BENCHMARKS = f"""# Every field of a benchmark

{WRITTEN}Unknown keys, wrong values and contradictions of a declaration are told all at once, with
their lines. How declarations work: [benchmarks.md](benchmarks.md).
"""
PLANS = f"""# Every setting of an evaluation's plan

{WRITTEN}Flags of `p2r-train eval` go over them. How they work together:
[evaluation.md](evaluation.md).
"""
TABLES = {
    "training.md": re.compile(r"(?<=<!-- objectives -->\n).*?(?=<!-- /objectives -->)", re.DOTALL),
    "benchmarks.md": re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=<!-- /benchmarks -->)", re.DOTALL),
}
"""The part between two marks of a page; the rest of the page is written by hand."""
PAGES: dict[str, tuple[str, tuple[tuple[str, type[BaseModel]], ...]]] = {
    "recipe-reference.md": (RECIPES, (("A recipe", Recipe), ("A judges file", JudgesFile))),
    "training-reference.md": (TRAINING, (("A training recipe", TrainRecipe),)),
    "benchmark-reference.md": (BENCHMARKS, (("A benchmark", Benchmark),)),
    "plan-reference.md": (PLANS, (("A plan", EvalPlan),)),
}

WRITTEN_PAGES = (*PAGES, *TABLES)


def objectives() -> str:
    """The table of objectives in training.md."""
    rows = [
        "| `--objective` | in the paper | rewards | tokens that they reach | settings that it brings |",
        "|---|---|---|---|---|",
    ]
    for o in OBJECTIVES.values():
        brought = [
            f"`{s}.{key}: {value}`" for s, values in o.settings.items() for key, value in values.items()
        ]
        rows.append(f"| `{o.name}` | {o.paper} | {o.rewards} | {o.reaches} | {', '.join(brought) or '-'} |")
    return "\n".join(rows) + "\n"


def benchmarks() -> str:
    """Tables and traps of all declared benchmarks."""
    found = [load_benchmark(name) for name in packaged_benchmarks()]
    parts = [
        "| benchmark | rows | layouts | protocols, the headline first | licence |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        rows = f"{one.expected.rows:,}" if one.expected.rows is not None else "-"
        layouts = ", ".join(f"`{name}`" for name in one.layouts)
        protocols = ", ".join(f"`{protocol.id}`" for protocol in one.aggregates)
        parts.append(f"| `{one.name}` | {rows} | {layouts} | {protocols} | {one.license} |")
    for one in found:
        where = f" {one.paper}." if one.paper else ""
        parts += [
            "",
            f"### {one.title}",
            "",
            f"{one.about}{where} {one.terms}".strip(),
            "",
            f"Clips: {one.get}",
            "",
        ]
        parts += [f"- `{a.id}`: {a.title}{f' ({a.source})' if a.source else ''}" for a in one.aggregates]
        parts += ["", *(f"- {note}" for note in one.notes)] if one.notes else []
    return "\n".join(parts) + "\n"


WRITERS = {"training.md": objectives, "benchmarks.md": benchmarks}


def page(name: str) -> str:
    """One whole page."""
    if name in TABLES:
        text = (DOCS / name).read_text(encoding="utf-8")
        return TABLES[name].sub(lambda _: WRITERS[name](), text)
    head, models = PAGES[name]
    parts = [head]
    seen: dict[type[BaseModel], str] = {}
    for title, model in models:
        parts.append(f"## {title}\n")
        parts += _sections(model, "", seen)
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> list[str]:
    """The table of a record, and after it those of the records in it, each told once."""
    seen[model] = path
    doc = inspect.cleandoc(model.__doc__ or "").replace("None:", "`null`:")
    made = [*([f"### `{path}`\n"] if path else []), f"{doc}\n", _table(model, path, seen)]
    for name, info in model.model_fields.items():
        several = typing.get_origin(_bare(info.annotation)) is tuple
        for inner in models_in(info.annotation):
            if inner not in seen:
                place = f"{path}.{name}" if path else name
                made += _sections(inner, f"{place}[]" if several else place, seen)
    return made


def _table(model: type[BaseModel], path: str, seen: dict[type[BaseModel], str]) -> str:
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        told = " ".join((info.description or "").split()).replace("|", "\\|").replace("None:", "`null`:")
        elsewhere = [seen[m] for m in models_in(info.annotation) if m in seen and seen[m] != path]
        told += f" Its settings: as `{elsewhere[0]}`." if elsewhere else ""
        lines.append(f"| `{name}` | {_type(info)} | {_default(info)} | {told} |")
    return "\n".join(lines) + "\n"


def _type(info: FieldInfo) -> str:
    schema: dict[str, Any] = {}
    if callable(info.json_schema_extra):  # a list of values that is longer than a `Literal` can know
        info.json_schema_extra(schema)
    named = schema.get("enum", ())
    text = ", ".join(f"`{value}`" for value in named) or _spelt(info.annotation)
    bounds = _bounds(info.metadata)
    return f"{text}, {bounds}" if bounds else text


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return " and ".join(
        f"{sign} {getattr(m, name)}" for m in metadata for name, sign in signs.items() if hasattr(m, name)
    )


def _spelt(annotation: Any) -> str:
    """A type in words."""
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "anything"}
    annotation = _bare(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in words:
        return words[annotation]
    if annotation is type(None):
        return "`null`"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(_spelt(a) for a in args))
    if origin is tuple:
        return f"list of {_spelt(args[0])}"
    if origin is dict:
        return f"mapping to {_spelt(args[1])}"
    return "a section" if isinstance(annotation, type) else str(annotation)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _default(info: FieldInfo) -> str:
    if info.default_factory is not None:
        return "empty"
    value = info.default
    if value is PydanticUndefined:
        return "**needed**"
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, BaseModel):
        own = value.model_dump(mode="json", exclude_defaults=True)
        return ", ".join(f"`{key}: {one}`" for key, one in own.items())
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value == "":
        return "empty"
    return f"`{value}`"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(any((DOCS / name).read_text(encoding="utf-8") != page(name) for name in WRITTEN_PAGES))
    for name in WRITTEN_PAGES:
        (DOCS / name).write_text(page(name), encoding="utf-8")
