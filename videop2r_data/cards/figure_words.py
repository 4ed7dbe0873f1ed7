"""How long perception and reasoning are: histograms of all rows, and spreads by modality, type and source."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from videop2r_data.cards.figure_table import MOST, problem_types
from videop2r_data.cards.stats_text import Spread
from videop2r_data.plots.frame import label, new_figure, plain_axes, short_number, thousands
from videop2r_data.plots.palette import Look, mix
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 48
SOURCES = 12
"""Sources that get a line; they are the most frequent."""
_WIDTHS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500)


class Histogram(Model):
    """Counts in equal bins; the last bin takes all that is longer."""

    spread: Spread
    edges: list[int]
    """Lower edge of each bin, in words."""
    counts: list[int]
    above: int
    """Texts in the last bin because they are longer than its upper edge."""


class WordsData(Model):
    """What the figure shows."""

    config: str
    bin_width: int
    """Words."""
    perception: Histogram
    reasoning: Histogram

    @classmethod
    def of(cls, config: str, perception: Counter[int], reasoning: Counter[int]) -> WordsData:
        """From length in words -> texts, of both processes; both get the same bins."""
        spreads = Spread.of(perception), Spread.of(reasoning)
        top = max(_top(perception), _top(reasoning))
        width = next((w for w in _WIDTHS if top / w <= BINS), math.ceil(top / BINS))
        bins = int(top // width) + 1
        return cls(
            config=config,
            bin_width=width,
            perception=_histogram(perception, spreads[0], width, bins),
            reasoning=_histogram(reasoning, spreads[1], width, bins),
        )


def _top(lengths: Counter[int]) -> float:
    """Where the axis ends: the longest text, unless a few are far longer than nearly all others."""
    found = Counter(lengths)
    whole, below = found.total(), 0
    for value in sorted(found):
        below += found[value]
        if below >= 0.995 * whole:
            longest = max(found)
            return float(longest if longest <= 1.5 * max(value, 1) else value)
    return 0.0


def _histogram(lengths: Counter[int], spread: Spread, width: int, bins: int) -> Histogram:
    counts = [0] * bins
    above = 0
    for length, number in lengths.items():
        counts[min(length // width, bins - 1)] += number
        above += number if length // width >= bins else 0
    return Histogram(spread=spread, edges=[width * i for i in range(bins)], counts=counts, above=above)


def words_caption(data: WordsData) -> str:
    """One sentence for the card."""
    p, r = data.perception.spread, data.reasoning.spread
    return (
        f"Words of perception and reasoning in `{data.config}`: perception has a median of {p.p50:g} words "
        f"(90 % of rows: {p.p5:g} to {p.p95:g}), reasoning {r.p50:g} ({r.p5:g} to {r.p95:g})."
    )


def draw_words(data: WordsData, look: Look) -> Figure:
    """Both histograms over one axis, with their medians."""
    rows = max(data.perception.spread.count, data.reasoning.spread.count)
    told = f"words per text in {rows:,} rows of {data.config}; bins of {data.bin_width}"
    figure = new_figure("Length of perception and reasoning", told, look, high=2.35)
    axes = figure.subplots()
    plain_axes(axes, look, grid="y")
    parts = (
        ("perception", data.perception, look.perception, "-"),
        ("reasoning", data.reasoning, look.reasoning, (0, (4, 1.2))),
    )
    for name, part, colour, dashes in parts:
        s = part.spread
        if not s.count:
            continue
        counts, edges = _trimmed(part, data.bin_width)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
        axes.stairs(
            counts, edges, color=colour, linewidth=1.5, linestyle=dashes,
            label=f"{name}: median {s.p50:g}, 90 % within {s.p5:g} to {s.p95:g}",
        )  # fmt: skip
    _medians(axes, parts, look)
    axes.set_xlim(0, data.perception.edges[-1] + data.bin_width)
    axes.set_ylim(0, max(1, *data.perception.counts, *data.reasoning.counts) * 1.14)
    thousands(axes.yaxis, bins=4)
    axes.set_xlabel(_axis(data))
    axes.set_ylabel("rows")
    figure.legend(
        loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, labelcolor=look.ink, handlelength=2.2,
        columnspacing=2.2, borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _trimmed(part: Histogram, width: int) -> tuple[list[int], list[int]]:
    """Counts and edges without the empty bins at both ends."""
    used = [at for at, count in enumerate(part.counts) if count]
    low, high = used[0], used[-1]
    return part.counts[low : high + 1], [*part.edges[low : high + 1], part.edges[high] + width]


def _axis(data: WordsData) -> str:
    above = data.perception.above + data.reasoning.above
    return f"words (last bin: and more, {above:,} texts beyond it)" if above else "words"


def _medians(axes: Axes, parts: tuple[Any, ...], look: Look) -> None:
    for _, part, colour, dashes in parts:
        if part.spread.count:
            x = min(part.spread.p50, part.edges[-1])
            axes.axvline(x, color=mix(colour, look.ink, 0.25), linewidth=1.1, linestyle=dashes, alpha=0.9)


class GroupsData(Model):
    """What the figure shows."""

    config: str
    groups: dict[str, dict[str, Spread]]
    """`data/…`, `type/…`, `source/…` -> `perception` and `reasoning` -> words."""
    sources_left_out: int

    @classmethod
    def of(cls, config: str, perception: dict[str, Spread], reasoning: dict[str, Spread]) -> GroupsData:
        """From the groups of `Stats`; of the sources the most frequent."""
        empty = Spread()
        names = list(dict.fromkeys([*perception, *reasoning]))
        sources = [n for n in names if n.startswith("source/")]
        types = {n.partition("/")[2]: 1 for n in names if n.startswith("type/")}
        kept = [n for n in names if n.startswith("data/")][:MOST]
        kept += [f"type/{kind}" for kind in problem_types({"": types})[:MOST]] + sources[:SOURCES]
        found = {
            n: {"perception": perception.get(n, empty), "reasoning": reasoning.get(n, empty)} for n in kept
        }
        return cls(
            config=config,
            groups={n: both for n, both in found.items() if any(s.count for s in both.values())},
            sources_left_out=max(0, len(sources) - SOURCES),
        )


def groups_caption(data: GroupsData) -> str:
    """One sentence for the card."""
    rest = f" ({data.sources_left_out} further sources are not shown)" if data.sources_left_out else ""
    return (
        "Words of perception and reasoning by modality, problem type and source: median, the middle half "
        f"(thick) and the middle 90 % (thin){rest}."
    )


def draw_groups(data: GroupsData, look: Look) -> Figure:
    """A line per group, perception above reasoning; groups of a kind stand together."""
    blocks = {
        head: [(n.partition("/")[2], both) for n, both in data.groups.items() if n.startswith(f"{key}/")]
        for key, head in (("data", "modality"), ("type", "problem type"), ("source", "source"))
    }
    blocks = {head: lines for head, lines in blocks.items() if lines}
    heights = [len(lines) for lines in blocks.values()]
    told = f"words per text in {data.config}: median (dot), middle half (thick), middle 90 % (thin)"
    high = 0.25 * sum(heights) + 0.31 * len(heights) + 0.6
    figure = new_figure("Length by modality, problem type and source", told, look, high=high)
    grid = figure.subplots(len(blocks), 1, sharex=True, squeeze=False, height_ratios=heights)
    for axes, (head, lines) in zip(grid.flat, blocks.items(), strict=True):
        _block(axes, head, lines, look)
    grid.flat[-1].set_xlim(left=0)
    grid.flat[-1].xaxis.set_major_formatter(lambda value, _: short_number(value))
    grid.flat[-1].set_xlabel("words")
    figure.legend(
        *grid.flat[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False,
        fontsize=8.5, labelcolor=look.ink, handlelength=1.8, borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _block(axes: Axes, head: str, lines: list[tuple[str, dict[str, Spread]]], look: Look) -> None:
    plain_axes(axes, look, grid="x", title=head)
    styles = (("perception", look.perception, -0.17, "o"), ("reasoning", look.reasoning, 0.17, "D"))
    for name, colour, offset, mark in styles:
        spreads = [(y + offset, both[name]) for y, (_, both) in enumerate(lines) if both[name].count]
        ys, found = [y for y, _ in spreads], [s for _, s in spreads]
        axes.hlines(ys, [s.p5 for s in found], [s.p95 for s in found], color=colour, linewidth=1.0)
        axes.hlines(
            ys, [s.p25 for s in found], [s.p75 for s in found], color=colour, linewidth=3.6, alpha=0.55
        )
        axes.plot(
            [s.p50 for s in found], ys, linestyle="", marker=mark, markersize=4.4, color=colour, label=name,
            markeredgecolor=look.paper, markeredgewidth=0.6,
        )  # fmt: skip
    axes.set_yticks(range(len(lines)), [label(name) for name, _ in lines])
    axes.set_ylim(len(lines) - 0.45, -0.55)
    axes.tick_params(axis="y", labelcolor=look.ink)
