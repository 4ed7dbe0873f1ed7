"""Figures of perception and reasoning as words: lengths, clouds, and the words that tell them apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videop2r_data.cards.figures.counts import MOST, FigureData, problem_types
from videop2r_data.cards.figures.text import Spread, content_words
from videop2r_data.plots import (
    Look,
    drawable,
    font_path,
    label,
    mix,
    new_figure,
    plain_axes,
    short_number,
    thousands,
)
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


class WordsData(FigureData):
    """What the figure shows."""

    title = "Length of perception and reasoning"
    config: str
    bin_width: int
    """Words."""
    perception: Histogram
    reasoning: Histogram

    @classmethod
    def of(cls, config: str, perception: Counter[int], reasoning: Counter[int]) -> WordsData:
        """From length in words -> texts, of both segments; both get the same bins."""
        top = max(_top(perception), _top(reasoning))
        width = next((w for w in _WIDTHS if top / w <= BINS), math.ceil(top / BINS))
        p, r = (_histogram(lengths, width, int(top // width) + 1) for lengths in (perception, reasoning))
        return cls(config=config, bin_width=width, perception=p, reasoning=r)

    def caption(self) -> str:
        """One sentence for the card."""
        p, r = self.perception.spread, self.reasoning.spread
        return (
            f"Words of perception and reasoning in `{self.config}`: perception has a median of {p.p50:g} "
            f"words (90 % of rows: {p.p5:g} to {p.p95:g}), reasoning {r.p50:g} ({r.p5:g} to {r.p95:g})."
        )

    def draw(self, look: Look) -> Figure:
        """Both histograms over one axis, with their medians."""
        both = (self.perception, self.reasoning)
        rows = max(part.spread.count for part in both)
        told = f"words per text in {rows:,} rows of {self.config}; bins of {self.bin_width}"
        figure = new_figure(self.title, told, look, high=2.35)
        axes = figure.subplots()
        plain_axes(axes, look, grid="y")
        styles: Any = (("perception", look.perception, "-"), ("reasoning", look.reasoning, (0, (4, 1.2))))
        for (name, colour, dashes), part in zip(styles, both, strict=True):
            s = part.spread
            if not s.count:
                continue
            used = [at for at, count in enumerate(part.counts) if count]  # no empty bins at both ends
            low, high = used[0], used[-1] + 1
            counts, edges = part.counts[low:high], [self.bin_width * at for at in range(low, high + 1)]
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
            axes.stairs(
                counts, edges, color=colour, linewidth=1.5, linestyle=dashes,
                label=f"{name}: median {s.p50:g}, 90 % within {s.p5:g} to {s.p95:g}",
            )  # fmt: skip
            middle = min(s.p50, part.edges[-1])
            axes.axvline(
                middle, color=mix(colour, look.ink, 0.25), linewidth=1.1, linestyle=dashes, alpha=0.9
            )
        axes.set_xlim(0, self.perception.edges[-1] + self.bin_width)
        axes.set_ylim(0, max(1, *self.perception.counts, *self.reasoning.counts) * 1.14)
        thousands(axes.yaxis, bins=4)
        above = sum(part.above for part in both)
        axes.set_xlabel(f"words (last bin: and more, {above:,} texts beyond it)" if above else "words")
        axes.set_ylabel("rows")
        figure.legend(
            loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, labelcolor=look.ink,
            handlelength=2.2, columnspacing=2.2, borderaxespad=0.2,
        )  # fmt: skip
        return figure


def _top(lengths: Counter[int]) -> float:
    """Where the axis ends: the longest text, unless a few are far longer than nearly all others."""
    below = 0
    for value, number in sorted(lengths.items()):
        below += number
        if below >= 0.995 * lengths.total():
            longest = max(lengths)
            return float(longest if longest <= 1.5 * max(value, 1) else value)
    return 0.0


def _histogram(lengths: Counter[int], width: int, bins: int) -> Histogram:
    counts = [0] * bins
    for length, number in lengths.items():
        counts[min(length // width, bins - 1)] += number
    above = sum(number for length, number in lengths.items() if length // width >= bins)
    edges = [width * at for at in range(bins)]
    return Histogram(spread=Spread.of(lengths), edges=edges, counts=counts, above=above)


class GroupsData(FigureData):
    """What the figure shows."""

    title = "Length by modality, problem type and source"
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

    def caption(self) -> str:
        """One sentence for the card."""
        rest = f" ({self.sources_left_out} further sources are not shown)" if self.sources_left_out else ""
        return (
            "Words of perception and reasoning by modality, problem type and source: median, the middle half "
            f"(thick) and the middle 90 % (thin){rest}."
        )

    def draw(self, look: Look) -> Figure:
        """A line per group, perception above reasoning; groups of a kind stand together."""
        blocks = {
            head: [(n.partition("/")[2], both) for n, both in self.groups.items() if n.startswith(f"{key}/")]
            for key, head in (("data", "modality"), ("type", "problem type"), ("source", "source"))
        }
        blocks = {head: lines for head, lines in blocks.items() if lines}
        heights = [len(lines) for lines in blocks.values()]
        told = f"words per text in {self.config}: median (dot), middle half (thick), middle 90 % (thin)"
        high = 0.25 * sum(heights) + 0.31 * len(heights) + 0.6
        figure = new_figure(self.title, told, look, high=high)
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


# Word clouds. The layout is ours and has no chance in it: no two boxes touch, and size follows frequency
# alone (why no library: docs/decisions/005-word-cloud.md).

WORDS = 80
SIZE = (690, 450)
"""Pixels of one cloud, across and down."""
LARGEST, SMALLEST = 92, 16
"""Pixels of the letters."""
PALEST = 0.8
"""How far the colour of the rarest word is from the background to the full colour."""
_GAP = 5
_GRID = 2
"""Places are tried at every second pixel."""
_UPRIGHT = 7
"""Every so many words one is read from below."""


class Placed(Model):
    """A word where it was put: its ink lies in the box from (x, y), in pixels of a cloud of `SIZE`."""

    word: str
    count: int
    size: int
    """Of the font, in pixels."""
    x: int
    y: int
    wide: int
    high: int
    upright: bool
    """Read from below."""


class CloudData(FigureData):
    """What the figure shows."""

    title = "Words of perception and reasoning"
    config: str
    perception: list[Placed]
    reasoning: list[Placed]
    perception_words: int
    """Words in all, the opening that the prompt asks for not counted."""
    reasoning_words: int

    @classmethod
    def of(cls, config: str, perception: Counter[str], reasoning: Counter[str]) -> CloudData:
        """Lay the most frequent words out; function words, and words that the font lacks, are left out.

        Raises:
            MissingExtraError: matplotlib, which brings the font, is not installed.
        """
        return cls(
            config=config,
            perception=lay_out(_shown(perception)),
            reasoning=lay_out(_shown(reasoning)),
            perception_words=perception.total(),
            reasoning_words=reasoning.total(),
        )

    def caption(self) -> str:
        """One sentence for the card."""
        p, r = (", ".join(w.word for w in placed[:5]) for placed in (self.perception, self.reasoning))
        return (
            f"The most frequent words of perception ({p}) and reasoning ({r}); size follows frequency. "
            "Function words, and the opening words that the prompt asks for, are left out."
        )

    def draw(self, look: Look) -> Figure:
        """Two clouds side by side."""
        told = (
            f"most frequent words of {self.config} without function words and prompted openings; "
            f"{self.perception_words:,} and {self.reasoning_words:,} words in all"
        )
        figure = new_figure(self.title, told, look, high=2.6)
        for axes, name, placed, colour in zip(
            figure.subplots(1, 2),
            ("perception", "reasoning"),
            (self.perception, self.reasoning),
            (look.perception, look.reasoning),
            strict=True,
        ):
            plain_axes(axes, look, grid="", title=name)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.imshow(picture_of(placed, colour, look), interpolation="antialiased")
        return figure


def fits(word: str) -> bool:
    """Whether a figure can show a word: not too long, and in its font."""
    return len(word) <= 24 and all(map(drawable, word))


def _shown(words: Counter[str]) -> dict[str, int]:
    found = content_words(words, 3 * WORDS)
    return dict([(word, n) for word, n in found.items() if fits(word)][:WORDS])


def lay_out(words: dict[str, int]) -> list[Placed]:
    """Put words around the middle, the most frequent first and largest; no two boxes touch.

    Nothing is left to chance. All letters are scaled down until every word has found its place; a word that
    finds none at the smallest scale is left out.

    Args:
        words: word -> count, the most frequent first.
    """
    placed: list[Placed] = []
    for largest in (LARGEST, 80, 68, 58, 50, 42, 34):
        placed = _attempt(words, largest)
        if len(placed) == len(words):
            break
    return placed


def _attempt(words: dict[str, int], largest: int) -> list[Placed]:
    taken = np.zeros((SIZE[1] // _GRID, SIZE[0] // _GRID), bool)
    most = max(words.values(), default=1)
    placed = []
    for number, (word, count) in enumerate(words.items()):
        size = max(SMALLEST, round(largest * (count / most) ** 0.55))
        turns = (True, False) if number % _UPRIGHT == _UPRIGHT - 1 else (False, True)
        for upright in turns:
            wide, high = _box(word, size, upright=upright)
            spot = _free_spot(taken, wide + _GAP, high + _GAP)
            if spot is not None:
                x, y = spot
                taken[y : y + -(-(high + _GAP) // _GRID), x : x + -(-(wide + _GAP) // _GRID)] = True
                place = {"x": x * _GRID + _GAP // 2, "y": y * _GRID + _GAP // 2}
                placed.append(
                    Placed(word=word, count=count, size=size, wide=wide, high=high, upright=upright, **place)
                )
                break
    return placed


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(font_path(), size)


def _box(word: str, size: int, *, upright: bool) -> tuple[int, int]:
    """Pixels of ink across and down."""
    left, top, right, bottom = _font(size).getbbox(word, anchor="lt")
    wide, high = math.ceil(right - left), math.ceil(bottom - top)
    return (high, wide) if upright else (wide, high)


def _free_spot(taken: npt.NDArray[np.bool_], wide: int, high: int) -> tuple[int, int] | None:
    """The place nearest to the middle, in steps of the grid, where a box of so many pixels is free."""
    w, h = -(-wide // _GRID), -(-high // _GRID)
    rows, columns = taken.shape
    if w > columns or h > rows:
        return None
    sums = np.zeros((rows + 1, columns + 1), np.int32)
    sums[1:, 1:] = taken.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    used = sums[h:, w:] - sums[:-h, w:] - sums[h:, :-w] + sums[:-h, :-w]
    down = (np.arange(used.shape[0]) + h / 2 - rows / 2) / rows
    across = (np.arange(used.shape[1]) + w / 2 - columns / 2) / columns
    far = np.where(used == 0, down[:, None] ** 2 + across[None, :] ** 2, np.inf)
    best = int(far.argmin())
    y, x = divmod(best, far.shape[1])
    return (x, y) if np.isfinite(far[y, x]) else None


def picture_of(placed: list[Placed], colour: str, look: Look, *, scale: int = 2) -> npt.NDArray[np.uint8]:
    """Pixels of one cloud; rarer words are drawn nearer to the background, never below readable."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIZE[0] * scale, SIZE[1] * scale), look.paper)
    most = max((word.count for word in placed), default=1)
    for word in placed:
        tint = mix(look.paper, colour, PALEST + (1 - PALEST) * math.sqrt(word.count / most))
        font = _font(word.size * scale)
        left, top, right, bottom = font.getbbox(word.word, anchor="lt")
        ink = Image.new("L", (math.ceil(right - left), math.ceil(bottom - top)))
        ImageDraw.Draw(ink).text((-left, -top), word.word, fill=255, font=font, anchor="lt")
        if word.upright:
            ink = ink.transpose(Image.Transpose.ROTATE_90)
        picture.paste(tint, (word.x * scale, word.y * scale), ink)
    return np.asarray(picture)


