"""Colours stay apart for every kind of colour vision, and letters can be read on their ground."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from videop2r_data.cards.figures.words import PALEST
from videop2r_data.plots.palette import DARK, LIGHT, Look, contrast, ink_on, luminance, mix

Array = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protan": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deutan": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritan": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                   [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                   [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def oklab(colour: str, vision: str) -> Array:
    """Oklab of a colour as somebody sees it."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    seen = np.clip(VISION[vision] @ linear, 0, 1)
    found: Array = TO_LAB @ np.cbrt(TO_LMS @ seen)
    return found


def apart(a: str, b: str, vision: str) -> float:
    return 100 * float(np.linalg.norm(oklab(a, vision) - oklab(b, vision)))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.name)
def test_no_two_colours_that_stand_side_by_side_look_alike(look: Look, vision: str) -> None:
    assert apart(look.perception, look.reasoning, vision) > 20
    for a, b in itertools.combinations(look.kinds, 2):
        assert apart(a, b, vision) > 8, (a, b)


@pytest.mark.parametrize("look", [LIGHT, DARK], ids=lambda look: look.name)
def test_letters_and_marks_can_be_read(look: Look) -> None:
    assert contrast(look.ink, look.paper) > 12
    assert contrast(look.muted, look.paper) > 4.5  # WCAG 2 AA for small letters
    for colour in (look.perception, look.reasoning):
        assert contrast(colour, look.paper) > 3.9
        # the palest word of a cloud
        assert contrast(mix(look.paper, colour, PALEST), look.paper) > 3  # AA for large letters
    for share in range(0, 101, 5):
        ground = mix(look.paper, look.perception, share / 100)
        assert contrast(ink_on(ground), ground) > 4.5


def test_luminance_and_contrast_by_hand() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert luminance("#ff0000") == pytest.approx(0.2126)
    assert mix("#102030", "#ffffff", 0) == "#102030" and mix("#102030", "#ffffff", 1) == "#ffffff"
