"""Scores and judgements: a value with its reason, never a bare bool."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.reasons import RejectReason, ScoreReason

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Score(Model):
    """How right an answer is.

    `value` lies in [0, 1]; None means unscorable: left out of means, never paid, never 0 by accident.
    """

    value: Unit | None
    reason: ScoreReason
    detail: str = ""
    """What was compared, for people; at most a few hundred characters."""


class Sufficiency(StrEnum):
    """What the judge may say of an observation."""

    YES = "Yes"
    NO = "No"


class Judgement(Model):
    """The judge's verdict; None when its reply holds none of those on offer (unscored)."""

    verdict: Sufficiency | None
    explanation: str = ""
    """The judge's words before the verdict."""


class Check(Model):
    """One check of the verify step: passed, or a reason for the rejection."""

    reason: RejectReason | None = None
    """None: passed."""
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return self.reason is None
