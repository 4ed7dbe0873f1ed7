"""Pictures and clips go through the vision tower once per prompt, in one call, whatever the batch holds.

One call for images and videos together, and a blank picture where a batch has neither: every rank of a
distributed run then makes the same calls, and every parameter of the tower gets a gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

IMAGE, VIDEO = 1, 2
"""Values of the token types; text is 0."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the vision tower says of one kind of media.

    Attributes:
        tokens: [T, H], one row per placeholder token, in the order of the prompts.
        deepstack: further [T, H], one per tapped layer (Qwen3-VL); empty for Qwen2.5-VL.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...] = ()

    def take(self, rows: Tensor) -> Features:
        """The features of these rows (a row may be taken more than once; gradients add up)."""
        return Features(self.tokens[rows], tuple(layer[rows] for layer in self.deepstack))


@dataclass(frozen=True, slots=True)
class Seen:
    """Features of a batch; `blank` is a zero that ties the tower to the loss where there is no media."""

    image: Features | None
    video: Features | None
    blank: Tensor | None


def encode(inner: Any, media: Mapping[str, Tensor]) -> Seen:
    """Run the vision tower once.

    Args:
        inner: the model inside the one with the head: it has `visual` and `get_image_features`.
        media: `pixel_values` with `image_grid_thw`, `pixel_values_videos` with `video_grid_thw`; either,
            both or none.
    """
    pixels = [media[name] for name in ("pixel_values", "pixel_values_videos") if name in media]
    grids = [media[name] for name in ("image_grid_thw", "video_grid_thw") if name in media]
    if not pixels:
        features = _features(inner, *_blank(inner))
        return Seen(None, None, features.tokens.sum() * 0.0 + sum(d.sum() * 0.0 for d in features.deepstack))
    features = _features(inner, torch.cat(pixels), torch.cat(grids))
    merge = inner.visual.spatial_merge_size**2
    images = int(grids[0].prod(-1).sum()) // merge if "pixel_values" in media else 0
    every = torch.arange(features.tokens.shape[0], device=features.tokens.device)
    if images == 0 or "pixel_values_videos" not in media:
        return Seen(features if images else None, None if images else features, None)
    return Seen(features.take(every[:images]), features.take(every[images:]), None)


def _features(inner: Any, pixels: Tensor, grid: Tensor) -> Features:
    """One call of the tower. Images and videos share its layout: (patches, channels * times * sides)."""
    told = type(inner).get_image_features(inner, pixels, grid, return_dict=True)
    deepstack = getattr(told, "deepstack_features", None) or ()
    return Features(_whole(told.pooler_output), tuple(_whole(layer) for layer in deepstack))


def _whole(parts: Any) -> Tensor:
    """The library hands features over in one piece or split by picture."""
    return parts if isinstance(parts, Tensor) else torch.cat(list(parts))


def _blank(inner: Any) -> tuple[Tensor, Tensor]:
    """The smallest picture: one merged patch of zeros."""
    config = inner.visual.config
    side = config.spatial_merge_size
    channels = getattr(config, "in_channels", 3)
    width = channels * config.temporal_patch_size * config.patch_size**2
    device = next(inner.visual.parameters()).device
    pixels = torch.zeros(side * side, width, device=device)
    return pixels, torch.tensor([[1, side, side]], device=device)


def shared_rows(types: Tensor, kind: int, repeat: int) -> Tensor:
    """Which feature rows fill the placeholders of B * repeat sequences, in order.

    Args:
        types: [B, L] token types of the distinct prompts, padding 0.
        kind: IMAGE or VIDEO.
        repeat: how many sequences share each prompt.

    >>> shared_rows(torch.tensor([[1, 1, 0], [0, 1, 0]]), IMAGE, 2).tolist()
    [0, 1, 0, 1, 2, 2]
    """
    counts = (types == kind).sum(-1).tolist()
    rows = torch.arange(sum(counts), device=types.device)
    return torch.cat([part.repeat(repeat) for part in rows.split(counts)])


@contextmanager
def given(inner: Any, image: Features | None, video: Features | None) -> Iterator[dict[str, Any]]:
    """Let `inner` take these features for its media; yields the arguments to call it with.

    The two methods of the instance that would run the tower hand the features out instead, for the duration
    of the block; the library then places them (and those of deeper layers) as it does its own.
    """
    arguments: dict[str, Any] = {}
    overridden = []
    for argument, method, features in (
        ("pixel_values", "get_image_features", image),
        ("pixel_values_videos", "get_video_features", video),
    ):
        if features is not None:
            arguments[argument] = features.tokens  # any tensor: its presence makes the library ask
            setattr(inner, method, _hand_out(features))
            overridden.append(method)
    try:
        yield arguments
    finally:
        for method in overridden:
            delattr(inner, method)


def _hand_out(features: Features) -> Any:
    told = SimpleNamespace(
        pooler_output=(features.tokens,), deepstack_features=[(layer,) for layer in features.deepstack]
    )
    return lambda *_, **__: told
