"""What a command means: a plan's file, a run, a model, flags alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from videop2r_data.errors import ConfigError
from videop2r_data.evaluation import plan_of
from videop2r_data.evaluation.plan import patch_factor, weights_digest
from videop2r_data.schemas import EvalPlan

SERVER = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}
SMALL = {"frames": 8, "min_pixels": 64, "max_pixels": 784, "factor": 8}


def model_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def run_of(folder: Path, recipe: dict[str, Any]) -> Path:
    model_in(folder / "final")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def of_run(folder: Path, recipe: dict[str, Any], **given: Any) -> EvalPlan:
    return plan_of(str(run_of(folder, recipe)), given).plan


def test_a_run_a_model_and_a_hub_id(tmp_path: Path) -> None:
    given = {"benchmarks": [{"name": "demo"}]}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no model in this folder"):
        plan_of(str(tmp_path / "empty"), given)
    model = model_in(tmp_path / "model")
    asked = plan_of(str(model), given)
    assert (asked.plan.backend.kind, asked.plan.backend.model) == ("transformers", str(model))
    assert asked.run is None and asked.out == Path("evaluation")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text("stage: sft\n")
    with pytest.raises(ConfigError, match="no final/ yet"):
        plan_of(str(unfinished), given)
    run = run_of(tmp_path / "run", {"stage": "sft"})
    asked = plan_of(str(run), given)
    assert asked.plan.backend.model == str(run / "final") and asked.run == run
    assert asked.out.parent == run / "eval" and asked.out.name.startswith("demo-")
    hub = plan_of("Qwen/Qwen2.5-VL-7B-Instruct", given).plan.backend
    assert hub.model == "Qwen/Qwen2.5-VL-7B-Instruct" and hub.revision is None


@pytest.mark.parametrize("named", ["nowhere", "./a/b", "/a/b", "a/b/c", ""])
def test_what_is_nothing_of_these(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        plan_of(named, {"benchmarks": [{"name": "demo"}]})


def test_a_model_is_looked_at_with_the_papers_eyes() -> None:
    plan = plan_of(None, {"benchmarks": [{"name": "demo"}], "backend": SERVER, "media": {"frames": 4}}).plan
    assert (plan.media.frames, plan.media.max_pixels) == (4, 256 * 28 * 28)
    assert (plan.temperature, plan.top_p, plan.question_only) == (0.01, 0.001, True)
    assert plan_of(None, {"benchmarks": [{"name": "demo"}], "backend": SERVER}).plan.media.frames == 32


def test_flags_go_over_a_file_whose_paths_are_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = {"backend": SERVER, "benchmarks": ["rows/mine.jsonl"], "media": {"frames": 4}, "max_tokens": 9}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    monkeypatch.chdir(tmp_path)
    asked = plan_of(
        "plan.yaml", {"media": {"max_pixels": 784}, "backend": {"model": "n"}, "pool": {"limit": 3}}
    )
    assert asked.base == Path() and asked.plan.benchmarks[0].path == "rows/mine.jsonl"
    assert (asked.plan.media.frames, asked.plan.media.max_pixels, asked.plan.max_tokens) == (4, 784, 9)
    assert (asked.plan.backend.model, asked.plan.backend.base_url) == ("n", SERVER["base_url"])
    assert asked.plan.benchmarks[0].limit == 3
    (tmp_path / "here.jsonl").write_text("{}")
    asked = plan_of("plan.yaml", {"benchmarks": [{"path": "here.jsonl"}]})
    assert asked.plan.benchmarks[0].path == str(tmp_path / "here.jsonl")


def test_a_name_alone_is_enough_of_a_benchmark() -> None:
    named = ["demo", "org/held-out", {"path": "some/rows.v2.parquet", "sample": 3}]
    pools = EvalPlan.model_validate({"backend": SERVER, "benchmarks": named}).benchmarks
    assert [pool.name for pool in pools] == ["demo", "held-out", "rows"]
    assert [pool.kind for pool in pools] == ["benchmark", "dataset", "dataset"]
    assert pools[0].demo is not None and pools[0].demo.start == 10_000_000 and pools[0].is_whole
    assert not pools[2].is_whole


def test_a_run_brings_its_style_its_held_out_questions_and_its_judge(tmp_path: Path) -> None:
    judge = {"kind": "backend", "backend": SERVER, "prompt": "judge-v1"}
    trained = {
        "data": {"source": "pool", "style": "agnostic", "media": {"frames": 16, "factor": 32}},
        "evaluation": {"source": "./held.jsonl", "media": {"frames": 8, "factor": 32}, "start": 5},
        "judging": judge,
        "scoring": {"profile": "paper"},
    }
    plan = of_run(tmp_path / "a", trained)
    pool = plan.benchmarks[0]
    assert (pool.path, pool.start, plan.media.frames) == ("./held.jsonl", 5, 8)
    assert plan.style == "agnostic" and plan.scoring.profile == "paper" and not plan.judges
    other = of_run(tmp_path / "b", trained, benchmarks=[{"path": "./other.jsonl"}], media={"frames": 3})
    assert (other.benchmarks[0].path, other.benchmarks[0].start) == ("./other.jsonl", 0)
    assert (other.media.frames, other.media.factor, other.media.max_pixels) == (3, 32, 256 * 28 * 28)
    trained["data"] = {"source": "pool"}
    judges = of_run(tmp_path / "c", trained).judges
    assert [one.backend.model for one in judges] == ["m"] and judges[0].does == "record"
    assert not of_run(tmp_path / "d", trained, judges=[]).judges


def test_a_run_unlike_the_papers_is_evaluated_as_it_was_trained(tmp_path: Path) -> None:
    plan = of_run(tmp_path / "run", {"data": {"source": "a", "media": SMALL}}, benchmarks=[{"path": "./b"}])
    assert plan.media.model_dump(include=set(SMALL)) == SMALL


def test_a_rate_of_training_is_kept_and_a_look_is_not(tmp_path: Path) -> None:
    trained = {"data": {"source": "a", "media": {"fps": 2.0, "look": {"noise": 8.0}}}}
    media = of_run(tmp_path / "a", trained, benchmarks=[{"path": "./b"}]).media
    assert (media.fps, media.look, media.frames) == (2.0, None, 32)
    asked = of_run(tmp_path / "b", trained, benchmarks=[{"path": "./b"}], media={"look": {"blur": 2.0}}).media
    assert asked.look is not None and (asked.look.blur, asked.look.noise) == (2.0, 0.0)


def test_flags_go_before_the_runs_way_to_evaluate_and_that_before_the_papers(tmp_path: Path) -> None:
    trained: dict[str, Any] = {
        "evaluating": {"batch": 3, "sampling": {"max_new_tokens": 50, "temperature": 0.5}}
    }
    plan = of_run(tmp_path / "run", trained, benchmarks=[{"path": "./x"}], temperature=0.2)
    assert (plan.max_tokens, plan.temperature, plan.top_p) == (50, 0.2, 0.001)


def test_the_demo_world_is_looked_at_as_in_training_and_where_training_never_comes(tmp_path: Path) -> None:
    world = {"side": 24, "tasks": ["count"]}
    trained: dict[str, Any] = {"data": {"source": "demo", "demo": world, "media": SMALL, "prompt": "tiny-v1"}}
    plan = of_run(tmp_path / "run", trained, benchmarks=[{"name": "demo"}])
    demo = plan.benchmarks[0].demo
    assert demo is not None and (demo.side, demo.numbered, demo.start, demo.rows) == (
        24,
        False,
        10_000_000,
        200,
    )
    assert demo.exact, "the stream of a training has been through no codec"
    assert plan.media.frames == 8 and plan.prompt == plan.question_only_prompt == "tiny-v1"
    assert [judge.decides for judge in plan.judges] == ["sufficiency", "faithfulness", "conclusion"]
    assert {judge.backend.kind for judge in plan.judges} == {"demo"}, "its own, which cost nothing"
    trained["evaluation"] = {"source": "demo", "start": 900, "limit": 3}
    held = of_run(tmp_path / "own", trained).benchmarks[0].demo
    assert held is not None and (held.start, held.rows, held.side) == (900, 3, 24)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"backend": "demo"}, "backend"),
        ({"benchmarks": "demo"}, "benchmarks"),
        ({"benchmarks": {"demo": 1}}, "benchmarks"),
        ({"media": 3}, "media"),
        ({"backend": {"kind": "demo"}}, "nobody is asked"),
    ],
)
def test_a_section_that_is_none_is_refused_with_its_name(
    wrong: dict[str, Any], field: str, tmp_path: Path
) -> None:
    settings = {"backend": {"kind": "demo", "model": "demo"}, "benchmarks": ["demo"]} | wrong
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=rf"plan\.yaml: (1 error[^\n]*\n  )?{field}"):
        plan_of(str(tmp_path / "plan.yaml"), {"media": {"frames": None}, "backend": {"kind": None}})


def test_nothing_named_and_wrong_settings_are_errors_with_their_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nobody is asked"):
        plan_of(None, {"benchmarks": [{"name": "demo"}]})
    with pytest.raises(ConfigError, match="--benchmark"):
        plan_of(None, {"backend": SERVER})
    given = {"benchmarks": [{"name": "demo", "limit": 0}], "backend": SERVER, "style": "modern"}
    with pytest.raises(ConfigError, match=r"2 error[\s\S]*benchmarks\.0\.limit[\s\S]*style"):
        plan_of(None, given)
    blind = {"name": "b", "decides": "blind", "backend": SERVER}
    with pytest.raises(ConfigError, match="question_only"):
        plan_of(None, {"benchmarks": [{"name": "demo"}], "backend": SERVER, "judges": [blind]})


def test_the_patch_factor_is_the_processors(tmp_path: Path) -> None:
    assert patch_factor(str(tmp_path)) is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"patch_size": 14, "merge_size": 2}))
    assert patch_factor(str(tmp_path)) == 28
    (tmp_path / "preprocessor_config.json").write_text("[]")
    nested = {"image_processor": {"patch_size": 16, "merge_size": 2}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert patch_factor(str(tmp_path)) == 32


def test_weights_that_are_replaced_are_other_weights(tmp_path: Path) -> None:
    big = tmp_path / "model.safetensors"
    big.write_bytes(bytes(6_000_000))
    before = weights_digest(tmp_path)
    big.touch()
    assert weights_digest(tmp_path) == before, "a copy has other times"
    big.write_bytes(b"1" * 6_000_000)
    assert weights_digest(tmp_path) != before
    model_in(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"1")
    asked = plan_of(str(tmp_path / "m"), {"benchmarks": [{"name": "demo"}]}, device="cpu").plan.backend
    assert asked.revision == weights_digest(tmp_path / "m")
    assert asked.extra == {"device_map": "cpu", "dtype": "float32"}


def test_a_plan_that_is_not_there_is_no_model_of_the_hub() -> None:
    with pytest.raises(ConfigError, match="no such plan") as caught:
        plan_of("nowhere.yaml", {})
    assert caught.value.where == "nowhere.yaml"
