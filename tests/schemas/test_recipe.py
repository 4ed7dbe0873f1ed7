"""Recipes: all errors at once, cross-field checks, hostile YAML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.calibration import load_judges
from videop2r_data.schemas.lock import BuildLock, FileLock, Ledger, SourceLock, StepModel
from videop2r_data.schemas.recipe import Recipe, parse_recipe
from videop2r_data.trainer.settings.recipe import load_train_recipe

GOOD = """
name: my-set
sources: [{name: a, kind: demo}]
generate: {backend: {kind: demo, model: m}}
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, where="r.yaml")
    assert str(caught.value).startswith("r.yaml: ")
    return str(caught.value)


def test_a_recipe_is_read_with_its_defaults() -> None:
    recipe = parse_recipe(GOOD, where="r.yaml")
    assert (recipe.verify.threshold, recipe.generate.attempts, recipe.judge) == (0.6, 1, None)
    assert recipe.verify.checks_consistency
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe


def test_every_error_is_reported_at_once() -> None:
    text = refused(
        "name: bad name\nsources: [{name: a, kind: video-r1}]\nverify: {threshold: 2, treshold: 1}\n"
        "generate: {backend: {kind: openai, model: m}, attempts: 0}\n"
    )
    for field in (
        "name",
        "sources.0",
        "verify.threshold",
        "verify.treshold",
        "generate.backend",
        "generate.attempts",
    ):
        assert f"\n  {field}: " in text
    assert "needs a path" in text and "needs base_url" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kind: demo, model: m",
            "kind: demo, model: m, batch: true",
            "needs kind openai or anthropic or gemini",
        ),
        ("[{name: a, kind: demo}]", "[{name: a, kind: demo}, {name: a, kind: demo}]", "repeated: a"),
        ("[{name: a, kind: demo}]", "[]", "at least 1"),
        ("name: my-set", "name: ../up", "pattern"),
        ("name: my-set", "name: my-set\nmax_cost: .nan", "max_cost"),
        ("name: my-set", "name: my-set\nmax_cost: .inf", "max_cost"),
        ("name: my-set", "name: my-set\nname: other", "a key stands twice: name"),
        ("name: my-set", "name: my-set\nrecipe: 2", "recipe"),
        ("kind: demo, model: m", "kind: demo, model: ''", "model"),
    ],
)
def test_wrong_settings_are_named(old: str, new: str, message: str) -> None:
    assert message in refused(GOOD.replace(old, new))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [{','.join(['*' + a] * 9)}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        MERGES,
        "a: &a [*a]",
        "[" * 5000,
        "x: 2020-13-45",
        "x: !!int abc",
        "x: !!bool maybe",
        "x: !!python/object/apply:os.system [id]",
        "x: !!python/name:os.system",
        "? [a]\n: b",
        "a: b: c",
        "\x00",
        "a\n---\nb",
        "x: " + "9" * 5000,
        "- a",
        "",
        "just text",
        "a" * 1_000_001,
    ],
    ids=range(18),
)
def test_hostile_yaml_is_refused(text: str) -> None:
    assert len(refused(text)) < 2_000


def test_an_alias_may_share_a_backend() -> None:
    text = GOOD.replace("backend: {kind", "backend: &m {kind") + "judge: {backend: *m}\n"
    recipe = parse_recipe(text, where="r.yaml")
    assert recipe.judge is not None and recipe.judge.backend == recipe.generate.backend


def test_a_lock_is_read_back() -> None:
    lock = BuildLock(
        recipe={"name": "x"},
        prompts={"p": "0" * 64},
        sources=[SourceLock(name="a", rows=2, sha256="1" * 64)],
        models={"generate": StepModel(asked="m", served={"m/1": 2})},
        versions={"pyarrow": "26"},
        ledger=Ledger(rows_in=2, kept=1, rejected=1, failed=0, reasons={"verify/low_score": 1}),
        files={"data/x.parquet": FileLock(sha256="2" * 64, bytes=10, rows=1)},
    )
    assert BuildLock.model_validate_json(lock.model_dump_json()) == lock
    with pytest.raises(ValueError, match="extra"):
        BuildLock.model_validate(lock.model_dump() | {"when": "now"})


