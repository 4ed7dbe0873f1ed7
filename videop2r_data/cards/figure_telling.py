"""The words that tell perception and reasoning apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from videop2r_data.cards.figure_cloud import fits
from videop2r_data.plots.frame import new_figure, plain_axes, short_number
from videop2r_data.plots.palette import Look
from videop2r_data.schemas import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TELLING = 14
"""Words per process."""


class TellingData(Model):
    """What the figure shows."""

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


def telling_caption(data: TellingData) -> str:
    """One sentence for the card."""
    p, r = (", ".join(list(words)[:5]) for words in (data.perception, data.reasoning))
    return (
        f"Words that tell perception ({p}) and reasoning ({r}) apart: z-scores of their log odds with a "
        "Dirichlet prior (Monroe et al. 2008). Function words count; the opening words that the prompt asks "
        "for do not."
    )


def draw_telling(data: TellingData, look: Look) -> Figure:
    """Bars to the left for perception, to the right for reasoning, each on its own words."""
    told = f"z-score of log odds with a Dirichlet prior; all words of {data.config} but the prompted openings"
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
        axes.xaxis.set_major_formatter(lambda value, _: short_number(value))
        axes.set_xlabel("z-score")
    return figure
