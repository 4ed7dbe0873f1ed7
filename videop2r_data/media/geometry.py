"""Which frames of a clip, how large and which way up: what decides the pixels that a model sees."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from videop2r_data.errors import MediaError
from videop2r_data.media.timing import Timing
from videop2r_data.schemas import WHOLE, ClipPart, Focus, MediaLimits, MediaSpec, RejectReason

if TYPE_CHECKING:
    import numpy as np
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray


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
    return [round(Fraction(i * (total - 1), n - 1)) for i in range(n)]


TimingOf = Callable[[Sequence[int]], Timing]
"""Times of some shown frames of one clip, by their indices."""
Choice = tuple[list[int], ClipPart | None]
"""Rising indices of the frames to take, in the whole clip, and the part of it that they were taken from."""


def choose(spec: MediaSpec, focus: Focus, total: int, timing_of: TimingOf, path: Path) -> Choice:
    """Choose among the `total` shown frames of a clip; times are asked for only where they are needed: of a
    long clip they take a while.

    Raises:
        MediaError: `media_outside`.
    """
    if focus.part == WHOLE.part:
        seconds = None if spec.fps is None else timing_of(()).duration_s
        return uniform_indices(total, frame_count(spec, total, seconds)), None
    part = part_of(focus, timing_of(range(total)), path)
    count = frame_count(spec, part.frames, part.end_s - part.start_s)
    return [part.first + at for at in uniform_indices(part.frames, count)], part


def frame_count(spec: MediaSpec, total: int, seconds: float | None) -> int:
    """How many frames are taken of a clip, or of a part of one, with so many shown frames and seconds (None:
    not known, so that `frames` are taken at any rate).

    With `spec.fps`: `seconds * fps`, at least `min_frames` (rounded up to an even number), at most `frames`
    and `total`, and then rounded down to an even number; the product counts to 5 decimals, so that a
    whole number is one. That is the rule of qwen-vl-utils 0.0.14 (`smart_nframes`) with the duration of the
    clip in the place of `total / average rate`. A single frame counts as one.

    >>> spec = MediaSpec(frames=16, fps=2.0)
    >>> [frame_count(spec, round(25 * s), s) for s in (0.08, 1.0, 3.7, 60.0)]
    [2, 4, 6, 16]
    """
    if spec.fps is None or seconds is None:
        return spec.frames
    at_rate = max(round(seconds * spec.fps, 5), _even(spec.min_frames + 1))
    return max(1, _even(min(at_rate, spec.frames, total)))


def _even(number: float) -> int:
    return int(number // 2) * 2


def part_of(focus: Focus, every: Timing, path: Path) -> ClipPart:
    """The frames of a part: those with `start_s <= t <= end_s`, t and the bounds to 6 decimals; `every` has
    the times of all shown frames.

    A frame that begins before the part and is still on screen in it is not one of them; it stands for the
    part where no frame begins in it.

    Raises:
        MediaError: `media_outside`: the part begins when the clip has ended, or the clip has no times.
    """
    times = every.times_s
    clip_end = max(times[-1], every.duration_s or 0.0)
    start_s = round(focus.start_s or 0.0, 6)
    end_s = round(clip_end if focus.end_s is None else focus.end_s, 6)
    named = f"the part from {start_s:g} s" + ("" if focus.end_s is None else f" to {end_s:g} s")
    if every.kind == "assumed" and every.duration_s is None:
        message = f"{named} cannot be found: the clip has neither timestamps nor a frame rate"
        raise media_error(RejectReason.MEDIA_OUTSIDE, message, path)
    if start_s >= clip_end and start_s > 0:
        message = f"{named} lies outside of the clip, which ends at {clip_end:g} s"
        raise media_error(RejectReason.MEDIA_OUTSIDE, message, path)
    low, high = bisect_left(times, start_s), bisect_right(times, end_s)
    if low >= high:
        low, high = max(0, low - 1), max(1, low)
    return ClipPart(
        start_s=start_s,
        end_s=min(end_s, clip_end),
        first=low,
        frames=high - low,
        beyond_s=round(max(0.0, end_s - clip_end), 6),
    )


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
    if tall * wide < min_pixels and tall * wide <= max_pixels:
        ratio = math.sqrt(min_pixels / (height * width))
        tall = math.ceil(height * ratio / factor) * factor
        wide = math.ceil(width * ratio / factor) * factor
    if tall * wide <= max_pixels:
        return tall, wide
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


def fitted(height: int, width: int, spec: MediaSpec, max_pixels: int | None = None) -> tuple[int, int]:
    """`smart_resize` by the settings, `(height, width)`; `max_pixels`: instead of the budget of a frame."""
    most = max_pixels or spec.max_pixels
    return smart_resize(height, width, factor=spec.factor, min_pixels=spec.min_pixels, max_pixels=most)


def media_error(reason: RejectReason, message: str, path: Path) -> MediaError:
    """A `MediaError` that names the file."""
    return MediaError(message, reason=reason, where=str(path))


def check_size(width: int, height: int, path: Path, limits: MediaLimits) -> None:
    """Refuse pictures past the limits. A size of 0 means that the header does not say.

    Raises:
        MediaError: `media_too_large`.
    """
    message = ""
    if max(width, height) > limits.max_side:
        message = f"{width}x{height} pixels, limits.max_side allows {limits.max_side}"
    elif min(width, height) > 0 and max(width, height) > MAX_ASPECT * min(width, height):
        message = f"{width}x{height} pixels: one side is more than {MAX_ASPECT} times the other"
    if message:
        raise media_error(RejectReason.MEDIA_TOO_LARGE, message, path)


# What every sampler returns.


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sampler took out of a clip.

    Attributes:
        array: uint8 [T, H, W, 3], RGB, upright.
        indices: T, display order.
        timing: of the sampled frames, and of the whole clip.
        total: frames that the clip shows.
        source: height and width of the source, upright, pixels.
        sampler: name and version of the sampler.
        missing: share of the clip that is not there or does not decode.
        part: of the clip, that the frames were taken from; None: the whole clip.
    """

    array: NDArray[np.uint8]
    indices: tuple[int, ...]
    timing: Timing
    total: int
    source: tuple[int, int]
    sampler: str
    missing: float = 0.0
    part: ClipPart | None = None