@pytest.mark.parametrize(
    ("generate", "judge", "refused"),
    [
        ({"kind": "demo", "model": "m"}, None, "without one, no limit holds"),
        ({"kind": "demo", "model": "m"}, {"kind": "anthropic", "model": "c"}, "never free"),
        (
            {"kind": "demo", "model": "m", "price": {"input": 1, "output": 1}},
            {"kind": "anthropic", "model": "c"},
            "judge.backend.price",
        ),
        (
            {"kind": "demo", "model": "m"},
            {"kind": "anthropic", "model": "c", "price": {"input": 1, "output": 1}},
            "",
        ),
    ],
)
def test_a_limit_of_money_needs_prices(
    generate: dict[str, object], judge: dict[str, object] | None, refused: str
) -> None:
    data: dict[str, object] = {
        "name": "x",
        "sources": [{"name": "s", "kind": "demo"}],
        "generate": {"backend": generate},
        "judge": {"backend": judge} if judge else None,
    }
    Recipe.model_validate(data)
    if refused:
        with pytest.raises(ValidationError, match=refused):
            Recipe.model_validate(data | {"max_cost": 5})
    else:
        assert Recipe.model_validate(data | {"max_cost": 5}).max_cost == 5


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("generate:", "generat:", "generat: no such setting; did you mean 'generate'? (r.yaml:4)"),
        ("backend: {kind", "bakend: {kind", "generate.bakend: no such setting; did you mean 'backend'?"),
        (
            "model: m",
            "model: m, temperature: 1",
            "generate.backend.temperature: no such setting here; there is",
        ),
        ("kind: demo}]", "kind: demo,\n  medai_root: x}]", "did you mean 'media_root'? (r.yaml:4)"),
        (
            "kind: demo}]",
            "kind: demo, zzz: x}]",
            "sources.0.zzz: no such setting; allowed here: name, kind, path",
        ),
        ("kind: demo}]", "kind: dataste}]", "got 'dataste'; did you mean 'dataset'? (r.yaml:3)"),
        ("name: my-set", "title: x", "  name: is missing"),
        (
            "kind: demo}]",
            "kind: demo, limit: many}]",
            "unable to parse string as an integer, got 'many' (r.yaml:3)",
        ),
        ("kind: demo}]", "kind: demo, limit: -7}]", "greater than or equal to 1, got '-7' (r.yaml:3)"),
        ("kind: demo}]", "kind: demo, columns: {options: 3}}]", "sources.0.columns.options: Input should be"),
    ],
)
def test_a_wrong_key_is_told_once_with_its_line_and_the_nearest(old: str, new: str, told: str) -> None:
    assert old in GOOD
    text = refused(GOOD.replace(old, new))
    assert told in text
    assert text.startswith("r.yaml: 1 error(s) in the recipe\n"), text


def test_what_is_no_yaml_names_the_file() -> None:
    text = refused(GOOD.replace("name: my-set", "name: [my-set"))
    assert text.startswith("r.yaml: not YAML: ") and 'in "r.yaml", line 2' in text and "unicode" not in text


def test_two_typos_are_two_errors_in_their_lines() -> None:
    text = refused(GOOD.replace("name: my-set", "nmae: my-set").replace("sources:", "source:"))
    assert "2 error(s)" in text and "(r.yaml:2)" in text and "(r.yaml:3)" in text


def test_the_other_files_of_settings_tell_it_the_same_way(tmp_path: Path) -> None:
    judges = tmp_path / "judges.yaml"
    judges.write_text("judges:\n  - name: a\n    backend: {kind: openai, modell: m, base_url: 'http://h'}\n")
    with pytest.raises(ConfigError, match=rf"did you mean 'model'\? \({re.escape(str(judges))}:3\)"):
        load_judges(judges)
    train = tmp_path / "train.yaml"
    train.write_text("train: rl\noptim:\n  lrr: 1\n")
    with pytest.raises(ConfigError, match=rf"optim.lrr: .*did you mean 'lr'\? \({re.escape(str(train))}:3\)"):
        load_train_recipe(train)
    with pytest.raises(ConfigError, match=r"optim.lrr: no such setting; did you mean 'lr'\?\n"):
        load_train_recipe("tiny-rl", sets=["optim.lrr=1"])


def test_a_recipe_takes_test_items_only_when_it_says_so() -> None:
    source = {"name": "mmvu", "kind": "benchmark", "benchmark": "mmvu"}
    recipe = {"name": "set", "sources": [source], "generate": {"backend": {"kind": "demo", "model": "demo"}}}
    with pytest.raises(ValueError, match=r"source mmvu: test items of a benchmark.*test_items: true"):
        Recipe.model_validate(recipe)
    meant = Recipe.model_validate(recipe | {"sources": [source | {"test_items": True}]})
    assert meant.sources[0].test_items
    with pytest.raises(ValueError, match="needs `benchmark`"):
        Recipe.model_validate(recipe | {"sources": [{"name": "x", "kind": "benchmark"}]})
