"""Word clouds of perception and reasoning."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videop2r_data.cards.stats_text import content_words
from videop2r_data.plots.frame import drawable, font_path, new_figure, plain_axes
from videop2r_data.plots.palette import Look, mix
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


class CloudData(Model):
    """What the figure shows."""

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


def cloud_caption(data: CloudData) -> str:
    """One sentence for the card."""
    p, r = (", ".join(w.word for w in placed[:5]) for placed in (data.perception, data.reasoning))
    return (
        f"The most frequent words of perception ({p}) and reasoning ({r}); size follows frequency. Function "
        "words, and the opening words that the prompt asks for, are left out."
    )


def draw_cloud(data: CloudData, look: Look) -> Figure:
    """Two clouds side by side."""
    told = (
        f"most frequent words of {data.config} without function words and prompted openings; "
        f"{data.perception_words:,} and {data.reasoning_words:,} words in all"
    )
    figure = new_figure("Words of perception and reasoning", told, look, high=2.6)
    for axes, name, placed, colour in zip(
        figure.subplots(1, 2),
        ("perception", "reasoning"),
        (data.perception, data.reasoning),
        (look.perception, look.reasoning),
        strict=True,
    ):
        plain_axes(axes, look, grid="", title=name)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.imshow(picture_of(placed, colour, look), interpolation="antialiased")
    return figure


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
