"""A list of judges in a recipe: what goes together, and what each judge is set to by default."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from videop2r_data.builders.export import locked_settings
from videop2r_data.schemas import Recipe

BACKEND = {"kind": "openai", "model": "m", "base_url": "http://localhost:1/v1"}


def recipe(*judges: dict[str, Any], **changes: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "set",
            "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json"}],
            "generate": {"backend": BACKEND},
            "judges": [{"name": "one", "backend": BACKEND} | judge for judge in judges],
        }
        | changes
    )


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"need": 2}, "need counts votes"),
        ({"panel": [BACKEND], "need": 3}, "need is 3, with 2 models"),
        ({"decides": "faithfulness", "panel": [BACKEND], "need": 1}, "more than half of 2"),
        ({"confirm": True}, "name that model"),
        ({"decides": "blind", "panel": [BACKEND]}, "panel belongs to a judge of sufficiency or faithfulness"),
        ({"decides": "blind", "reads": ["think"]}, "reads belongs to"),
        ({"decides": "conclusion", "does": "filter"}, "a judge of conclusion records"),
        ({"decides": "conclusion", "panel": [BACKEND]}, "panel belongs to"),
        ({"frames": 8}, "frames belongs to a judge of faithfulness"),
        ({"min_score": 0.5}, "min_score belongs to a judge of faithfulness or blind"),
        ({"claims_prompt": "claims-v1"}, "claims_prompt belongs to"),
        ({"reads": ["caption"]}, "reads caption; a trace has observation, think, answer"),
        ({"name": "generate"}, "cannot be called generate"),
        (
            {"backend": {"kind": "anthropic", "model": "m", "batch": True}},
            "batch: true takes one judge alone",
        ),
    ],
)
def test_what_does_not_go_together_is_said(judge: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(judge)


def test_judges_are_named_once_and_in_one_place() -> None:
    with pytest.raises(ValidationError, match="repeated: one"):
        recipe({}, {})
    with pytest.raises(ValidationError, match="name them all in judges"):
        recipe({}, judge={"backend": BACKEND})


def test_a_judge_is_set_by_what_it_decides() -> None:
    told = recipe({"name": "a"}, {"name": "b", "decides": "faithfulness"}, {"name": "c", "decides": "blind"})
    assert [(j.prompt, j.does, j.max_tokens) for j in told.judges] == [
        ("judge-v1", "filter", 512),
        ("faithfulness-v1", "filter", 2048),
        ("blind-v1", "record", 512),
    ]
    assert Recipe.model_validate(told.model_dump(mode="json")) == told
    assert Recipe.model_validate(locked_settings(told)) == told


def test_the_short_form_is_a_list_of_one_and_is_written_as_ever() -> None:
    told = recipe(judges=(), judge={"backend": BACKEND})
    assert [(j.name, j.decides) for j in told.all_judges] == [("judge", "sufficiency")]
    assert list(told.backends) == ["generate", "judge"]
    lock = locked_settings(told)
    assert "judges" not in lock and set(lock["judge"]) == {"backend", "prompt", "temperature", "max_tokens"}


def test_every_model_of_a_judge_has_a_step() -> None:
    told = recipe({"panel": [BACKEND, BACKEND], "unsure_to": BACKEND})
    assert list(told.backends) == ["generate", "one", "one/2", "one/3", "one/unsure"]
    assert told.judges[0].votes_needed == 2
    changed = told.with_backends(lambda spec: spec.model_copy(update={"retries": 0}))
    assert {spec.retries for spec in changed.backends.values()} == {0}
