"""When each frame is shown: from the container's timestamps, mended where they are broken.

Timestamps are kept as they are when they rise from frame to frame. A stamp that is absent, doubled or out of
line with both its neighbours is put between them; where the clock starts anew (joined recordings) or jumps
(MPEG transport streams), what follows goes on one frame later. Only when too little is left to go by are
times counted from a frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from videop2r_data.schemas import TimesKind

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_NO_TIMESTAMPS = 0x80
_MAY_JUMP = 0x200
"""`AVFMT_NOTIMESTAMPS` and `AVFMT_TS_DISCONT` of the demuxer."""
_JUMP_S = 10
"""Longest pause that a format with discontinuities is believed, as ffmpeg does."""
_SANE_FPS = 500
_ASSUMED_FPS = Fraction(25)
"""What players take for a raw stream that states no rate."""
_IN_DECODE_ORDER = "avi"
_REORDERED = 32
"""Places between decoding and display order of a packet, at most: encoders stay at 16 or below."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What a container says of its timestamps.

    Attributes:
        time_base: seconds per unit; None: none.
        rate: frames per second that the header claims, if sane.
        stamped: frames carry timestamps at all; False for raw streams, whose demuxer counts.
        may_jump: the format allows the clock to be set anew in the middle (MPEG-TS, MPEG-PS, Ogg).
        in_decode_order: packets are numbered as they are stored (AVI): the set of times is right, their
            order is not.
    """

    time_base: Fraction | None
    rate: Fraction | None
    stamped: bool = True
    may_jump: bool = False
    in_decode_order: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of some shown frames, average rate and duration of all.

    Attributes:
        times_s: seconds from the first shown frame, to 6 decimals.
        fps: frames per second, or None.
        duration_s: seconds to the end of the last frame, or None.
        kind: where the times come from; None for pictures.
    """

    times_s: tuple[float, ...]
    fps: float | None = None
    duration_s: float | None = None
    kind: TimesKind | None = None


def clock_of(container: InputContainer, stream: VideoStream) -> Clock:
    """What an open container says of the timestamps of its chosen stream."""
    flags = int(container.format.flags)
    stamped = not flags & _NO_TIMESTAMPS
    # FLV headers claim 1000 frames per second.
    rates = (r for r in (stream.average_rate, stream.guessed_rate) if r is not None and 0 < r < _SANE_FPS)
    return Clock(
        stream.time_base,
        next(rates, None if stamped else _ASSUMED_FPS),
        stamped,
        bool(flags & _MAY_JUMP),
        _IN_DECODE_ORDER in container.format.name.split(","),
    )


def display_order(pts: Sequence[int | None], keys: Sequence[bool], clock: Clock) -> list[int] | None:
    """Positions in the order that the timestamps give; None where they give none.

    They give one when each frame has a stamp of its own, key frames follow each other in time, and no frame
    stands farther from its place than codecs reorder: a clock that is set back between two key frames, or one
    wild stamp, would else show the end of a clip before its beginning.
    """
    known = [p for p in pts if p is not None]
    if not clock.stamped or clock.in_decode_order or len(known) != len(pts) or len(set(known)) != len(pts):
        return None
    if not _rising([p for p, key in zip(known, keys, strict=True) if key]):
        return None
    order = sorted(range(len(known)), key=known.__getitem__)
    return order if all(abs(at - place) <= _REORDERED for place, at in enumerate(order)) else None


def timing(pts: Sequence[int | None], indices: Sequence[int], clock: Clock, last_duration: int = 0) -> Timing:
    """Times of some shown frames, average fps and duration of all.

    Args:
        pts: of every shown frame, in display order; may have holes.
        indices: the frames whose times are wanted.
        clock: what the container says of its timestamps.
        last_duration: of the frame shown last, in units of `pts`; 0 = unknown.

    >>> from fractions import Fraction
    >>> made = timing([0, 40, 80, 160], [0, 3], Clock(Fraction(1, 1000), None), 40)
    >>> made.times_s, made.fps, made.duration_s, made.kind
    ((0.0, 0.16), 18.75, 0.2, 'exact')
    """
    stamps, kind = _stamps(pts, clock)
    if stamps is None or clock.time_base is None:
        # Neither timestamps nor a rate: only the order is known, and frames count as one second apart.
        step = 1 / clock.rate if clock.rate else Fraction(1)
        times = tuple(round(float(i * step), 6) for i in indices)
        duration = round(float(len(pts) * step), 6) if clock.rate else None
        return Timing(times, _round(clock.rate), duration, "assumed")
    base = clock.time_base
    times = tuple(round(float((stamps[i] - stamps[0]) * base), 6) for i in indices)
    end = last_duration * base
    if len(stamps) == 1:
        return Timing(times, _round(clock.rate), round(float(end), 6) if end > 0 else None, kind)
    span = (stamps[-1] - stamps[0]) * base
    mean = span / (len(stamps) - 1)
    if not mean / 10 <= end <= mean * 10:
        end = mean  # Absent, or made up by a demuxer that knows no rate.
    return Timing(times, round(float(1 / mean), 6), round(float(span + end), 6), kind)


