"""Attention within parts: every kernel of the vision tower, and rows without padding, say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tests.trainer.model.batches import batch_of, clip, random_completions, tiny_policy
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.forward import TrainModel
from videop2r_data.trainer.model.load import attend_parts
from videop2r_data.trainer.settings.parts import PolicySpec

MEDIA = [clip(0), clip(1)[0], None, clip(2, frames=4, height=84, width=112)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=9), st.integers(0, 1000), st.booleans())
def test_parts_are_attended_one_by_one(lengths: list[int], seed: int, causal: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    # four heads of queries, two of keys and values
    q, k, v = (torch.randn(1, h, sum(lengths), 4, generator=g, requires_grad=True) for h in (4, 2, 2))
    borders = torch.tensor([0, *lengths]).cumsum(0)
    got, _ = attend_parts(torch.nn.Identity(), q, k, v, cu_seq_lens_q=borders, is_causal=causal, scaling=0.3)
    each = [
        functional.scaled_dot_product_attention(a, b, c, scale=0.3, is_causal=causal, enable_gqa=True)
        for a, b, c in zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    ]
    wanted = torch.cat(each, dim=2).transpose(1, 2)
    torch.testing.assert_close(got, wanted)
    weight = torch.randn(got.shape, generator=g)
    grads = [torch.autograd.grad((out * weight).sum(), (q, k, v)) for out in (got, wanted)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("kernel", ["windows", "eager"])
def test_a_tower_with_another_kernel_says_the_same(kernel: str) -> None:
    found = []
    for chosen in (None, kernel):
        policy = tiny_policy(vision_attention=chosen)
        inputs = batch_of(policy.processor, MEDIA).with_completions(random_completions(4), 1)
        told = TrainModel(policy.net)(inputs)
        told.logps.sum().backward()
        tower = policy.net.model.visual
        found.append(
            (told.logps.detach(), tower.patch_embed.proj.weight.grad, tower.config._attn_implementation)
        )
        assert policy.net.model.language_model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(found[0][:2], found[1][:2], rtol=1e-3, atol=1e-4)
    assert (found[0][2], found[1][2]) == ("sdpa", "windows_as_flash" if kernel == "windows" else kernel)


def test_windows_of_one_length_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(vision_attention="windows")
    calls: list[tuple[int, ...]] = []
    real = functional.scaled_dot_product_attention

    def counted(query: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        calls.append(tuple(query.shape))
        return real(query, *args, **more)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    inputs = batch_of(policy.processor, MEDIA[:1]).with_completions(random_completions(1), 1)
    TrainModel(policy.net)(inputs)
    layers = len(policy.net.model.visual.blocks)
    # three pairs of frames of 4 x 4 patches: each is a window
    assert [shape for shape in calls if shape[0] == 3 and shape[2] == 16] == calls[:layers]


def test_what_is_saved_names_no_kernel(tmp_path: Path) -> None:
    policy = tiny_policy(vision_attention="windows")
    policy.net.save_pretrained(tmp_path)
    assert "windows" not in (tmp_path / "config.json").read_text()


def test_a_kernel_that_is_not_installed_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot load") as caught:
        tiny_policy(vision_attention="flash_attention_2")
    assert "vision_attention" in str(caught.value.hint)


def test_an_older_recipe_is_unchanged() -> None:
    assert "vision_attention" not in PolicySpec(model="m").model_dump()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_without_padding_say_the_same(checkpointing: bool) -> None:
    found = []
    for free in (False, True):
        policy = tiny_policy(padding_free=free, gradient_checkpointing=checkpointing)
        inputs = batch_of(policy.processor, MEDIA).with_completions(random_completions(4), 1)
        sizes: list[tuple[int, ...]] = []
        layer = policy.net.model.language_model.layers[0]
        layer.register_forward_pre_hook(lambda _, args, sizes=sizes: sizes.append(tuple(args[0].shape[:2])))
        told = TrainModel(policy.net, padding_free=free)(inputs, entropy=True)
        told.logps.sum().backward()
        grads = {n: w.grad for n, w in policy.net.named_parameters() if w.grad is not None}
        found.append((told.logps.detach(), told.entropy, grads))
        total = int((inputs.starts + inputs.lengths).sum())
        assert sizes[0] == ((1, total) if free else tuple(inputs.input_ids.shape))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_groups_without_shared_prompts_lose_their_padding_too() -> None:
    found = []
    for free in (False, True):
        policy = tiny_policy(padding_free=free)
        inputs = batch_of(policy.processor, MEDIA).with_completions(random_completions(8), 2)
        found.append(TrainModel(policy.net, padding_free=free, share_prompts=False)(inputs).logps.detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_the_other_passes_are_untouched_by_the_kernel_for_rows() -> None:
    before = TrainModel(tiny_policy().net)
    free = TrainModel(tiny_policy(padding_free=True).net, padding_free=True)
    inputs = batch_of(tiny_policy().processor, MEDIA).with_completions(random_completions(8), 2)
    # shared prompts have a mask and no borders: the same bits
    assert torch.equal(before(inputs).logps, free(inputs).logps)
    with pytest.raises(ValueError, match="eager knows no rows"):
        PolicySpec(model="m", padding_free=True, attn="eager")
