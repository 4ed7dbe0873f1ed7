"""What all figures share: the head, plain axes, text that comes from data, and a small PNG."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from unicodedata import category

from videop2r_data.errors import MissingExtraError
from videop2r_data.plots.palette import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Grid = Literal["x", "y", ""]


DPI = 200
"""Dots per inch: a figure of 7.2 inches is 1,440 px wide, twice what a card shows."""
WIDE = 7.2
"""Inches across every figure, so that all of them have one size of letters."""
HEAD = 0.62
"""Inches above the axes: title and what is measured."""
COLOURS = 96
SHOWN = 0.5
"""Width on a page over width in pixels."""
_FONT = "DejaVu Sans"


def need_matplotlib() -> None:
    """Refuse early and with the line that helps.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("matplotlib", "report") from None


def new_figure(title: str, told: str, look: Look, *, high: float) -> Figure:
    """An empty figure with its head.

    Args:
        title: a few words, bold.
        told: one line below: what is measured and in how many rows.
        look: colours.
        high: inches of the body, without the head.

    Returns:
        The figure; it lays its axes out by itself, below the head, when it is drawn.
    """
    figure = blank_figure(look, wide=WIDE, high=high, head=HEAD, dpi=DPI, w_pad=0.08)
    x, tall = 0.1 / WIDE, high + HEAD
    figure.text(
        x, 1 - 0.1 / tall, title, ha="left", va="top", fontsize=11.5, color=look.ink, fontweight="bold"
    )
    figure.text(x, 1 - 0.355 / tall, told, ha="left", va="top", fontsize=8, color=look.muted)
    return figure


def blank_figure(look: Look, *, wide: float, high: float, head: float, dpi: int, w_pad: float) -> Figure:
    """An empty figure of `wide` by `high` + `head` inches that lays its axes out below its head."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    tall = high + head
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - head / tall), w_pad=w_pad, h_pad=0.06)
    figure = Figure(figsize=(wide, tall), facecolor=look.paper, layout=layout, dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def plain_axes(axes: Axes, look: Look, *, grid: Grid = "x", title: str = "") -> None:
    """Axes without a box: only what helps to read.

    Args:
        axes: to be changed.
        look: colours.
        grid: lines across this axis, or empty: then the numbers stand at the bars, and there is no scale.
        title: bold, above the left end.
    """
    axes.set_facecolor(look.paper)
    if title:
        axes.set_title(title, loc="left", fontsize=9, color=look.ink, fontweight="bold", pad=6)
    if grid:
        axes.grid(True, axis=grid, color=look.grid, linewidth=0.7)
    else:
        axes.tick_params(axis="x", labelbottom=False)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side == "bottom" and grid == "y")
    axes.spines["bottom"].set_color(look.muted)
    axes.tick_params(colors=look.muted, labelsize=8, length=0, pad=4)
    axes.xaxis.label.set(color=look.muted, fontsize=8)
    axes.yaxis.label.set(color=look.muted, fontsize=8)


def thousands(axis: Any, *, bins: int = 5) -> None:
    """Whole numbers with separators on an axis, few enough not to touch."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=bins, integer=True, min_n_ticks=2))
    axis.set_major_formatter(lambda value, _: short_number(value))


def short_number(value: float) -> str:
    """A number beside an axis, without a factor above the axis.

    >>> [short_number(v) for v in (0, 0.25, 950, 12500, 150000, 2500000, 5e9, 5e-07)]
    ['0', '0.25', '950', '12,500', '150k', '2.5M', '5G', '5e-7']
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e5, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits, _, power = f"{value:g}".partition("e")
    return f"{digits}e{int(power)}" if power else digits


def share(part: int, whole: int) -> str:
    """A share in per cent, never 0 % for something and never 100 % for less than all.

    >>> share(1, 3), share(1, 100000), share(99999, 100000), share(0, 5), share(5, 5)
    ('33.3 %', '<0.1 %', '>99.9 %', '0 %', '100 %')
    """
    if not whole or not part:
        return "0 %"
    if part == whole:
        return "100 %"
    told = 100 * part / whole
    if told < 0.1:
        return "<0.1 %"
    return ">99.9 %" if told > 99.9 else f"{told:.1f} %"


def label(text: str, most: int = 26) -> str:
    """A name from the data as the font can draw it: one line, cut in its middle, no invisible marks.

    >>> label("a\\nb"), label(""), label("abcdefghij", 7)
    ('a b', '(none)', 'abc…hij')
    """
    unseen = ("Cc", "Cf", "Cs", "Co", "Cn")  # control and direction marks, and what is no character
    plain = "".join(" " if c.isspace() else c for c in text if c.isspace() or category(c) not in unseen)
    plain = " ".join(plain.split()) or "(none)"
    if len(plain) > most:
        keep = most - 1
        plain = plain[: math.ceil(keep / 2)] + "…" + plain[-(keep // 2) :]
    return "".join(c if drawable(c) else "\N{REPLACEMENT CHARACTER}" for c in plain)


@lru_cache(maxsize=1)
def font_path() -> str:
    """The font that comes with matplotlib, the same on every machine."""
    from matplotlib.font_manager import FontProperties, findfont

    return str(findfont(FontProperties(family=_FONT), fallback_to_default=True))


@lru_cache(maxsize=1)
def _font() -> Any:
    from matplotlib.ft2font import FT2Font

    return FT2Font(font_path())


@lru_cache(maxsize=4096)
def drawable(char: str) -> bool:
    """Whether the font has this character."""
    return bool(_font().get_char_index(ord(char)))


def png_bytes(figure: Figure, *, colours: int = COLOURS, exact_paper: bool = True) -> bytes:
    """A figure as a small PNG: few colours, no time stamp: equal figures give equal bytes.

    Args:
        figure: with its canvas.
        colours: of the palette of the PNG.
        exact_paper: the background keeps its own colour, whatever the palette has.
    """
    from matplotlib.text import Text
    from PIL import Image

    for text in figure.findobj(Text):
        text.set_parse_math(False)  # `$` in the data, or in a run's name, is no formula
        text.set_fontfamily(_FONT)
    canvas: Any = figure.canvas
    canvas.draw()
    size = canvas.get_width_height(physical=True)
    whole = Image.frombytes("RGBA", size, bytes(canvas.buffer_rgba())).convert("RGB")
    small: Any = whole.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    if exact_paper:
        # The palette moved the background's colour a little, and a page shows the seam: give it back.
        palette = small.getpalette()
        at = 3 * small.getpixel((0, 0))
        palette[at : at + 3] = [round(255 * part) for part in figure.get_facecolor()[:3]]
        small.putpalette(palette)
    buffer = io.BytesIO()
    small.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