def _stamps(pts: Sequence[int | None], clock: Clock) -> tuple[Sequence[Fraction | int] | None, TimesKind]:
    """Strictly rising stamps of all frames, and where they come from; None: the rate is all there is."""
    known = [p for p in pts if p is not None]
    if not clock.stamped or clock.time_base is None or not known:
        return None, "assumed"
    if clock.in_decode_order:
        known = sorted(set(known))
    far = _JUMP_S / clock.time_base if clock.may_jump else None
    if len(known) == len(pts) and _rising(known) and not _jumps(known, far):
        return known, "exact"
    if clock.in_decode_order:
        return None, "assumed"
    step = _usual_step(known, far)
    if step is None:
        return None, "assumed"
    placed = _placed(pts, step, far)
    if 2 * sum(p is not None for p in placed) < len(pts):
        return None, "assumed"
    return _filled(placed, step), "repaired"


def _rising(stamps: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(stamps))


def _jumps(stamps: Sequence[int], far: Fraction | None) -> bool:
    return far is not None and any(b - a > far for a, b in pairwise(stamps))


def _usual_step(stamps: Sequence[int], far: Fraction | None) -> int | None:
    """The middle one of all forward steps; None: there is no step to learn from."""
    steps = sorted(b - a for a, b in pairwise(stamps) if b > a and (far is None or b - a <= far))
    return steps[(len(steps) - 1) // 2] if steps else None


def _placed(pts: Sequence[int | None], step: int, far: Fraction | None) -> list[int | None]:
    """Stamps on one rising line; None where a frame's own stamp is of no use."""
    following = _next_known(pts)
    placed: list[int | None] = []
    last: int | None = None
    shift = frames = 0
    for at, stamp in enumerate(pts):
        frames += 1
        if stamp is None:
            placed.append(None)
            continue
        if last is not None:
            after = following[at]
            ahead = stamp + shift - last
            jumped = ahead < 0 or (far is not None and ahead > far)
            gain = 0 if after is None else after + shift - last
            back_in_line = gain > 0 and (far is None or gain <= far)
            # It runs ahead of the stamp behind it, which itself fits the one before.
            outlier = ahead > 2 * step and after is not None and last - shift < after < stamp
            if ahead == 0 or (ahead < 0 and back_in_line) or outlier:
                placed.append(None)
                continue
            if jumped:
                shift = last + frames * step - stamp
        last, frames = stamp + shift, 0
        placed.append(last)
    return placed


def _next_known(pts: Sequence[int | None]) -> list[int | None]:
    out: list[int | None] = []
    after: int | None = None
    for stamp in reversed(pts):
        out.append(after)
        after = stamp if stamp is not None else after
    return out[::-1]


def _filled(placed: list[int | None], step: int) -> list[Fraction]:
    """Missing stamps interpolated between their neighbours; at the ends one step apart."""
    known = [at for at, stamp in enumerate(placed) if stamp is not None]
    out = [Fraction(stamp or 0) for stamp in placed]
    first, last = known[0], known[-1]
    for at in range(first):
        out[at] = out[first] - (first - at) * step
    for at in range(last + 1, len(placed)):
        out[at] = out[last] + (at - last) * step
    for low, high in pairwise(known):
        for at in range(low + 1, high):
            out[at] = out[low] + (out[high] - out[low]) * Fraction(at - low, high - low)
    return out


def _round(rate: Fraction | None) -> float | None:
    return round(float(rate), 6) if rate else None
