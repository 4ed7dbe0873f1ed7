"""A bitmap font of 5 x 7 dots, A-Z and 0-9, drawn for this package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, ADVANCE, LINE = 5, 7, 6, 9
"""Dots: of a letter, from letter to letter, from line to line."""

# Seven rows from top to bottom; each number holds five dots, the left one is the bit of value 16.
_ROWS: dict[str, tuple[int, ...]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (28, 18, 17, 17, 17, 18, 28),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 14),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "J": (7, 2, 2, 2, 2, 18, 12),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "Q": (14, 17, 17, 17, 21, 18, 13),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 17, 10, 4),
    "W": (17, 17, 17, 21, 21, 27, 17),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
    "0": (14, 19, 21, 21, 21, 25, 14),
    "1": (4, 12, 4, 4, 4, 4, 31),
    "2": (14, 17, 1, 6, 8, 16, 31),
    "3": (30, 1, 1, 14, 1, 1, 30),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
}
LETTERS = frozenset(_ROWS)


def word_mask(word: str, scale: int) -> NDArray[np.bool_]:
    """Ink of a word: bool [7 * scale, (6 * len(word) - 1) * scale].

    Raises:
        KeyError: a character that the font does not have.
    """
    dots = np.zeros((HEIGHT, ADVANCE * len(word) - 1), dtype=bool)
    for at, letter in enumerate(word):
        for row, bits in enumerate(_ROWS[letter]):
            for column in range(WIDTH):
                dots[row, at * ADVANCE + column] = bool(bits & (16 >> column))
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)
