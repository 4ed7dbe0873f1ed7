"""The packaged recipes are valid, say what the paper says, and are written for people."""

from __future__ import annotations

import pytest

from videop2r_data.builders.export import locked_settings
from videop2r_data.errors import ConfigError
from videop2r_data.recipes import list_recipes, recipe_text
from videop2r_data.schemas.recipe import Recipe, parse_recipe


def _recipe(name: str) -> Recipe:
    return parse_recipe(recipe_text(name), where=name)


def test_there_are_four() -> None:
    assert list_recipes() == ["demo", "videop2r-cot-162k", "videop2r-cot-162k-open", "videop2r-mini"]


@pytest.mark.parametrize("name", list_recipes())
def test_each_is_valid_and_commented(name: str) -> None:
    recipe = _recipe(name)
    text = recipe_text(name)
    assert recipe.judge is not None
    assert text.count("#") >= 10
    assert all(len(line) <= 120 for line in text.splitlines())
    assert recipe.name == ("videop2r-demo" if name == "demo" else name)


def test_demo_needs_nothing() -> None:
    recipe = _recipe("demo")
    assert recipe.synthetic
    assert [s.kind for s in recipe.sources] == ["demo"]
    assert recipe.judge is not None
    assert {recipe.generate.backend.kind, recipe.judge.backend.kind} == {"demo"}
    assert {recipe.generate.backend.model, recipe.judge.backend.model} == {"demo-world/1"}
    assert recipe.verify.policy.profile == "robust"


def test_patience_with_a_server_is_no_part_of_a_lock() -> None:
    recipe = _recipe("videop2r-mini")
    backend = recipe.generate.backend.model_copy(update={"server_wait_s": 5.0})
    patient = recipe.model_copy(update={"generate": recipe.generate.model_copy(update={"backend": backend})})
    assert locked_settings(patient) == locked_settings(recipe)
    assert "server_wait_s" not in str(locked_settings(recipe))


def test_paper_settings() -> None:
    recipe = _recipe("videop2r-cot-162k")
    assert recipe.generate.backend.model == "Qwen/Qwen2.5-VL-72B-Instruct"
    assert (recipe.generate.temperature, recipe.generate.attempts) == (0.0, 1)
    assert recipe.verify.threshold == 0.6
    assert recipe.verify.policy.profile == "paper"
    assert not recipe.verify.checks_consistency
    judge = recipe.judge
    assert judge is not None and judge.backend.kind == "anthropic" and judge.backend.batch
    price = judge.backend.price
    assert price is not None
    assert (price.input, price.output, price.cache_read, price.cache_write) == (3.0, 15.0, 0.3, 3.75)
    assert recipe.max_cost is not None


def test_open_judge() -> None:
    recipe = _recipe("videop2r-cot-162k-open")
    assert recipe.judge is not None
    assert recipe.judge.backend.kind == "openai"
    assert recipe.judge.backend.model == "meta-llama/Llama-3.1-70B-Instruct"
    assert recipe.judge.backend.price is None
    paper = _recipe("videop2r-cot-162k")
    assert (recipe.media, recipe.verify, recipe.sources) == (paper.media, paper.verify, paper.sources)


def test_mini_is_small_and_open() -> None:
    recipe = _recipe("videop2r-mini")
    assert recipe.sources[0].limit == 400
    assert recipe.judge is not None
    assert {recipe.generate.backend.kind, recipe.judge.backend.kind} == {"openai"}


@pytest.mark.parametrize("name", ["", "nope", "../demo", "demo.yaml", "/etc/passwd"])
def test_unknown_names_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match="videop2r-mini"):
        recipe_text(name)