def frames_digest(array: NDArray[np.uint8]) -> str:
    """sha256 of `T,H,W,3;` followed by the pixels in C order: 64 hexadecimal digits.

    Args:
        array: uint8 [T, H, W, 3], RGB.
    """
    import numpy as np

    shape = ",".join(str(n) for n in array.shape) + ";"
    state = hashlib.sha256(shape.encode())
    state.update(np.ascontiguousarray(array, dtype=np.uint8).data)
    return state.hexdigest()


# From a clip's display matrix to the turn that makes it upright: what ffmpeg and ffplay do with it.
#
# The matrix can turn and mirror. The angle alone says nothing of a mirror: read as a turn, a picture mirrored
# left to right would come out upside down.


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: mirrored left to right first, then turned.

    Attributes:
        turns: counter-clockwise quarter turns, 0 to 3.
        mirrored: columns are reversed before.
    """

    turns: int = 0
    mirrored: bool = False

    def sides(self, frame: VideoFrame) -> tuple[int, int]:
        """Height and width of the upright picture."""
        return (frame.width, frame.height) if self.turns % 2 else (frame.height, frame.width)


def orientation_of(matrix: tuple[int, ...] | None) -> Orientation:
    """The nearest quarter turn, and the mirror, of a display matrix.

    Args:
        matrix: its 9 numbers `a b u c d v x y w`; None: there is none.

    >>> orientation_of((0, 65536, 0, -65536, 0, 0, 0, 0, 2**30))
    Orientation(turns=3, mirrored=False)
    >>> orientation_of((-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30))
    Orientation(turns=0, mirrored=True)
    """
    if matrix is None:
        return Orientation()
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across == 0 or down == 0:
        return Orientation()  # Not a picture plane: such a matrix says nothing.
    clockwise = round(math.degrees(math.atan2(b / down, a / across)) / 90) % 4
    if clockwise == 1:
        return Orientation(1, True) if c > 0 else Orientation(3)
    if clockwise == 3:
        return Orientation(3, True) if c < 0 else Orientation(1)
    left_right, up_down = clockwise == 2 and a < 0, d < 0
    # Upside down is mirrored left to right and then turned by half.
    return Orientation(2 if up_down else 0, left_right != up_down)


def frame_orientation(frame: VideoFrame) -> Orientation:
    """How a decoded frame becomes upright: PyAV does not turn it."""
    import numpy as np
    from av.sidedata.sidedata import Type

    try:
        found = frame.side_data
    except ValueError:  # one kind that PyAV does not know, such as EXIF or a view of stereo, hides all others
        return Orientation(round(frame.rotation / 90) % 4)
    for at in range(len(found)):
        data = cast("SideData", found[at])  # type: ignore[literal-required]
        if data.type == Type.DISPLAYMATRIX:
            numbers = np.frombuffer(memoryview(data), dtype=np.int32)
            return orientation_of(tuple(numbers[:9].tolist()) if len(numbers) >= 9 else None)
    return Orientation()


# Decoded frames into RGB arrays: scaled, converted, upright.


_PLANES = (2, 0, 1)
"""Where R, G and B lie in a `gbrp` frame."""


class Scaler:
    """Turns decoded frames into one uint8 [T, H, W, 3] RGB array, whose size the first converted frame fixes.

    Bicubic, in the exact variants of swscale: the same pixels with and without vector instructions. Planar
    RGB is asked for: swscale then interpolates colour in full, in half the time that packed RGB takes.

    Args:
        spec: pixel budget, factor and limits.
        count: T, frames to come.
        path: for error messages.
    """

    def __init__(self, spec: MediaSpec, count: int, path: Path) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._spec, self._path, self._count = spec, path, count
        self._reformatter = VideoReformatter()
        self._how = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
        self._array: NDArray[np.uint8] | None = None
        self.upright = Orientation()
        self.source: tuple[int, int] = (0, 0)
        """Height and width of the source, upright."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """What was converted so far: uint8 [T, H, W, 3], RGB, upright."""
        assert self._array is not None, "no frame was converted"
        return self._array

    def put(self, slot: int, frame: VideoFrame) -> None:
        """Convert one frame into place `slot` of the array.

        Raises:
            MediaError: `media_too_large` for the first frame's size.
        """
        import numpy as np

        if self._array is None:
            self.look(frame)
            self._array = np.empty((self._count, *fitted(*self.source, self._spec), 3), dtype=np.uint8)
        # A view in the stored orientation: what is written to it stands upright in the array.
        target = np.rot90(self._array[slot], -self.upright.turns)
        if self.upright.mirrored:
            target = target[:, ::-1]
        height, width = target.shape[:2]
        planar = self._reformatter.reformat(
            frame, width=width, height=height, format="gbrp", interpolation=self._how, threads=1
        )
        for channel, at in enumerate(_PLANES):
            plane = planar.planes[at]
            rows = np.frombuffer(memoryview(plane), dtype=np.uint8)[: height * plane.line_size]
            target[:, :, channel] = rows.reshape(height, plane.line_size)[:, :width]

    def look(self, frame: VideoFrame) -> None:
        """Take size and orientation of the source from one of its frames.

        Raises:
            MediaError: `media_too_large`.
        """
        check_size(frame.width, frame.height, self._path, self._spec.limits)
        self.upright = frame_orientation(frame)
        self.source = self.upright.sides(frame)
