"""Word clouds of perception and reasoning, and the words that tell the two apart."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from videop2r_data.cards.figure_frame import drawable, font_path, new_figure, plain_axes
from videop2r_data.cards.palette import Look, mix
from videop2r_data.cards.stats_text import TopWords
from videop2r_data.errors import MissingExtraError
from videop2r_data.schemas.base import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS = 90
TELLING = 14
"""Words per process in the second figure."""
_SIZE = (690, 470)
"""Pixels of one cloud."""


class Placed(Model):
    """A word where it was put, in pixels of a cloud of 690 x 470."""

    word: str
    count: int
    size: int
    x: int
    y: int
    upright: bool
    """Read from below."""


class CloudData(Model):
    """What the figure shows."""

    config: str
    perception: list[Placed]
    reasoning: list[Placed]
    perception_tokens: int
    reasoning_tokens: int

    @classmethod
    def of(cls, config: str, perception: TopWords, reasoning: TopWords) -> CloudData:
        """Lay the words out; those that the font cannot draw are left out.

        Raises:
            MissingExtraError: wordcloud is not installed.
        """
        return cls(
            config=config,
            perception=place(perception.top),
            reasoning=place(reasoning.top),
            perception_tokens=perception.tokens,
            reasoning_tokens=reasoning.tokens,
        )


def need_wordcloud() -> None:
    """Refuse early.

    Raises:
        MissingExtraError: wordcloud is not installed.
    """
    try:
        import wordcloud  # noqa: F401
    except ImportError:
        raise MissingExtraError("wordcloud", "report") from None


def place(words: dict[str, int]) -> list[Placed]:
    """Put words side by side, the most frequent the largest; equal counts give an equal layout.

    Raises:
        MissingExtraError: wordcloud is not installed.
    """
    need_wordcloud()
    from wordcloud import WordCloud

    shown = {word: n for word, n in words.items() if len(word) <= 24 and all(map(drawable, word))}
    shown = dict(list(shown.items())[:WORDS])
    if not shown:
        return []
    cloud = WordCloud(
        width=_SIZE[0], height=_SIZE[1], font_path=font_path(), random_state=0, prefer_horizontal=0.92,
        max_words=WORDS, relative_scaling=0.45, margin=4, min_font_size=9, max_font_size=104,
    )  # fmt: skip
    cloud.generate_from_frequencies(shown)
    return [
        Placed(word=word, count=shown[word], size=size, x=x, y=y, upright=turned is not None)
        for (word, _), size, (y, x), turned, _ in cloud.layout_
    ]


def cloud_caption(data: CloudData) -> str:
    """One sentence for the card."""
    p, r = (", ".join(w.word for w in placed[:5]) for placed in (data.perception, data.reasoning))
    return (
        f"The most frequent words of perception ({p}) and reasoning ({r}), function words left out; "
        "size follows frequency."
    )


def draw_cloud(data: CloudData, look: Look) -> Figure:
    """Two clouds side by side."""
    told = (
        f"most frequent words in {data.config}, function words left out: "
        f"{data.perception_tokens:,} words of perception, {data.reasoning_tokens:,} of reasoning"
    )
    figure = new_figure("Words of perception and reasoning", told, look, high=2.75)
    panels = figure.subplots(1, 2)
    for axes, name, placed, colour in (
        (panels[0], "perception", data.perception, look.perception),
        (panels[1], "reasoning", data.reasoning, look.reasoning),
    ):
        plain_axes(axes, look, grid="", title=name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.imshow(_picture(placed, colour, look), interpolation="antialiased")
    return figure


def _picture(placed: list[Placed], colour: str, look: Look) -> Any:
    """Pixels of one cloud; rarer words are drawn nearer to the background, never below readable."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    scale = 2
    picture = Image.new("RGB", (_SIZE[0] * scale, _SIZE[1] * scale), look.paper)
    pen = ImageDraw.Draw(picture)
    most = max((word.count for word in placed), default=1)
    for word in placed:
        depth = 0.62 + 0.38 * math.sqrt(word.count / most)
        font: Any = ImageFont.truetype(font_path(), word.size * scale)
        if word.upright:
            font = ImageFont.TransposedFont(font, orientation=Image.Transpose.ROTATE_90)
        tint = mix(look.paper, colour, depth) if depth < 0.999 else colour
        pen.text((word.x * scale, word.y * scale), word.word, fill=tint, font=font)
    return np.asarray(picture)


class TellingData(Model):
    """What the figure shows."""

    config: str
    perception: dict[str, float]
    """Word -> z of its log odds in perception against reasoning, the highest first."""
    reasoning: dict[str, float]
    """The same for reasoning, as positive numbers."""

    @classmethod
    def of(cls, config: str, perception: Counter[str], reasoning: Counter[str]) -> TellingData:
        """From word -> count in each."""
        scores = log_odds(perception, reasoning)
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        ranked = [(w, z) for w, z in ranked if len(w) <= 24 and all(map(drawable, w))]
        return cls(
            config=config,
            perception={w: round(z, 2) for w, z in ranked[:TELLING] if z > 0},
            reasoning={w: round(-z, 2) for w, z in reversed(ranked[-TELLING:]) if z < 0},
        )


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


def telling_caption(data: TellingData) -> str:
    """One sentence for the card."""
    p, r = (", ".join(list(words)[:5]) for words in (data.perception, data.reasoning))
    return (
        f"Words that tell perception ({p}) and reasoning ({r}) apart: z-scores of their log odds with a "
        "Dirichlet prior (Monroe et al. 2008), function words included."
    )


def draw_telling(data: TellingData, look: Look) -> Figure:
    """Bars to the left for perception, to the right for reasoning, each on its own words."""
    told = f"z-score of log odds with a Dirichlet prior, all words of {data.config}"
    lines = max(len(data.perception), len(data.reasoning), 4)
    figure = new_figure("Words that tell the two apart", told, look, high=0.2 * lines + 0.75)
    panels = figure.subplots(1, 2, sharex=True)
    for axes, name, words, colour in (
        (panels[0], "more in perception", data.perception, look.perception),
        (panels[1], "more in reasoning", data.reasoning, look.reasoning),
    ):
        plain_axes(axes, look, grid="x", title=name)
        axes.barh(range(len(words)), list(words.values()), height=0.68, color=colour)
        axes.set_yticks(range(len(words)), list(words))
        axes.tick_params(axis="y", labelcolor=look.ink)
        axes.set_ylim(lines - 0.4, -0.6)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel("z-score")
    return figure
