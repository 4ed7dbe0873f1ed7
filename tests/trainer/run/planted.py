"""Train with gradients that are not finite where a test wants them: python -m ... RANK UPDATES RECIPE.yaml ..."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from videop2r_data.trainer.run.step import Engine
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import load_train_recipe

LAST = 10**6


@contextmanager
def planted(*updates: int, rank: int = 0, piece: int = 0, gradient: bool = False) -> Iterator[None]:
    """Infinities in one micro-batch of these updates of a run, counted from 0, also after a restart.

    Args:
        updates: which; one below 0: that and all later ones.
        rank: of the process.
        piece: number of the micro-batch.
        gradient: the loss is finite, and its gradient is not.
    """
    whole = Engine.update

    def update(self: Engine, pieces: Any, loss_of: Any, **options: Any) -> Any:
        now, seen = self.schedule.scheduler.last_epoch, count()
        hit = (now in updates or any(now >= -u for u in updates if u < 0)) and (
            rank == self.accelerator.process_index
        )

        def poisoned(one: Any, told: Any) -> Any:
            bad = hit and next(seen) == piece
            if bad and gradient:
                told.logps.register_hook(lambda slope: slope * math.inf)
            return loss_of(one, told) * (math.inf if bad and not gradient else 1.0)

        return whole(self, pieces, poisoned, **options)

    with patch.object(Engine, "update", update):
        yield


if __name__ == "__main__":
    where, which, *recipes = sys.argv[1:]
    with planted(*map(int, which.split(",")), rank=int(where)):
        for path in recipes:
            assert train(load_train_recipe(Path(path))).complete, path
