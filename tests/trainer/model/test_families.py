"""Qwen3-VL: deepstack features, frames with their times as text between them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from tests.tiny_model import TinyConfig, build_tokenizer
from tests.trainer.model.batches import random_completions
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.settings.rl import SamplingSpec

VIDEO_GRID, IMAGE_GRID = [3, 4, 4], [1, 4, 6]


@cache
def tokenizer() -> Any:
    return build_tokenizer(TinyConfig().vocab)


@cache
def net() -> Any:
    return make_net(tokenizer())


def make_net(tokens: Any, patch: int = 8) -> Any:
    """Random weights from a seed."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    token = tokens.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 4, 4], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
        text_config={
            "vocab_size": len(tokens),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "rope_parameters": rope,
            "initializer_range": 0.2,
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.2,
        },
    )
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(config).float().eval()


def pixels(grid: list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(grid[0] * grid[1] * grid[2], 3 * 2 * 8 * 8, generator=generator)


def prompts(seed: int = 0) -> PromptBatch:
    """A clip of three times, each behind its own words; words alone; a picture."""
    token = tokenizer().convert_tokens_to_ids
    start, end, video, image = (
        token(f"<|{name}|>") for name in ("vision_start", "vision_end", "video_pad", "image_pad")
    )
    words = [70, 71, 72]
    clip = [part for i in range(3) for part in [60 + i, start, *[video] * 4, end]]
    ids = [[*words, *clip, 80, 81], [*words, 90], [start, *[image] * 6, end, 75]]
    return PromptBatch(
        examples=(None,) * 3,  # type: ignore[arg-type]
        frames=(None,) * 3,
        texts=("",) * 3,
        ids=ids,
        types=[[2 if i == video else 1 if i == image else 0 for i in row] for row in ids],
        media={
            "pixel_values": pixels(IMAGE_GRID, 1),
            "image_grid_thw": torch.tensor([IMAGE_GRID]),
            "pixel_values_videos": pixels(VIDEO_GRID, 2 + seed),
            "video_grid_thw": torch.tensor([VIDEO_GRID]),
        },
    )


@pytest.mark.parametrize("share", [True, False])
def test_training_gives_the_log_probabilities_of_the_library(share: bool) -> None:
    batch = prompts()
    inputs = batch.with_completions(random_completions(9), 3)
    with torch.no_grad():
        got = TrainModel(net(), share_prompts=share)(inputs)
    for i in range(9):
        one = inputs.rows(i - i % 3, i - i % 3 + 3)
        start, end = int(inputs.starts[i]), int(inputs.starts[i] + inputs.lengths[i])
        with torch.no_grad():
            logits = net()(
                input_ids=inputs.input_ids[i : i + 1, :end],
                mm_token_type_ids=inputs.types[i : i + 1, :end],
                **one.media,
            ).logits[0, start - 1 : end - 1]
        want = logits.log_softmax(-1).gather(-1, inputs.input_ids[i, start:end, None])[:, 0]
        torch.testing.assert_close(got.logps[i][got.mask[i]], want, atol=1e-4, rtol=1e-4)
    other = prompts(seed=5).with_completions(random_completions(9), 3)
    with torch.no_grad():
        moved = TrainModel(net(), share_prompts=share)(other)
    assert ((got.logps - moved.logps).abs() > 1e-4)[:3][got.mask[:3]].all()
    torch.testing.assert_close(got.logps[3:], moved.logps[3:], atol=1e-4, rtol=1e-4)


def test_greedy_rollouts_are_those_of_the_library() -> None:
    engine = HfEngine(net(), tokenizer(), SamplingSpec(temperature=0, max_new_tokens=12))
    got = engine.generate(prompts(), group_size=1, seeds=[0] * 3)
    clip = prompts()
    one = PromptBatch(
        clip.examples[:1],
        (None,),
        ("",),
        clip.ids[:1],
        clip.types[:1],
        {name: part for name, part in clip.media.items() if "video" in name},
    )
    never = engine._never.tolist()
    want = net().generate(
        **one.for_generation(1), **one.media, max_new_tokens=12, do_sample=False, suppress_tokens=never
    )
    assert got[0].ids == want[0, len(one.ids[0]) :].tolist()


def test_mixed_precision_trains() -> None:
    own = net()
    inputs = prompts().with_completions(random_completions(6), 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = TrainModel(own)(inputs)
        engine = HfEngine(own, tokenizer(), SamplingSpec(max_new_tokens=3))
        assert len(engine.generate(prompts(), group_size=2, seeds=range(6))) == 6
    assert out.logps.dtype == torch.float32
    out.logps.sum().backward()
    own.zero_grad()
    with torch.no_grad():
        exact = TrainModel(own)(inputs)
    assert 0 < (out.logps - exact.logps)[out.mask].abs().mean() < 0.5


def test_every_weight_of_the_tower_gets_a_gradient() -> None:
    own = net()
    TrainModel(own)(prompts().with_completions(random_completions(6), 2)).logps.sum().backward()
    tower = {name: weight.grad for name, weight in own.named_parameters() if "visual" in name}
    assert all(grad is not None for grad in tower.values())
    assert any("deepstack" in name and grad.abs().sum() > 0 for name, grad in tower.items())
    own.zero_grad()
