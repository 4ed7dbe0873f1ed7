"""When each frame is shown, from timestamps rather than from what a header claims."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def timing(
    pts: Sequence[int | None],
    indices: Sequence[int],
    time_base: Fraction | None,
    rate: Fraction | None,
    last_duration: int,
) -> tuple[tuple[float, ...], float | None, float | None]:
    """Times of some shown frames, average fps and duration of all.

    Args:
        pts: of every shown frame, in display order; may have holes or run in decode order (AVI).
        indices: the frames whose times are wanted.
        time_base: seconds per unit of `pts`.
        rate: frames per second that the header claims; used only where timestamps are of no use.
        last_duration: of the frame shown last, in units of `pts`; 0 = unknown.

    Returns:
        `(times, fps, duration)`: seconds from the first frame, one per index, rounded to 6 decimals; frames
        per second or None; seconds or None.

    >>> from fractions import Fraction
    >>> timing([0, 40, 80, 160], [0, 3], Fraction(1, 1000), None, 40)
    ((0.0, 0.16), 18.75, 0.2)
    """
    known = sorted({p for p in pts if p is not None})
    if time_base is None or len(known) != len(pts):
        # Without timestamps and without a rate nothing is known but the order: one second apart.
        step = 1 / rate if rate else 1
        times = tuple(round(float(i * step), 6) for i in indices)
        return times, _round(rate), round(float(len(pts) * step), 6) if rate else None
    times = tuple(round(float((known[i] - known[0]) * time_base), 6) for i in indices)
    span = (known[-1] - known[0]) * time_base
    end = last_duration * time_base
    if len(known) == 1:
        return times, _round(rate), round(float(end), 6) if end > 0 else None
    mean = span / (len(known) - 1)
    if not mean / 10 <= end <= mean * 10:
        end = mean  # Absent, or made up by a demuxer that knows no rate.
    return times, round(float(1 / mean), 6), round(float(span + end), 6)


def _round(rate: Fraction | None) -> float | None:
    return round(float(rate), 6) if rate else None
