"""The product is the convolution."""

from __future__ import annotations

from copy import deepcopy

import torch

from tests.trainer.model.batches import tiny_folder, tiny_policy
from videop2r_data.trainer.model.load import PatchProduct, multiply_patches


def test_a_loaded_tower_multiplies_and_says_the_same() -> None:
    from transformers import AutoModelForImageTextToText

    plain = AutoModelForImageTextToText.from_pretrained(tiny_folder()).model.visual.patch_embed
    ours = tiny_policy().net.model.visual.patch_embed
    assert type(plain.proj) is torch.nn.Conv3d
    assert type(ours.proj) is PatchProduct
    pixels = torch.randn(10, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(pixels), plain(pixels), atol=1e-4, rtol=1e-4)
    assert list(ours.state_dict()) == list(plain.state_dict())


def test_a_copy_has_its_own_weights() -> None:
    net = tiny_policy().net
    copy = deepcopy(net)
    torch.nn.init.zeros_(copy.model.visual.patch_embed.proj.weight)
    pixels = torch.ones(1, 3 * 2 * 14 * 14)
    assert not copy.model.visual.patch_embed(pixels).any()
    assert net.model.visual.patch_embed(pixels).any()


def test_a_convolution_that_slides_is_left_alone() -> None:
    net = tiny_policy().net
    sliding = torch.nn.Conv3d(3, 8, (2, 14, 14), stride=(1, 14, 14))
    net.model.visual.patch_embed.proj = sliding
    multiply_patches(net)
    assert type(sliding) is torch.nn.Conv3d
