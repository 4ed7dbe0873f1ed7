"""From the collator to log-probabilities: what training computes is what generation scored."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_model import TinyConfig, make_tiny_model
from tests.trainer.data.parts import collator, example, frames, qwen3_processor
from tests.trainer.model.test_families import make_net
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import load_policy
from videop2r_data.trainer.rollout.base import Tokens
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.settings.parts import PolicySpec
from videop2r_data.trainer.settings.rl import SamplingSpec


@cache
def family(name: str, folder: Path) -> tuple[Any, Collator]:
    """A tiny model with patches of 4 px and its collator."""
    if name == "qwen3_vl":
        own = collator(qwen3_processor())
        return make_net(own.tokenizer, patch=4), own
    made = make_tiny_model(folder, TinyConfig(patch=4, min_pixels=64, max_pixels=576, printable_only=False))
    policy = load_policy(PolicySpec(model=str(made), dtype="float32"))
    return policy.net, collator(policy.processor)


def collated(own: Collator) -> PromptBatch:
    examples = [
        example("video", "What moves?"),
        example("text", "Count."),
        example("image", "Which colour is it?"),
    ]
    examples += [example("video", "And now, what is seen at the end?")]
    seen = [
        frames(seed=1),
        None,
        frames("image", 1, seed=2),
        frames(count=6, indices=(0, 3, 7, 9, 20, 31), seed=3),
    ]
    batch = own(examples, seen)
    assert not batch.skipped
    return batch


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_what_training_computes_is_what_generation_scored(
    name: str, share: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    net, own = family(name, tmp_path_factory.getbasetemp() / "tiny-collated")
    net.eval()
    batch = collated(own)
    tokens = Tokens.of(net.config, own.tokenizer)
    prompt: dict[str, Any] = batch.for_generation(1)
    told = net.generate(
        **prompt,
        **dict(batch.media),  # the library takes keys out
        max_new_tokens=10,
        do_sample=True,
        top_k=0,
        use_cache=True,
        eos_token_id=[],
        output_logits=True,
        return_dict_in_generate=True,
        suppress_tokens=[*tokens.never, tokens.end],
    )
    drawn = told.sequences[:, prompt["input_ids"].shape[1] :]
    want = torch.stack(told.logits, 1).log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
    twice = drawn.repeat_interleave(2, 0).tolist()
    with torch.no_grad():
        got = TrainModel(net, share_prompts=share)(batch.with_completions(twice, 2)).logps
    torch.testing.assert_close(got, want.repeat_interleave(2, 0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_groups_are_drawn_as_single_rows_are(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    net, own = family(name, tmp_path_factory.getbasetemp() / "tiny-collated")
    batch = collated(own)
    engine = HfEngine(net, own.tokenizer, SamplingSpec(max_new_tokens=8))
    whole = engine.generate(batch, group_size=3, seeds=range(12))
    one_by_one = HfEngine(net, own.tokenizer, SamplingSpec(max_new_tokens=8, rows=1))
    for g in range(3):
        assert one_by_one.generate(batch, group_size=1, seeds=range(g, 12, 3)) == whole[g::3]
