"""Which frames, and how large: the two rules that decide what a model sees. Pure arithmetic."""

from __future__ import annotations

import math

from videop2r_data.errors import MediaError
from videop2r_data.schemas.verdict import RejectReason

MAX_ASPECT = 200
"""Longest side over shortest side, as Qwen2-VL's processor allows."""


def uniform_indices(total: int, n: int) -> list[int]:
    """The indices of `n` uniformly spaced frames out of `total`, both ends included.

    `index_i = round(i (total - 1) / (n - 1))`, halves to the even neighbour: the rule of the paper's
    predecessor (`linspace(0, total - 1, n).round()`), computed in integers so that it is the same everywhere.
    One frame alone is the middle one. A clip with `n` frames or fewer gives each of them once: none is
    repeated.

    Args:
        total: shown frames of the clip, at least 1.
        n: frames wanted, at least 1.

    Returns:
        Strictly increasing indices in [0, total); `min(total, n)` of them.

    Raises:
        ValueError: `total` or `n` below 1.

    >>> uniform_indices(10, 4)
    [0, 3, 6, 9]
    >>> uniform_indices(3, 16)
    [0, 1, 2]
    """
    if total < 1 or n < 1:
        raise ValueError(f"uniform_indices needs total >= 1 and n >= 1, got {total} and {n}")
    if total <= n:
        return list(range(total))
    if n == 1:
        return [(total - 1) // 2]
    return [_round_ratio(i * (total - 1), n - 1) for i in range(n)]


def _round_ratio(numerator: int, denominator: int) -> int:
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and whole % 2 == 1):
        return whole + 1
    return whole


def smart_resize(
    height: int, width: int, *, factor: int = 28, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The size a picture is scaled to, by the rule of Qwen2-VL's processor, held to its budget.

    Sides are rounded to the nearest multiple of `factor` (half to even); above the budget both are scaled
    down by one ratio and floored, below `min_pixels` scaled up and ceiled. Where the original rule would pass
    `max_pixels` (very long pictures; a minimum that lies close to the maximum) the longer side is cut: the
    maximum always holds.

    Args:
        height: source height in pixels, upright.
        width: source width in pixels, upright.
        factor: both sides become multiples of it.
        min_pixels: pixels of the result at least, as far as `max_pixels` allows.
        max_pixels: pixels of the result at most; at least `factor ** 2`.

    Returns:
        `(height, width)`.

    Raises:
        MediaError: reason `media_too_large` when one side is more than 200 times the other.
        ValueError: a side, `factor` or a budget that allows no picture.

    >>> smart_resize(360, 640, min_pixels=4 * 28 * 28, max_pixels=128 * 28 * 28)
    (224, 420)
    """
    if min(height, width, factor) < 1 or max_pixels < factor * factor:
        raise ValueError(f"no size fits {height}x{width}, factor {factor}, at most {max_pixels} pixels")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise MediaError(
            f"{width}x{height} pixels: one side is more than {MAX_ASPECT} times the other",
            reason=RejectReason.MEDIA_TOO_LARGE,
        )
    tall, wide = _fit(height, width, factor, min_pixels, max_pixels)
    # The model's own processor applies the rule once more, and would refuse what rounding made too long.
    return min(tall, MAX_ASPECT * wide), min(wide, MAX_ASPECT * tall)


def _fit(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    tall = max(factor, round(height / factor) * factor)
    wide = max(factor, round(width / factor) * factor)
    if tall * wide > max_pixels:
        return _shrink(height, width, factor, max_pixels)
    if tall * wide < min_pixels:
        ratio = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * ratio / factor) * factor
        wide = math.ceil(width * ratio / factor) * factor
        if tall * wide > max_pixels:
            return _shrink(height, width, factor, max_pixels)
    return tall, wide


def _shrink(height: int, width: int, factor: int, max_pixels: int) -> tuple[int, int]:
    ratio = math.sqrt(height * width / max_pixels)
    tall = max(factor, math.floor(height / ratio / factor) * factor)
    wide = max(factor, math.floor(width / ratio / factor) * factor)
    # A side that was lifted to `factor` leaves less for the other one.
    if tall * wide > max_pixels:
        if wide >= tall:
            wide = max_pixels // tall // factor * factor
        else:
            tall = max_pixels // wide // factor * factor
    return tall, wide
