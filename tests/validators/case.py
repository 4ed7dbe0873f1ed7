"""One hand-made case of the scorers: what both profiles must say of an answer, and why."""

from __future__ import annotations

from typing import NamedTuple

Expected = float | tuple[float, float] | None
"""A value, a closed range, or None for unscorable."""


class Case(NamedTuple):
    """Attributes: both expectations are worked out by hand, never taken from the code."""

    prediction: str
    reference: str
    paper: Expected
    robust: Expected
    why: str
    options: tuple[str, ...] = ()
    reason: str = ""
    """The reason code under `robust`, where it matters."""
