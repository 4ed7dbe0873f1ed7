"""Positions of prompt and completion, one source for training and for generation.

A prompt is numbered once; its completions go on from there one by one. So the two passes cannot differ,
however their batches are padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Numbered(NamedTuple):
    """Positions of B prompts.

    Attributes:
        positions: [3, B, P] time, height, width; 0 at padding.
        following: [B] the position of the first token behind each prompt.
    """

    positions: Tensor
    following: Tensor


def number_prompts(
    inner: Any, ids: Tensor, types: Tensor, mask: Tensor, media: Mapping[str, Tensor]
) -> Numbered:
    """Number prompts that are padded on either side.

    Args:
        inner: the model inside the one with the head (`backends.rope_positions` has been applied).
        ids, types, mask: [B, P] tokens, token types, 1 at real tokens.
        media: grids and seconds per grid of the prompts' media.
    """
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    grids = {name: media[name].cpu() for name in names if name in media}
    # On the host: the library walks over single numbers here, each of which would wait for the GPU.
    positions, deltas = inner.get_rope_index(
        ids.cpu(), mm_token_type_ids=types.cpu(), attention_mask=mask.cpu(), **grids
    )
    following = deltas.view(-1).cpu() + mask.cpu().sum(-1)
    return Numbered(positions.to(ids.device), following.to(ids.device))


def number_rows(prompts: Numbered, starts: Tensor, length: int) -> Tensor:
    """[3, B, length]: the positions of right-padded prompts, then one after the other.

    Args:
        prompts: of right-padded prompts.
        starts: [B] index of the first token behind each prompt.
        length: columns to fill.
    """
    columns = torch.arange(length, device=starts.device)
    behind = prompts.following[:, None] + columns - starts[:, None]
    width = min(prompts.positions.shape[-1], length)
    positions = behind.expand(3, -1, -1).clone()
    inside = columns[:width] < starts[:, None]
    positions[:, :, :width] = torch.where(inside, prompts.positions[:, :, :width], positions[:, :, :width])
    return positions
