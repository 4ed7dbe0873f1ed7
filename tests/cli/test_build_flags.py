"""The flags of `build`: each reaches its setting, with one judge, with a list of them and with none."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import p2r
from videop2r_data.cli.build import SETTINGS, apply_flags
from videop2r_data.cli.main import build
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Recipe

OTHERS = {"recipe", "out", "work", "limit", "wait", "shard", "retry", "dry_run", "keep_going", "replace"}
OTHERS |= {"serve", "abandon_batch", "gallery", "metrics", "json", "executor", "ray_actors", "ray_gpus"}
"""Parameters of the command that set no field of the recipe by themselves."""
SETS: dict[str, tuple[str, Any]] = {
    "max_cost": ("max_cost", 7.0),
    "concurrency": ("generate__backend__concurrency", 3),
    "judge_concurrency": ("judges__concurrency", 5),
    "workers": ("media__workers", 2),
    "target": ("target", 11),
    "server_wait": ("judges__server_wait_s", 2.5),
}
"""Flag -> what it overrides, and a value."""


def recipe(**judges: Any) -> Recipe:
    spec = {"kind": "openai", "model": "m", "base_url": "http://h/v1", "price": {"input": 1, "output": 1}}
    sources = [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}]
    judges = {
        key: [one | {"backend": spec} for one in value] if isinstance(value, list) else {"backend": spec}
        for key, value in judges.items()
    }
    for one in judges.get("judges", ()):
        one.update({key: [spec] if key == "panel" else spec for key in ("panel", "unsure_to") if key in one})
    made = {"name": "set", "sources": sources, "generate": {"backend": spec}} | judges
    return Recipe.model_validate(made)


SEVERAL = recipe(
    judges=[
        {"name": "suffices", "panel": 1, "unsure_to": 1},
        {"name": "sees", "decides": "faithfulness"},
        {"name": "guess", "decides": "blind"},
    ]
)


def test_every_flag_is_here() -> None:
    assert set(inspect.signature(build).parameters) == OTHERS | SETS.keys()
    assert set(SETTINGS.values()) == SETS.keys() and all(
        SETTINGS[field] == flag for flag, (field, _) in SETS.items()
    )


@pytest.mark.parametrize("made", [recipe(judge=1), SEVERAL], ids=["judge", "judges"])
@pytest.mark.parametrize("flag", SETS)
def test_a_flag_reaches_its_setting_and_no_other(flag: str, made: Recipe) -> None:
    field, value = SETS[flag]
    found = apply_flags(made, {field: value, "judges__retries": None}, None)
    steps = {step: spec for step, spec in made.backends.items() if step != "generate"}
    assert len(steps) == (1 if made.judge else 5) and found.backends.keys() == made.backends.keys()
    if field.startswith("judges__"):
        name = field.removeprefix("judges__")
        for step, spec in steps.items():
            assert found.backends[step] == spec.model_copy(update={name: value})
        assert found.generate == made.generate
        return
    left = json.loads(made.model_dump_json())
    place = left
    *path, last = field.split("__")
    for part in path:
        place = place[part]
    place[last] = value
    assert json.loads(found.model_dump_json()) == left


@pytest.mark.parametrize("made", [recipe(judge=1), SEVERAL], ids=["judge", "judges"])
def test_a_limit_leaves_the_judges_alone(made: Recipe) -> None:
    found = apply_flags(made, {}, 4)
    assert [source.limit for source in found.sources] == [4]
    assert found.all_judges == made.all_judges


def test_a_flag_for_judges_needs_one(tmp_path: Path) -> None:
    assert apply_flags(recipe(), {"judges__server_wait_s": 1.0}, None) == recipe()  # of every server
    (tmp_path / "r.yaml").write_text(recipe().model_dump_json())
    told = p2r("build", str(tmp_path / "r.yaml"), "--judge-concurrency", "2", code=1).stderr
    assert "the recipe has none" in told and "leave the flag away" in told


def test_a_value_that_is_not_allowed_names_the_judge() -> None:
    with pytest.raises(ConfigError, match=r"judges\.0\.backend\.server_wait_s"):
        apply_flags(SEVERAL, {"judges__server_wait_s": float("inf")}, None)


def test_serve_and_ray_exclude_each_other(tmp_path: Path) -> None:
    found = p2r("build", "demo", "--executor", "ray", "--serve", "--out", str(tmp_path / "set"), code=1)
    assert "--serve starts servers for this machine alone" in found.stderr


@pytest.mark.parametrize("flag", [("--ray-actors", "3"), ("--ray-gpus", "1")])
def test_flags_of_ray_need_ray(flag: tuple[str, str], tmp_path: Path) -> None:
    found = p2r("build", "demo", *flag, "--out", str(tmp_path / "set"), code=1)
    assert "add --executor ray" in found.stderr and not list(tmp_path.iterdir())
