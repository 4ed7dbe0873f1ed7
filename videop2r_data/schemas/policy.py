"""How strict the scorers are: two named profiles, and a switch for every debatable point."""

from __future__ import annotations

from typing import Literal

from videop2r_data.schemas.base import Model


class Policy(Model):
    """Settings of `validators.score`; `PAPER` and `ROBUST` are the named ones.

    Every switch says what it accepts when on.
    """

    profile: Literal["paper", "robust"] = "robust"
    """`paper`: what the paper and its predecessor compute where that is defined; `robust`: a careful grader."""
    option_text_alone: bool = True
    """Multiple choice: the exact text of one option, without its letter."""
    answer_phrase: bool = True
    """`The answer is A` inside the answer segment counts as `A`."""
    percent_as_fraction: bool = False
    """`50 %` equals `0.5`."""
    number_words: bool = False
    """`three` equals `3`."""
    missing_unit: bool = True
    """A bare number answers a reference with a unit. The reverse is always accepted only for equal units."""
    uppercase_tags: bool = False
    """`<ANSWER>` counts as `<answer>` when an answer is taken from a completion."""
    unclosed_answer: bool = False
    """`<answer>A` at the very end of a completion counts as closed."""


PAPER = Policy(profile="paper")
ROBUST = Policy(profile="robust")
