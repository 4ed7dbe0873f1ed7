"""Files of settings: YAML of strangers, as a recipe, a grammar, a plan, a set of judges, a flag."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import SHAPED, WORDS, Target, must, raw, text_of
from videop2r_data.errors import ConfigError
from videop2r_data.recipes import list_recipes, recipe_text
from videop2r_data.schemas import (
    Recipe,
    TraceGrammar,
    canonical_bytes,
    load_grammar,
    packaged_grammars,
    parse_recipe,
)
from videop2r_data.schemas.evaluation import EvalPlan
from videop2r_data.schemas.grammar import parse_grammar
from videop2r_data.schemas.yaml_file import parse_mapping, parse_set, read_settings, validate_settings
from videop2r_data.trainer.settings.recipe import list_train_recipes, load_train_recipe, train_recipe_text

_BASE = Path(tempfile.mkdtemp(prefix="p2r-fuzz-"))


def check(data: bytes) -> None:
    """The first byte says what the rest is read as."""
    if not data:
        return
    text = text_of(data[1:])
    _READERS[data[0] % len(_READERS)](text)


def _recipe(text: str) -> None:
    found = _refused_or(lambda: parse_recipe(text, where="r.yaml", base=_BASE), "r.yaml")
    if found is not None:
        _again(found, Recipe)


def _grammar(text: str) -> None:
    found = _refused_or(lambda: parse_grammar(text, where="g.yaml"), "g.yaml")
    if found is not None:
        _again(found, TraceGrammar)


def _plan(text: str) -> None:
    path = _BASE / "p.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))

    def read() -> EvalPlan:
        told = parse_mapping(read_settings(path), where=str(path), what="plan", valid="a plan")
        return validate_settings(told, EvalPlan, where=str(path), what="plan", base=_BASE)

    _refused_or(read, "p.yaml")


def _training(text: str) -> None:
    path = _BASE / "t.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = _refused_or(lambda: load_train_recipe(str(path)), "t.yaml")
    if found is not None:
        canonical_bytes(found.model_dump(mode="json"))


def _file(text: str) -> None:
    path = _BASE / "f.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    _refused_or(lambda: parse_recipe(read_settings(path), where=str(path), base=_BASE), "f.yaml")


def _flag(text: str) -> None:
    _refused_or(lambda: parse_set(text), "--set")


def _refused_or(read: Callable[[], Any], where: str) -> Any:
    try:
        return read()
    except ConfigError as error:
        must(where in (error.where or ""), "the error names the file", error.where, str(error))
        must(len(str(error)) < 200_000, "an error that can be read", len(str(error)))
        return None


def _again(found: Any, model: type[Any]) -> None:
    """What was read, written and read again is the same, whatever its file looked like."""
    data = found.model_dump(mode="json", by_alias=True)
    canonical_bytes(data)
    text = yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False)
    must(
        model.model_validate(yaml.safe_load(text), context={"base": _BASE}) == found,
        "parse(dump(x)) == x",
        text,
    )


_READERS = (_recipe, _grammar, _plan, _training, _file, _flag)
_KEYS = sorted({*Recipe.model_fields, "name", "kind", "path", "model", "backend", "tag", "role"})
_SCALAR = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
    | st.sampled_from(["demo", "openai", "../../etc/passwd", "/dev/zero", "~root", "A", "http://[", "2020-13-45"])
)  # fmt: skip
_VALUE = st.recursive(
    _SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
_GOOD: dict[str, Any] = yaml.safe_load(recipe_text("demo"))


@settings(database=None, deadline=None)
@given(
    st.dictionaries(st.sampled_from(_KEYS), _VALUE, max_size=4),
    st.lists(st.tuples(st.sampled_from(_KEYS), _VALUE), max_size=3),
)
def shaped(changed: dict[str, Any], inner: list[tuple[str, Any]]) -> None:
    """A good recipe with some settings replaced by anything."""
    data = {**_GOOD, **changed}
    for key, value in inner:
        for section in list(data.values()):
            if isinstance(section, dict) and key in section:
                section = section | {key: value}
                data |= {k: section for k, v in data.items() if isinstance(v, dict) and key in v}
    found = _refused_or(
        lambda: validate_settings(data, Recipe, where="r.yaml", what="recipe", base=_BASE), "r.yaml"
    )
    if found is not None:
        _again(found, Recipe)


_TEXT = (
    "name: x\n|sources:\n|  - name: a\n|    kind: demo\n|    path: p.json\n|generate:\n|  backend: {kind: demo}\n|  prompt: generate-v1\n|"
    "judge:\n|media: {frames: 8}\n|trace: videop2r\n|verify: {threshold: 0.5}\n|&a |*a|<<: *a\n|!!python/object/apply:os.system [id]|"
    "!!binary aGk=\n|!!timestamp 2020-01-01|!!set {a}|!!omap []|? [a]\n: b\n|{a: |}|[|]|,|- |: |\n|  |'|\"|#|---\n|...\n|%YAML 1.1\n|"
    "0x1F|1_000|.inf|.nan|1e999|0o17|12:30:45|~|null|yes|\t|\u2028|\ufeff|\ud800|segments:\n|  - {name: a, role: answer, tag: a}\n|"
    "  - {group: [{name: b, role: perception, tag: b}], min: 0}\n|max: 2|benchmarks: [demo]\n|extends: tiny\n|method: sft\n|/dev/zero|../|~|key=|a.b="
)
_PIECES = (
    *(bytes([n]) for n in range(len(_READERS))),
    *(w.encode("utf-8", "surrogatepass") for w in _TEXT.split("|")),
)


def seeds() -> list[bytes]:
    """The packaged files, and what YAML is abused with."""
    found = [raw(b"\0" + recipe_text(name).encode()) for name in list_recipes()]
    for name in packaged_grammars():
        told = yaml.safe_dump(load_grammar(name).model_dump(mode="json", exclude_defaults=True))
        found.append(raw(b"\1" + told.encode()))
    found += [raw(b"\3" + train_recipe_text(name).encode()) for name in list_train_recipes()]
    texts = (
        b"\2benchmarks: [demo]\nbackend: {kind: demo, model: demo}\n",
        b"\5media.frames=8",
        b"\0a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n",
        b"\0a: &a {b: *a}\n",
        b"\0!!python/object/apply:os.system ['id']\n",
        b"\0" + b"[" * 300,
        b"\0" + b"- " * 200 + b"a",
        b"\0name: x\nname: y\n",
        b"\4\xff\xfe\0a",
    )
    return [*found, *map(raw, texts), bytes([WORDS, 0, *range(7, 60)]), bytes([SHAPED, *range(120)])]


TARGET = Target("recipes", check, seeds, words=_PIECES, shaped=shaped, seconds=3.0, longest=8192)
