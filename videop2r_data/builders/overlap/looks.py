"""What a clip looks like, small enough to hold many: for finding the same frames at the same times."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from videop2r_data.schemas import Frames, MediaSpec

LOOKS = MediaSpec(frames=128, fps=2.0, min_frames=8, max_pixels=96 * 96, min_pixels=1, factor=8)
"""Two frames a second, for a minute: enough that a part of a clip finds its place in it."""
GRID, CHROMA = 12, 4
"""Cells across and down: of brightness, and of each of the two colour differences."""
CELLS = GRID * GRID + 2 * CHROMA * CHROMA
ALIKE = 40.0
"""Distance of two clips up to which they can be the same: real clips that are not are at 60 and more."""
SAME, MOVING = 10.0, 0.75
"""Copies of a clip that stands still are at 7 at most; where frames lie between those of the other clip, its
own change from frame to frame comes on top, which is this much of a picture's distance to the middle of its
neighbours."""
RATIO = 0.4
"""A copy is so much nearer than the tenth nearest clip: before one fixed camera all clips look alike."""
CROWD = 10
_MARKED = 8.0
"""Bits of 64 in which a frame of a copy differs from the nearest one of the other clip, on average: at most
5 in copies, from 9 on in others."""
_NEAREST = 40
"""Clips that a clip is compared with frame by frame: of a crowd those of the nearest mean picture."""
_PROBES = 8
"""Frames of a clip whose marks are looked for."""
_SPREAD = 40.0
_PLAIN = 8.0
"""Standard deviation of the brightness of a frame, in grey levels of 256, below which it shows nothing."""
_SHARE = 0.5
"""Of the shorter clip's frames: so many must have their place in the longer one."""

Floats = npt.NDArray[np.float32]


class Look(NamedTuple):
    """Small pictures of a clip.

    Attributes:
        times: float32 [T], seconds.
        cells: uint8 [T, CELLS]: brightness and colour of the cells of each frame, its mean brightness taken
            away and its contrast made the same for all frames: brighter copies are copies.
    """

    times: Floats
    cells: npt.NDArray[np.uint8]


