"""Train one step ahead by each of some recipes, also in several processes: python -m ... RECIPE.yaml ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from tests.fakes.scripted import Scripted
from videop2r_data.demo import write_trace
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.load import load_reference
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe, load_train_recipe

BAD = "<observation>Nothing is in it.</observation> <think>Nothing.</think><answer>A</answer>"


class Copied(Scripted):
    """An engine with a copy of the policy, whose log-probabilities it tells; what it writes depends on how
    often it got weights."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.copies, self.net = 0, load_reference(session.recipe.model)
        self.sync(session.engine.model)

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Any = None
    ) -> list[RolledOut]:
        done = []
        for row, seed in enumerate(seeds):
            scene, chosen = prompts.examples[row // group_size].scene, (seed + self.copies) % 3
            assert scene is not None
            done.append(self.said(write_trace(scene, None, seed=chosen) if chosen else BAD))
        with torch.no_grad():
            told = self.net(prompts.with_completions([one.ids for one in done], group_size)).logps.tolist()
        return [
            RolledOut(one.ids, True, logps[: len(one.ids)]) for one, logps in zip(done, told, strict=True)
        ]

    def sync(self, net: Any) -> None:
        self.copies += 1
        weights = {name.removeprefix("module."): value for name, value in net.state_dict().items()}
        self.net.load_state_dict(weights)
        self.net.eval()


def trained(recipe: TrainRecipe) -> None:
    with patch.object(rl, "make_drawer", Copied):
        assert train(recipe).complete


if __name__ == "__main__":
    for path in sys.argv[1:]:
        trained(load_train_recipe(Path(path)))
