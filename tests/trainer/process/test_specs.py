"""Settings: what is refused, and that no torch is loaded for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainer.run import small
from videop2r_data.trainer.settings.objectives import OBJECTIVES, trace_streams
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec, RewardSpec


def test_defaults_are_the_papers() -> None:
    reward, loss = RewardSpec(), LossSpec()
    assert (reward.perception_bounds, reward.reasoning_bounds) == ((128, 320), (320, 512))
    assert reward.length_bonus == 0.2
    assert (loss.beta, loss.clip_range) == (0.04, (0.8, 1.2))
    assert LossSpec(epsilon_high=0.28).clip_range == (0.8, 1.28)
    assert ObjectiveSpec().name == "pa-grpo"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"perception_bounds": [320, 128]}, "0 <= low <= high"),
        ({"accuracy": 0, "form": 0}, "no rollout could earn"),
        ({"dynamic": {"low": 0.1}}, "set length: dynamic"),
        ({"length": "dynamic", "dynamic": {"low": 0.9, "high": 0.1}}, "swap them"),
        ({"length_bonus": -1}, "greater than or equal"),
        ({"bonus": 1}, "Extra inputs"),
        ({"length": "auto"}, "fixed"),
    ],
)
def test_bad_rewards_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RewardSpec.model_validate(values)


@pytest.mark.parametrize(
    "values", [{"epsilon": 0}, {"epsilon": 1.5}, {"beta": -1}, {"beta": float("nan")}, {"ratio": "x"}]
)
def test_bad_losses_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LossSpec.model_validate(values)


def test_objectives() -> None:
    with pytest.raises(ValidationError, match="only t-grpo reads it"):
        ObjectiveSpec.model_validate({"name": "grpo", "temporal": {"alpha": 0.1}})
    assert ObjectiveSpec.model_validate({"name": "t-grpo", "temporal": {"alpha": 0.1}}).temporal.alpha == 0.1
    judged = {name for name in OBJECTIVES if OBJECTIVES[name].judged(trace_streams())}
    assert judged == {"pa-grpo", "gdpo", "gdpo-published", "no-separation", "no-reasoning", "no-length"}
    assert [name for name in OBJECTIVES if OBJECTIVES[name].shuffles] == ["t-grpo"]


def test_an_observation_that_is_not_asked_for_is_not_paid() -> None:
    def check(name: str, style: str) -> None:
        small.rl(Path("model"), Path("run"), objective__name=name, data__style=style)

    check("grpo", "agnostic")
    check("pa-grpo", "process")
    with pytest.raises(ValueError, match="style 'agnostic' has none: use grpo, no-perception"):
        check("pa-grpo", "agnostic")


def test_settings_load_no_torch() -> None:
    code = "import sys, videop2r_data.trainer.process as p; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
