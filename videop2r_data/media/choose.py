"""Which frames of a clip are taken: those of its part that a question is about, uniformly spaced."""

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
    if focus == WHOLE:
        return Choice(uniform_indices(total, spec.frames))
    part = part_of(focus, timing_of(range(total)), path)
    return Choice([part.first + at for at in uniform_indices(part.frames, spec.frames)], part)


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
