"""A reference that is cut over processes tells the same log-probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.trainer.run import small
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import draw
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.model.load import load_policy, load_reference
from videop2r_data.trainer.model.weights import sharding
from videop2r_data.trainer.run.rl import shard_layers


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_sharded_layers_give_the_same(alone: None, tmp_path: Path) -> None:
    recipe = small.sft(small.model(tmp_path / "tiny"), tmp_path / "run")
    policy = load_policy(recipe.model)
    collator = Collator(policy.processor, load_prompt("tiny-v1"), recipe.data.media)
    examples = [read_examples(recipe.data)[i] for i in range(3)]
    frames = [
        draw(e.scene, recipe.data.media) if e.scene and e.data_type != "text" else None for e in examples
    ]
    inputs = collator(examples, frames).with_completions([collator.target_ids(e) for e in examples], 1)
    frozen = load_reference(recipe.model)
    with torch.no_grad():
        before = frozen(inputs).logps
        shard_layers(frozen)
        assert sharding(frozen) == "FSDP2"
        after = frozen(inputs).logps
    assert torch.equal(before, after)
