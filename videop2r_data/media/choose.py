"""Which frames of a clip are taken: so many, or so many a second, of the part that a question is about."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from videop2r_data.media.geometry import media_error, uniform_indices
from videop2r_data.media.timing import Timing
from videop2r_data.schemas import WHOLE, ClipPart, Focus, MediaSpec, RejectReason

TimingOf = Callable[[Sequence[int]], Timing]
"""Times of some shown frames of one clip, by their indices."""


class Choice(NamedTuple):
    """The frames to take.

    Attributes:
        indices: in the display order of the whole clip, rising.
        part: what they were taken from; None: the whole clip.
    """

    indices: list[int]
    part: ClipPart | None = None


def choose(spec: MediaSpec, focus: Focus, total: int, timing_of: TimingOf, path: Path) -> Choice:
    """Choose among the shown frames of a clip.

    Args:
        spec: how many.
        focus: the part that the question is about.
        total: shown frames of the whole clip, at least 1.
        timing_of: asked for times only where they are needed: of a long clip they take a while.
        path: for error messages.

    Raises:
        MediaError: `media_outside`.
    """
    if focus.part == WHOLE.part:
        seconds = None if spec.fps is None else timing_of(()).duration_s
        return Choice(uniform_indices(total, frame_count(spec, total, seconds)))
    part = part_of(focus, timing_of(range(total)), path)
    count = frame_count(spec, part.frames, part.end_s - part.start_s)
    return Choice([part.first + at for at in uniform_indices(part.frames, count)], part)


def frame_count(spec: MediaSpec, total: int, seconds: float | None) -> int:
    """How many frames are taken of a clip, or of a part of one.

    With `spec.fps`: `seconds * fps`, at least `min_frames` (rounded up to an even number), at most `frames`
    and `total`, and then rounded down to an even number; the product counts to 5 decimals, so that a
    whole number is one. That is the rule of qwen-vl-utils 0.0.14 (`smart_nframes`) with the duration of the
    clip in the place of `total / average rate`. A single frame counts as one.

    Args:
        spec: sampling settings.
        total: shown frames of it.
        seconds: its duration; None: not known, so that `frames` are taken at any rate.

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
    """The frames of a part: those with `start_s <= t <= end_s`, t and the bounds to 6 decimals.

    A frame that begins before the part and is still on screen in it is not one of them; it stands for the
    part where no frame begins in it.

    Args:
        focus: the part.
        every: times of all shown frames.
        path: for error messages.

    Raises:
        MediaError: `media_outside`: the part begins when the clip has ended, or the clip has no times.
    """
    times = every.times_s
    clip_end = max(times[-1], every.duration_s or 0.0)
    start_s, end_s = (
        round(focus.start_s or 0.0, 6),
        round(clip_end if focus.end_s is None else focus.end_s, 6),
    )
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
