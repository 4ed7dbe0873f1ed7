"""Adds two objectives, each as one entry of the table, and prints what everything that reads the table makes of them.

Run in an interpreter of its own: a recipe's schema is made when the settings are imported.
"""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path

import torch
from pydantic import ValidationError

from videop2r_data.trainer.settings.objectives import OBJECTIVES, Objective, StreamRule

ENTRIES = (
    Objective(
        name="formats",
        paper="-",
        rewards="both formats, normalised apart",
        reaches="each its own",
        streams=(StreamRule("p", ("format_p",)), StreamRule("r", ("format_r",))),
    ),
    Objective(
        name="seen-in-time",
        paper="-",
        rewards="acc_P and the temporal bonus",
        reaches="all",
        streams=(StreamRule("all", ("accuracy_p", "temporal")),),
    ),
)
OBJECTIVES.update({entry.name: entry for entry in ENTRIES})

from tests.trainer.process.pencil import EXACT, MASK, P, R, rollout  # noqa: E402
from videop2r_data.cli.train_run import ObjectiveOpt  # noqa: E402
from videop2r_data.trainer.process.advantages import streams  # noqa: E402
from videop2r_data.trainer.process.rewards import rewards_of  # noqa: E402
from videop2r_data.trainer.settings.recipe import TrainRecipe  # noqa: E402
from videop2r_data.trainer.settings.rl import ObjectiveSpec, RewardSpec  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import recipe_reference  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

GRADED = (rollout(1.0, 0.0, form_r=False), rollout(None, 0.5))
"""The first is sufficient and breaks the template, the second was not judged."""


def refusal(name: str, **data: str) -> str:
    """What a recipe without a judge is told."""
    recipe = {
        "name": "x",
        "stage": "rl",
        "data": {"source": "demo", "config": "rl", **data},
        "model": {"model": "m", "dtype": "float32"},
        "objective": {"name": name},
        "steps": 1,
    }
    try:
        TrainRecipe.model_validate(recipe)
    except ValidationError as error:
        return str(error)
    return ""


def learnt(name: str) -> dict[str, object]:
    """Streams of two rollouts: name, reached tokens of the first row, advantages."""
    objective = ObjectiveSpec(name=name)
    shuffled = [[0.0]] if objective.entry.shuffles else None
    table = rewards_of(GRADED, RewardSpec(), 2, objective=objective, shuffled=shuffled)
    found = streams(objective, table, {"perception": P, "reasoning": R}, completion_mask=MASK, spec=EXACT)
    assert all(isinstance(s.advantage, torch.Tensor) for s in found)
    return {s.name: [s.mask[0].tolist(), s.advantage.tolist()] for s in found}


schema = TrainRecipe.model_json_schema()["$defs"]["ObjectiveSpec"]["properties"]["name"]["enum"]
print(
    json.dumps(
        {
            "schema": schema,
            "help": typing.get_args(ObjectiveOpt)[1].help,
            "table": recipe_reference.objectives(),
            "page": "seen-in-time" in recipe_reference.page("training-reference.md"),
            "refused": {name: refusal(name) for name in ("formats", "seen-in-time", "unknown")},
            "agnostic": {name: refusal(name, style="agnostic") for name in ("formats", "grpo")},
            "learnt": {name: learnt(name) for name in ("formats", "seen-in-time")},
        }
    )
)
