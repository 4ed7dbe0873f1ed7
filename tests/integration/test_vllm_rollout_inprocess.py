"""Rollouts by vLLM in this process, against transformers, before and after updates, on one tiny model.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from tests.trainer.rollout.vllm_prompts import World, make_batch, make_world, move
from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.trainer.data.collate import PromptBatch
from videop2r_data.trainer.model.specs import LoraSpec
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.rollout.specs import SamplingSpec
from videop2r_data.trainer.rollout.vllm_engine import VllmEngine
from videop2r_data.trainer.rollout.vllm_specs import VllmSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
KINDS = ("video", "image", "text", "video")
GREEDY = SamplingSpec(temperature=0.0, max_new_tokens=16, backend="vllm")
SETTINGS = VllmSpec(engine={"enforce_eager": True}, memory=0.4, max_model_len=2048)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def batch(world: World) -> PromptBatch:
    return make_batch(world.policy, KINDS)


@pytest.fixture(scope="module")
def engine(world: World) -> Iterator[VllmEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        made = start(world, GREEDY)
        yield made
        made.close()
        made.close()
        with pytest.raises(BackendError, match="closed"):
            made.sync(world.net)


def start(world: World, spec: SamplingSpec) -> VllmEngine:
    return VllmEngine(world.net, world.policy.tokenizer, spec, SETTINGS, model=str(world.folder))


def greedy(engine: Any, batch: PromptBatch, group: int = 1) -> list[list[int]]:
    rows = engine.generate(batch, group_size=group, seeds=list(range(len(batch) * group)))
    return [row.ids for row in rows]


def test_greedy_tokens_agree_with_transformers_before_and_after_updates(
    world: World, batch: PromptBatch, engine: VllmEngine
) -> None:
    own = HfEngine(world.net, world.policy.tokenizer, GREEDY)
    before = greedy(own, batch)
    assert greedy(engine, batch) == before
    for _ in range(2):
        move(world.net, batch)
        after = greedy(own, batch)
        assert all(a != b for a, b in zip(after, before, strict=True))
        assert greedy(engine, batch) == before, "nothing is handed over before sync"
        engine.sync(world.net)
        assert greedy(engine, batch) == after
        before = after