def look_of(frames: Frames) -> Look | None:
    """The look of what was sampled as arrays; frames that show nothing are left out. None: all of them."""
    assert frames.array is not None
    rgb = frames.array.astype(np.float32)
    red, green, blue = (rgb[..., at] for at in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601
    bright = _cells(luma, GRID)
    mean, deviation = bright.mean(axis=1, keepdims=True), bright.std(axis=1, keepdims=True)
    colour = [_cells(one, CHROMA) for one in (0.564 * (blue - luma), 0.713 * (red - luma))]
    scaled = np.concatenate([bright - mean, *colour], axis=1) * (_SPREAD / np.maximum(deviation, 1e-6))
    shows = deviation[:, 0] >= _PLAIN
    if not shows.any():
        return None
    cells = np.clip(np.rint(scaled[shows] + 128), 0, 255).astype(np.uint8)
    return Look(np.asarray(frames.record.times_s, np.float32)[shows], cells)


def _cells(planes: Floats, count: int) -> Floats:
    """Means over a grid of cells: [T, H, W] to [T, count * count]."""
    high, wide = planes.shape[1:]
    rows, columns = (np.arange(count) * side // count for side in (high, wide))
    sums = np.add.reduceat(np.add.reduceat(planes, rows, axis=1), columns, axis=2)
    sizes = np.outer(np.diff(rows, append=high), np.diff(columns, append=wide))
    return (sums / np.maximum(sizes, 1)).reshape(len(planes), -1).astype(np.float32)


def distance(one: Look, two: Look) -> tuple[float, float]:
    """How far two clips are from each other, where the shorter one lies best in the longer one.

    The distance of two frames is the largest difference of a cell; that of two clips the median over the
    frames that have a place in both. Between two frames of the longer clip a picture is interpolated.

    Returns:
        The distance, and where the second clip begins in the first (seconds, negative: before it).
    """
    swapped = two.times[-1] > one.times[-1]
    long, short = (two, one) if swapped else (one, two)
    length, span = float(long.times[-1]), float(short.times[-1])
    step = max(0.05, length / max(1, len(long.times) - 1)) / 2
    offsets = np.arange(-_SHARE * span, length - (1 - _SHARE) * span + 1e-6, step, dtype=np.float32)
    places = short.times[None] + offsets[:, None]
    inside = (places >= -step) & (places <= length + step)
    enough = inside.sum(axis=1) >= max(min(4, len(short.times)), _SHARE * len(short.times))
    if not enough.any():
        return float("inf"), 0.0
    apart = np.where(inside[enough], _frame_distances(long, short.cells, places[enough]), np.nan)
    found = np.nanmedian(apart, axis=1)
    best = int(found.argmin())
    offset = float(offsets[enough][best])
    return float(found[best]), -offset if swapped else offset


def limit(one: Look, two: Look) -> float:
    """The distance up to which two clips can be the same: more for one that changes fast."""
    cells = max(one, two, key=lambda look: float(look.times[-1])).cells.astype(np.float32)
    if len(cells) < 3:
        return SAME
    change = np.abs((cells[:-2] + cells[2:]) / 2 - cells[1:-1]).max(axis=1)
    return min(ALIKE, SAME + MOVING * float(np.median(change)))


def _frame_distances(long: Look, cells: npt.NDArray[np.uint8], places: Floats) -> Floats:
    """[offsets, frames]: of the frames of a short clip to the pictures of a long one at some times."""
    after = np.clip(np.searchsorted(long.times, places), 1, max(1, len(long.times) - 1))
    after = np.minimum(after, len(long.times) - 1)
    before = np.maximum(after - 1, 0)
    gap = np.maximum(long.times[after] - long.times[before], 1e-6)
    weight = np.clip((places - long.times[before]) / gap, 0, 1)[..., None]
    pictures = long.cells.astype(np.float32)
    shown = pictures[before] * (1 - weight) + pictures[after] * weight
    apart: Floats = np.abs(shown - cells).max(axis=-1)
    return apart


class Gallery:
    """The looks of many clips, of which those are found that show the same as another one.

    A clip takes 8 bytes a frame and 700 for its mean picture in here; looks are asked for when they are
    compared.

    Args:
        load: number of a clip -> its look; None if it has none.
        count: clips.
    """

    def __init__(self, load: Callable[[int], Look | None], count: int) -> None:
        self._load = load
        numbers, means, marks = array("l"), [], []
        for number in range(count):
            if (look := load(number)) is not None:
                numbers.append(number)
                means.append(look.cells.mean(axis=0, dtype=np.float32))
                marks.append(_marks(look.cells))
        self._numbers = np.asarray(numbers)
        self._means = np.array(means).reshape(-1, CELLS)
        self._marks = np.concatenate([np.zeros(0, np.uint64), *marks])
        self._starts = np.cumsum([0, *map(len, marks)])[:-1]

    def copies(self, look: Look) -> list[tuple[int, float, float]]:
        """The clips that show the same: number, distance, where `look` begins in it; the nearest first."""
        found = []
        for number in self._near(look):
            other = self._load(number)
            assert other is not None
            found.append((*distance(other, look), number, limit(other, look)))
        found.sort()
        crowded = RATIO * found[CROWD - 1][0] if len(found) > CROWD else ALIKE
        return [
            (number, apart, offset) for apart, offset, number, most in found if apart <= min(most, crowded)
        ]

    def _near(self, look: Look) -> list[int]:
        """Numbers of the clips that may show the same."""
        if not len(self._numbers):
            return []
        probes = look.cells[np.linspace(0, len(look.cells) - 1, min(_PROBES, len(look.cells))).astype(int)]
        bits = np.zeros(len(self._numbers), np.int64)
        for mark in _marks(probes):
            bits += np.minimum.reduceat(np.bitwise_count(self._marks ^ mark), self._starts)
        near = np.flatnonzero(bits <= _MARKED * len(probes))
        if len(near) > _NEAREST:
            mean = look.cells.mean(axis=0, dtype=np.float32)
            apart = ((self._means[near] - mean) ** 2).sum(axis=1)
            near = near[np.argsort(apart, kind="stable")[:_NEAREST]]
        return [int(self._numbers[at]) for at in near]


def _marks(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64 bits of each frame: which of 8 x 8 cells are brighter than its mean."""
    at = (np.arange(8) * GRID + GRID // 2) // 8
    bright = cells[:, : GRID * GRID].reshape(-1, GRID, GRID)[:, at][:, :, at] > 128
    return np.packbits(bright.reshape(len(cells), 64), axis=1).view(np.uint64)[:, 0]
