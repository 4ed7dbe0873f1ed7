from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from videop2r_data.trainer.settings.rl import JudgingSpec

SERVER: dict[str, Any] = {"kind": "openai", "model": "j", "base_url": "http://localhost:1/v1"}


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"kind": "backend"}, "needs a judging.backend"),
        ({"kind": "demo", "backend": SERVER}, "has no judging.backend"),
        ({"kind": "none", "max_cost": 1.0}, "limits nothing"),
        ({"kind": "backend", "backend": {"kind": "demo", "model": "d"}}, "set judging.kind: demo"),
        ({"kind": "backend", "backend": {"kind": "anthropic", "model": "c", "batch": True}}, "takes hours"),
        ({"kind": "backend", "backend": SERVER, "max_cost": 1.0}, "needs backend.price"),
        ({"kind": "demo", "deadline_s": 0}, "greater than 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        JudgingSpec.model_validate(settings)


def test_nobody_is_asked_by_default() -> None:
    assert JudgingSpec().kind == "none"
