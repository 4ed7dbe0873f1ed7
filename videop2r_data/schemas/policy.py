"""How strict the scorers are: two named profiles, and a switch for every debatable point."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videop2r_data.schemas.base import Model


class Policy(Model):
    """Settings of `validators.score`; `PAPER` and `ROBUST` are the named ones.

    Every switch says what it accepts when on. The switches act on the profile `robust`; the profile `paper`
    compares as the paper and its predecessor do and has only the two that say where an answer is found
    (`uppercase_tags`, `unclosed_answer`).
    """

    profile: Literal["paper", "robust"] = "robust"
    """`paper`: what the paper and its predecessor compute, where defined; `robust`: a careful grader."""
    option_text_alone: bool = True
    """Multiple choice: the exact text of one option, without its letter."""
    lowercase_letter: bool = True
    """Multiple choice: `a` and `(a)` count as `A`."""
    answer_phrase: bool = True
    """`The answer is A` inside the answer segment counts as `A`, and so do other answers in a sentence
    (`Based on the video, it is a dog.`); also `Answer: 42`, `x = 42`."""
    ignore_case: bool = True
    """OCR: `STOP` equals `stop`. (Free-form text and option texts are always compared without case.)"""
    percent_as_fraction: bool = False
    """`50 %` equals `0.5`, in both directions."""
    number_words: bool = False
    """`three` equals `3`, `2 million` equals `2000000`."""
    missing_unit: bool = True
    """A bare number answers a reference with a unit.

    The other way round (a unit in the answer, none in the reference) is always accepted; two units must be
    the same unit, nothing is converted."""
    uppercase_tags: bool = False
    """`<ANSWER>` counts as `<answer>` when an answer is taken from a completion."""
    unclosed_answer: bool = False
    """`<answer>A` at the very end of a completion counts as closed."""

    box_scale: float = Field(default=1.0, gt=0.0, le=1e6)
    """Spatial grounding, both profiles: a coordinate of the answer times this is one of the reference.

    1.0: nothing is converted. 0.001: the answer is in thousandths of the picture's sides, the reference in
    shares of them. Pixels against shares need the picture's size, and so a pool that holds one of the two."""


PAPER = Policy(profile="paper")
ROBUST = Policy(profile="robust")
