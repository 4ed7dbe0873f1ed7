"""Train by each of some recipes in turn, in processes that are started once: python -m ... RECIPE.yaml ..."""

from __future__ import annotations

import sys
from pathlib import Path

from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import load_train_recipe

if __name__ == "__main__":
    for path in sys.argv[1:]:
        assert train(load_train_recipe(Path(path))).complete, path
