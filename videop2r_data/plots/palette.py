"""Colours of the figures: apart for every kind of colour vision, on paper and on black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """Colours of one style, as hex codes.

    Attributes:
        name: `light` or `dark`.
        paper: background.
        ink: text that is read first.
        muted: axes and notes.
        grid: lines behind the data.
        fill: bars that carry no category.
        perception: of P.
        reasoning: of R.
        both: of the sum of P and R.
        scale: axes and notes of curves, a step apart from `muted`.
        kinds: of categories that stand side by side, in their order; more than these are summed up.
        runs: of runs that are compared, in the order of the command line; thin lines need other colours than
            bars.
    """

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    fill: str
    perception: str
    reasoning: str
    both: str
    scale: str
    kinds: tuple[str, ...]
    runs: tuple[str, ...]


LIGHT = Look(
    name="light",
    paper="#ffffff",
    ink="#1f2328",
    muted="#59636e",
    grid="#e4e7eb",
    fill="#8c959f",
    perception="#0068ad",
    reasoning="#d1520a",
    both="#4b4f56",
    scale="#656d76",
    kinds=("#016fbe", "#e8a33d", "#19a6ad", "#851d55", "#82bfe5", "#ab3688", "#336f16", "#d36768"),
    runs=("#0068ad", "#d1520a", "#00805b", "#a6569a", "#8a6d00", "#3a3f47", "#2f9bd6", "#b3243b"),
)
DARK = Look(
    name="dark",
    paper="#0d1117",
    ink="#e6edf3",
    muted="#9198a1",
    grid="#262c36",
    fill="#6e7681",
    perception="#58b4f0",
    reasoning="#f59e42",
    both="#c3c9d1",
    scale="#9198a1",
    kinds=("#65bbf8", "#f0c05d", "#46aa69", "#b94577", "#c9e8fb", "#af74c9", "#897510", "#e990b3"),
    runs=("#58b4f0", "#f59e42", "#35c79a", "#dd94cf", "#e6d34a", "#c3c9d1", "#2f7fb8", "#ff7b86"),
)
SOLID: Any = "-"
DASHED: Any = (0, (4.5, 1.4))
DOTTED: Any = (0, (1.2, 1.2))
"""Dashes of a line, in matplotlib's words: what a colour tells, dashes tell too."""


def run_stroke(look: Look, index: int) -> dict[str, Any]:
    """Colour and dashes of run number `index`; after the last colour they begin anew, with other dashes."""
    turn, number = divmod(index, len(look.runs))
    return {"color": look.runs[number], "linestyle": (SOLID, DASHED, DOTTED)[turn % 3]}


def mix(colour: str, other: str, share: float) -> str:
    """A colour between two.

    Args:
        colour: `#rrggbb`.
        other: `#rrggbb`.
        share: of `other`, 0 to 1.

    >>> mix("#000000", "#ffffff", 0.5)
    '#808080'
    """
    parts = (
        round(int(colour[i : i + 2], 16) * (1 - share) + int(other[i : i + 2], 16) * share + 1e-9)
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2, 0 (black) to 1 (white).

    >>> round(luminance("#ffffff"), 3), luminance("#000000")
    (1.0, 0.0)
    """
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour: str, other: str) -> float:
    """Contrast ratio by WCAG 2, 1 to 21."""
    low, high = sorted((luminance(colour), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink_on(ground: str) -> str:
    """Black or white, whichever reads better on a ground.

    >>> ink_on("#0068ad"), ink_on("#ffd27f")
    ('#ffffff', '#000000')
    """
    return max(("#ffffff", "#000000"), key=lambda ink: contrast(ink, ground))
