from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.evaluate.run import (
    Target,
    eval_recipe,
    find_target,
    model_digest,
    patch_factor,
    settings_of,
)
from videop2r_data.trainer.settings.parts import EvalSpec

DEMO = {
    "source": "demo",
    "style": "process",
    "media": {"frames": 4, "min_pixels": 64, "max_pixels": 784, "factor": 8},
}


def target(recipe: dict[str, Any] | None = None, model: str = "owner/name") -> Target:
    return Target("t", model, None, recipe or {})


def test_a_run_a_model_and_a_hub_id(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    with pytest.raises(ConfigError, match="no model in this folder"):
        find_target(str(model))
    (model / "config.json").write_text("{}")
    assert find_target(str(model)) == Target("model", str(model), None, {})
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("stage: sft\n")
    with pytest.raises(ConfigError, match="no final/ yet"):
        find_target(str(run))
    (run / "final").mkdir()
    (run / "final" / "config.json").write_text("{}")
    assert find_target(str(run)) == Target("run", str(run / "final"), run, {"stage": "sft"})
    assert find_target("Qwen/Qwen2.5-VL-7B-Instruct").model == "Qwen/Qwen2.5-VL-7B-Instruct"


@pytest.mark.parametrize("named", ["nowhere", "./a/b", "/a/b", "a/b/c", ""])
def test_what_is_nothing_of_these(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        find_target(named)


def test_a_model_is_looked_at_with_the_papers_eyes() -> None:
    recipe = eval_recipe(target(), {"data": {"source": "held-out"}}, device="cpu")
    assert (recipe.data.media.frames, recipe.data.media.max_pixels) == (32, 256 * 28 * 28)
    assert (recipe.run.sampling.temperature, recipe.run.sampling.top_p) == (0.01, 0.001)
    assert recipe.data.config == "rl" and recipe.model.dtype == "float32"
    assert eval_recipe(target(), {"data": {"source": "x"}}, device="cuda").model.dtype == "bfloat16"


def test_a_run_brings_its_style_its_held_out_questions_and_its_judge() -> None:
    trained = {
        "data": {"source": "pool", "style": "agnostic", "media": {"frames": 16, "factor": 32}},
        "evaluation": {"source": "held-out", "media": {"frames": 8, "factor": 32}, "start": 5},
        "judging": {"kind": "demo"},
        "scoring": {"profile": "paper"},
    }
    recipe = eval_recipe(target(trained), {}, device="cpu")
    assert (recipe.data.source, recipe.data.start, recipe.data.media.frames) == ("held-out", 5, 8)
    assert recipe.data.style == "agnostic" and recipe.judging.kind == "demo"
    assert recipe.run.scoring.profile == "paper"
    other = eval_recipe(target(trained), {"data": {"source": "other", "media": {"frames": 3}}}, device="cpu")
    assert (other.data.source, other.data.start) == ("other", 0)
    assert (other.data.media.frames, other.data.media.factor) == (3, 32)
    assert other.data.media.max_pixels == 256 * 28 * 28


def test_a_run_unlike_the_papers_is_evaluated_as_it_was_trained() -> None:
    media = {"frames": 8, "min_pixels": 64, "max_pixels": 784, "factor": 8}
    recipe = eval_recipe(
        target({"data": {"source": "a", "media": media}}), {"data": {"source": "b"}}, device="cpu"
    )
    assert recipe.data.media.model_dump(include=set(media)) == media


def test_flags_go_before_the_runs_way_to_evaluate_and_that_before_the_papers() -> None:
    trained = {"evaluating": {"batch": 3, "sampling": {"max_new_tokens": 50, "temperature": 0.5}}}
    given = {"data": {"source": "x"}, "run": {"sampling": {"temperature": 0.2}}}
    run = eval_recipe(target(trained), given, device="cpu").run
    assert run.batch == 3
    sampling = run.sampling
    assert (sampling.max_new_tokens, sampling.temperature, sampling.top_p) == (50, 0.2, 0.001)


def test_judging_nothing_must_be_said() -> None:
    given: dict[str, Any] = {"data": {"source": "b"}}
    assert not eval_recipe(target(), given, device="cpu").unjudged
    silent = eval_recipe(
        target({"judging": {"kind": "demo"}}), given | {"judging": {"kind": "none"}}, device="cpu"
    )
    assert silent.unjudged
    assert not eval_recipe(target({"judging": {"kind": "none"}}), given, device="cpu").unjudged


def test_the_demo_stream_is_looked_at_as_in_training_and_where_training_never_comes() -> None:
    recipe = eval_recipe(target({"data": DEMO}), {"data": {"source": "demo"}}, device="cpu")
    assert recipe.data.media.frames == 4 and recipe.data.media.factor == 8
    assert recipe.data.start == 10_000_000 and recipe.data.limit == 200


def test_no_data_and_wrong_settings_are_errors_with_their_fields() -> None:
    with pytest.raises(ConfigError, match="--data"):
        eval_recipe(target(), {}, device="cpu")
    given = {"data": {"source": "x", "config": "gone"}, "run": {"batch": 0}}
    with pytest.raises(ConfigError, match=r"2 error[\s\S]*data\.config[\s\S]*run\.batch"):
        eval_recipe(target(), given, device="cpu")


def test_the_patch_factor_is_the_processors(tmp_path: Path) -> None:
    assert patch_factor(str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"patch_size": 14, "merge_size": 2}))
    assert patch_factor(str(tmp_path)) == 28
    (tmp_path / "preprocessor_config.json").write_text("[]")
    nested = {"image_processor": {"patch_size": 16, "merge_size": 2}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert patch_factor(str(tmp_path)) == 32


def test_a_model_that_is_replaced_is_another_one(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = model_digest(str(tmp_path), None)
    assert before == model_digest(str(tmp_path), None)
    (tmp_path / "model.safetensors").write_bytes(b"22")
    assert before != model_digest(str(tmp_path), None)
    assert model_digest("a/b", "r1") != model_digest("a/b", "r2")


def test_what_changes_no_row_is_no_setting() -> None:
    data = eval_recipe(target(), {"data": {"source": "x"}}, device="cpu").data
    base = settings_of(EvalSpec(), data)
    same = settings_of(EvalSpec(batch=99, resamples=100), data.model_copy(update={"workers": 3, "ahead": 9}))
    assert base == same
    assert base != settings_of(EvalSpec(seed=1), data)
    assert base != settings_of(EvalSpec(), data.model_copy(update={"limit": 3}))
