"""Promises about frames and tokens, held against the processor before and after it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Frames, MediaSpec

_HINT = "sample the frames with the media settings that the collator has"


def check_factor(media: MediaSpec, parts: Mapping[int, Any]) -> None:
    """Sides of sampled frames are multiples of what one token shows.

    Args:
        media: how frames are sampled.
        parts: the processor's image and video processors.

    Raises:
        ConfigError: they are not.
    """
    wanted = {part.patch_size * part.merge_size for part in parts.values()}
    if any(media.factor % factor for factor in wanted):
        raise ConfigError(
            f"frames are sampled in multiples of {media.factor} px, the model sees multiples of "
            f"{' and '.join(map(str, sorted(wanted)))} px",
            where="data.media.factor",
            hint=f"set factor: {max(wanted)}",
        )


def check_size(part: Any, frames: Frames) -> None:
    """These frames can be cut into tokens without being resized.

    Raises:
        ConfigError: they cannot.
    """
    factor, record = part.patch_size * part.merge_size, frames.record
    if record.height % factor or record.width % factor:
        raise ConfigError(
            f"{record.data_type} frames of {record.width}x{record.height} pixels for a model that sees "
            f"multiples of {factor} px",
            hint=_HINT,
        )


def check_result(
    part: Any,
    frames: Sequence[Frames],
    grids: Sequence[Sequence[int]],
    tokens: Sequence[int],
    media: MediaSpec,
) -> None:
    """What came out of the processor against what went in.

    Args:
        part: the image or video processor.
        frames: pictures or clips, in order.
        grids: time, height, width of each, in patches.
        tokens: how many tokens stand for each.
        media: its pixel budget bounds the tokens of a frame.

    Raises:
        ConfigError: a frame was resized, left out or repeated, tokens and patches differ, or a frame has more
            tokens than its budget.
    """
    patch, merge = part.patch_size, part.merge_size
    for one, (t, h, w), count in zip(frames, grids, tokens, strict=True):
        record = one.record
        video = record.data_type == "video"
        size, steps = (record.height, record.width), 1
        limit = media.max_pixels if video else media.image_max_pixels or media.max_pixels
        if video:
            steps = -(-record.count // part.temporal_patch_size)
        if (h * patch, w * patch) != size or t != steps:
            raise ConfigError(
                f"{record.data_type}: {record.count} frames of {size} px became a grid of {(t, h, w)} "
                f"patches of {patch} px"
            )
        if count != t * h * w // merge**2:
            raise ConfigError(
                f"{record.data_type}: {count} tokens for {t * h * w} patches, {merge}x{merge} to a token"
            )
        each, budget = h * w // merge**2, limit // (patch * merge) ** 2
        if each > budget:
            raise ConfigError(
                f"{record.data_type}: {each} tokens a frame, the budget is {budget}", hint=_HINT
            )
