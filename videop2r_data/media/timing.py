"""When each frame is shown, from timestamps rather than from what a header claims."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def timing(
    pts: Sequence[int | None],
    time_base: Fraction | None,
    rate: Fraction | None,
    last_duration: int,
) -> tuple[list[float], float | None, float | None]:
    """Times of the shown frames, average fps and duration, from timestamps rather than from the header.

    Args:
        pts: of every shown frame, in display order; may have holes or run in decode order (AVI).
        time_base: seconds per unit of `pts`.
        rate: frames per second that the header claims; used only where timestamps are of no use.
        last_duration: of the frame shown last, in units of `pts`; 0 = unknown.

    Returns:
        `(times, fps, duration)`: seconds from the first frame, rounded to 6 decimals; frames per second or
        None; seconds or None.
    """
    known = sorted({p for p in pts if p is not None})
    if time_base is None or len(known) != len(pts):
        step = 1 / rate if rate else None
        # Without timestamps and without a rate nothing is known but the order: one second apart.
        times = [round(float(i * (step or 1)), 6) for i in range(len(pts))]
        return times, _round(rate), None if step is None else round(float(len(pts) * step), 6)
    times = [round(float((p - known[0]) * time_base), 6) for p in known]
    span = (known[-1] - known[0]) * time_base
    if len(known) == 1:
        only = last_duration * time_base if last_duration > 0 else None
        return times, _round(rate), None if only is None else round(float(only), 6)
    mean = span / (len(known) - 1)
    end = last_duration * time_base
    if not mean / 10 <= end <= mean * 10:
        end = mean  # Absent, or made up by a demuxer that knows no rate.
    return times, round(float((len(known) - 1) / span), 6), round(float(span + end), 6)


def _round(rate: Fraction | None) -> float | None:
    return round(float(rate), 6) if rate else None
