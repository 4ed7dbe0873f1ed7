"""Rollouts by vLLM in this process, against transformers, before and after updates, on one tiny model.

Runs in the environment of `scripts/vllm_env.sh` (`make test-vllm`); skipped elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from tests.trainer.rollout.vllm_prompts import World, make_batch, make_world, move
from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.rollout.vllm_engine import VllmEngine
from videop2r_data.trainer.rollout.vllm_requests import sampling_fields
from videop2r_data.trainer.settings.parts import LoraSpec
from videop2r_data.trainer.settings.rl import SamplingSpec, VllmSpec

pytestmark = [
    pytest.mark.integration,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]
KINDS = ("video", "image", "text", "video")
GREEDY = SamplingSpec(temperature=0.0, max_new_tokens=16, backend="vllm")
WARM = SamplingSpec(temperature=1.0, max_new_tokens=16, backend="vllm")
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
        made = start(world)
        yield made
        made.close()
        made.close()
        with pytest.raises(BackendError, match="closed"):
            made.sync(world.net)


def start(world: World) -> VllmEngine:
    return VllmEngine(world.net, world.policy.tokenizer, GREEDY, SETTINGS, model=str(world.folder))


def drawn(
    engine: Any, batch: PromptBatch, group: int = 1, seeds: Sequence[int] | None = None
) -> list[list[int]]:
    count = len(batch) * group
    rows = engine.generate(batch, group_size=group, seeds=range(count) if seeds is None else seeds)
    assert len(rows) == count
    assert all(row.finished == (row.ids[-1:] == [END]) for row in rows)
    return [row.ids for row in rows]


END = 426
"""`<|im_end|>` of the tiny tokenizer."""


def own(world: World) -> HfEngine:
    return HfEngine(world.net, world.policy.tokenizer, GREEDY)


def test_greedy_tokens_agree_with_transformers_before_and_after_updates(
    world: World, batch: PromptBatch, engine: VllmEngine
) -> None:
    assert world.policy.tokenizer.eos_token_id == END
    before = drawn(own(world), batch)
    assert drawn(engine, batch) == before
    for i in range(2):
        move(world.net, batch, seed=i)
        after = drawn(own(world), batch)
        assert all(a != b and len(set(a)) > 4 for a, b in zip(after, before, strict=True))
        assert drawn(engine, batch) == before, "nothing is handed over before sync"
        engine.sync(world.net)
        assert drawn(engine, batch) == after
        before = after


def test_adapters_are_handed_over_merged_and_stay_apart_in_the_policy(
    world: World, batch: PromptBatch, engine: VllmEngine
) -> None:
    lora = make_world(world.folder, lora=LoraSpec(rank=4, alpha=16.0, vision=True))
    plain = drawn(own(lora), batch)
    engine.sync(lora.net)
    assert drawn(engine, batch) == plain, "fresh adapters change nothing"
    move(lora.net, batch)
    moved = drawn(own(lora), batch)
    assert all(a != b for a, b in zip(moved, plain, strict=True))
    engine.sync(lora.net)
    assert drawn(engine, batch) == moved
    with lora.net.disable_adapter():
        assert drawn(own(lora), batch) == plain
    engine.sync(world.net)


def test_the_vision_tower_runs_once_per_clip_and_again_after_an_update(
    world: World, batch: PromptBatch, engine: VllmEngine
) -> None:
    seen: list[int] = []

    def count_patches(model: Any) -> None:
        forward = model.visual.forward

        def counting(x: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(int(x.shape[0]))
            return forward(x, *args, **kwargs)

        model.visual.forward = counting

    patches = sum(len(batch.media[name]) for name in ("pixel_values", "pixel_values_videos"))
    engine.sync(world.net)
    engine._llm.apply_model(count_patches)
    try:
        drawn(engine, batch, group=4)
        assert sum(seen) == patches
        drawn(engine, batch, group=2)
        assert sum(seen) == patches, "kept while the weights stay"
        engine.sync(world.net)
        drawn(engine, batch, group=4)
        assert sum(seen) == 2 * patches
    finally:
        engine._llm.apply_model(lambda model: delattr(model.visual, "forward"))


def test_a_rollout_depends_on_its_seed_and_prompt_alone(
    world: World, batch: PromptBatch, engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = sampling_fields(WARM, engine._tokens, bias=float("-inf"))
    monkeypatch.setattr(engine, "_fields", warm)
    seeds = [101, 102, 103, 201, 202, 203, 301, 302, 303, 2**63 - 1, 402, 403]
    rows = drawn(engine, batch, group=3, seeds=seeds)
    assert drawn(engine, batch, group=3, seeds=seeds) == rows
    assert len({tuple(row) for row in rows}) == len(rows)
    never = engine._tokens.never
    assert not never.intersection(token for row in rows for token in row)
    alone = make_batch(world.policy, KINDS[:1])
    assert drawn(engine, alone, group=3, seeds=seeds[:3]) == rows[:3]
    assert drawn(engine, alone, group=1, seeds=seeds[1:2]) == rows[1:2]


def test_a_prompt_that_differs_is_an_error_and_leaves_nothing_behind(
    batch: PromptBatch, engine: VllmEngine
) -> None:
    good = drawn(engine, batch)
    ids = [list(row) for row in batch.ids]
    ids[2][5] += 1
    with pytest.raises(ConfigError, match=r"text-2.*differently.*first difference at 5"):
        drawn(engine, replace(batch, ids=ids))
    assert not engine._llm.llm_engine.has_unfinished_requests()
    assert drawn(engine, batch) == good


def test_a_prompt_that_leaves_too_little_room_is_an_error(batch: PromptBatch, engine: VllmEngine) -> None:
    long = [*batch.ids[:3], [0] * (SETTINGS.max_model_len - GREEDY.max_new_tokens + 1)]
    with pytest.raises(ConfigError, match="do not fit vLLM's 2048"):
        drawn(engine, replace(batch, ids=long))


def test_an_output_layer_that_shares_the_embedding_is_new_too_in_a_second_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    tied = make_world(tmp_path / "tied", tied=True)
    prompts = make_batch(tied.policy, KINDS)
    engine = start(tied)
    before = drawn(own(tied), prompts)
    assert drawn(engine, prompts) == before
    move(tied.net, prompts)
    engine.sync(tied.net)
    after = drawn(own(tied), prompts)
    assert after != before
    assert drawn(engine, prompts) == after
    engine.close()