# Words that tell perception and reasoning apart.

TELLING = 14
"""Words per process."""


class TellingData(FigureData):
    """What the figure shows."""

    title = "Words that tell the two apart"
    config: str
    perception: dict[str, float]
    """Word -> z of its log odds in perception against reasoning, the highest first."""
    reasoning: dict[str, float]
    """The same for reasoning, as positive numbers."""

    @classmethod
    def of(cls, config: str, perception: Counter[str], reasoning: Counter[str]) -> TellingData:
        """From word -> count in each; words that the font lacks are left out."""
        scores = log_odds(perception, reasoning)
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return cls(
            config=config,
            perception=_first((w, z) for w, z in ranked if z > 0),
            reasoning=_first((w, -z) for w, z in reversed(ranked) if z < 0),
        )

    def caption(self) -> str:
        """One sentence for the card."""
        p, r = (", ".join(list(words)[:5]) for words in (self.perception, self.reasoning))
        return (
            f"Words that tell perception ({p}) and reasoning ({r}) apart: z-scores of their log odds with a "
            "Dirichlet prior (Monroe et al. 2008). Function words count; the opening words that the prompt "
            "asks for do not."
        )

    def draw(self, look: Look) -> Figure:
        """Bars to the left for perception, to the right for reasoning, each on its own words."""
        told = "z-score of log odds with a Dirichlet prior; all words of "
        told += f"{self.config} but the prompted openings"
        lines = max(len(self.perception), len(self.reasoning), 4)
        figure = new_figure(self.title, told, look, high=0.2 * lines + 0.75)
        panels = figure.subplots(1, 2, sharex=True)
        for axes, name, words, colour in (
            (panels[0], "more in perception", self.perception, look.perception),
            (panels[1], "more in reasoning", self.reasoning, look.reasoning),
        ):
            plain_axes(axes, look, grid="x", title=name)
            axes.barh(range(len(words)), list(words.values()), height=0.68, color=colour)
            axes.set_yticks(range(len(words)), list(words))
            axes.tick_params(axis="y", labelcolor=look.ink)
            axes.set_ylim(lines - 0.4, -0.6)
            axes.locator_params(axis="x", nbins=5)
            axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
            axes.set_xlabel("z-score")
        return figure


def _first(ranked: Iterable[tuple[str, float]]) -> dict[str, float]:
    return dict(islice(((word, round(z, 2)) for word, z in ranked if fits(word)), TELLING))


def log_odds(left: Counter[str], right: Counter[str]) -> dict[str, float]:
    """z-scores of log odds with an informative Dirichlet prior, positive where a word is more of the left's.

    The prior is a twentieth of the counts of both together, so that rare words do not win. Formula: Monroe,
    Colaresi and Quinn 2008, "Fightin' Words", section 3.5.1. Nothing to compare gives no scores.
    """
    whole = left + right
    prior_total = whole.total() / 20
    n_left, n_right = left.total() + prior_total, right.total() + prior_total
    if len(whole) < 2 or not left or not right:
        return {}
    found = {}
    for word, number in whole.items():
        a, b = left[word] + number / 20, right[word] + number / 20
        delta = math.log(a / (n_left - a)) - math.log(b / (n_right - b))
        found[word] = delta / math.sqrt(1 / a + 1 / b)
    return found
