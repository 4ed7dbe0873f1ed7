"""Frames that the generator saw, and how far into the video the last of them lies."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from videop2r_data.cards.figures.counts import FigureData
from videop2r_data.cards.figures.text import Spread
from videop2r_data.plots import Look, new_figure, plain_axes, share, short_number, thousands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 24
_FEW = 12
"""So many different numbers of frames get a bar each; more are put into bins."""
_LABELLED = 8
"""So many bars carry their numbers."""
_WIDTHS = tuple(unit * 10**power for power in range(-1, 5) for unit in (1, 2, 5))


class MediaData(FigureData):
    """What the figure shows."""

    title = "Frames and durations"
    config: str
    frames: Spread
    frame_counts: dict[str, int]
    """Frames per row -> rows; `8-11` when they are put into bins."""
    seconds: Spread
    """Time of the last sampled frame of a video, in seconds; the video itself is a little longer."""
    bin_seconds: float
    """Width of a bin; 0 without a video."""
    seconds_counts: list[int]
    """Videos per bin, from 0 s on; the last bin takes all above."""
    above: int
    """Videos in the last bin because they are longer than its upper edge."""

    @classmethod
    def of(cls, config: str, frames: Counter[int], milliseconds: Counter[int]) -> MediaData:
        """From frames -> rows, and time of the last frame in ms -> videos."""
        binned = _in_bins(milliseconds, Spread.of(milliseconds, scale=1000))
        return cls(config=config, frames=Spread.of(frames), frame_counts=_few(frames), **binned)

    def caption(self) -> str:
        """One sentence for the card."""
        f, s = self.frames, self.seconds
        frames = f"{f.min:g}" if f.min == f.max else f"{f.min:g} to {f.max:g} (median {f.p50:g})"
        told = f"Frames that the generator saw: {frames} in {f.count:,} rows with media."
        if s.count:
            told += (
                f" The last of them lies at a median of {s.p50:.1f} s into the video (90 % within {s.p5:.1f} "
                f"to {s.p95:.1f} s, {s.count:,} videos): the lower bound of its duration that the rows hold."
            )
        return told

    def draw(self, look: Look) -> Figure:
        """Two panels; the second only when the times of videos differ."""
        videos = f"{self.seconds.count:,} of them videos"
        told = f"{self.frames.count:,} rows of {self.config} with sampled frames, {videos}"
        both = self.seconds.max > self.seconds.min
        if self.seconds.count and not both:
            told += f"; the last frame of each lies at {self.seconds.max:.1f} s"
        high = 2.3 if both else 1.25 if len(self.frame_counts) <= _LABELLED else 2
        figure = new_figure(self.title, told, look, high=high)
        ratios = [0.8, 1.2] if both else [1]
        panels = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios).flat
        _frames(panels[0], self, look)
        if both:
            _seconds(panels[1], self, look)
        return figure


def _few(frames: Counter[int]) -> dict[str, int]:
    if len(frames) <= _FEW:
        return {str(number): frames[number] for number in sorted(frames)}
    width = next(
        (w for w in (2, 4, 8, 16, 32, 64, 128, 256) if max(frames) // w < _FEW), max(frames) // _FEW + 1
    )
    found: Counter[int] = Counter()
    for number, rows in frames.items():
        found[number // width] += rows
    return {
        f"{max(1, at * width)}-{(at + 1) * width - 1}": found[at] for at in range(min(found), max(found) + 1)
    }


def _in_bins(milliseconds: Counter[int], spread: Spread) -> dict[str, Any]:
    """The fields of `MediaData` about videos; a long tail is cut at twice its p95."""
    if not spread.count:
        return {"seconds": spread, "bin_seconds": 0.0, "seconds_counts": [], "above": 0}
    top = spread.max if spread.max <= 2 * max(spread.p95, 0.1) else 2 * max(spread.p95, 0.1)
    width = next((w for w in _WIDTHS if top / w < BINS), top / BINS)
    bins = int(top / width) + 1
    counts, above = [0] * bins, 0
    for value, number in milliseconds.items():
        at = int(value / 1000 / width + 1e-9)
        counts[min(max(at, 0), bins - 1)] += number
        above += number if at >= bins else 0
    return {"seconds": spread, "bin_seconds": width, "seconds_counts": counts, "above": above}


def _frames(axes: Axes, data: MediaData, look: Look) -> None:
    counts = list(data.frame_counts.values())
    names = list(data.frame_counts)
    if len(counts) <= _LABELLED:
        plain_axes(axes, look, grid="", title="frames per row")
        axes.barh(range(len(counts)), counts, height=0.6, color=look.perception)
        for y, number in enumerate(counts):
            axes.annotate(
                f"{number:,}  {share(number, data.frames.count)}", (number, y), xytext=(4, 0), ha="left",
                textcoords="offset points", va="center_baseline", fontsize=7.8, color=look.muted,
            )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=look.ink)
        axes.set_ylim(max(len(counts), 3) - 0.5, -0.5)
        axes.set_xlim(0, max(counts) * 1.5)
        return
    plain_axes(axes, look, grid="y", title="frames per row")
    axes.bar(range(len(counts)), counts, width=0.8, color=look.perception)
    some = range(0, len(names), -(-len(names) // 4))  # so many that their labels do not touch
    axes.set_xticks(some, [names[at] for at in some])
    axes.set_ylim(0, max(counts) * 1.1)
    axes.set_xlabel("frames")
    axes.set_ylabel("rows")
    thousands(axes.yaxis, bins=4)


def _seconds(axes: Axes, data: MediaData, look: Look) -> None:
    from matplotlib.ticker import MaxNLocator

    plain_axes(axes, look, grid="y", title="time of the last sampled frame")
    edges = [data.bin_seconds * at for at in range(len(data.seconds_counts) + 1)]
    axes.stairs(data.seconds_counts, edges, fill=True, color=look.perception, linewidth=0)
    axes.axvline(
        min(data.seconds.p50, edges[-1]), color=look.reasoning, linewidth=1.4, linestyle=(0, (4, 1.2))
    )
    right = data.seconds.p50 < edges[-1] / 2
    axes.annotate(
        f"median {data.seconds.p50:.1f} s", (data.seconds.p50, 1), xycoords=("data", "axes fraction"),
        xytext=(4 if right else -4, -2), textcoords="offset points", ha="left" if right else "right",
        va="top", fontsize=8, color=look.ink,
    )  # fmt: skip
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(0, max(data.seconds_counts) * 1.22)
    more = f" (last bin: and more, {data.above:,} videos beyond it)" if data.above else ""
    axes.set_xlabel(f"seconds{more}")
    axes.set_ylabel("videos")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
    thousands(axes.yaxis, bins=4)
