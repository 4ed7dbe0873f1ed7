"""What a benchmark is: its rows, media, hints, metrics and aggregates, as one YAML file declares them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videop2r_data.schemas.base import Model


class Aggregate(Model):
    """How the scores of the questions become one number; `id` names the protocol in every result."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.@-]{0,63}$")
    """Protocol id, e.g. `vsi_macro8`."""
    title: str = ""
    """In tables; empty: the id."""
    how: Literal["mean", "macro", "recall", "groups"] = "mean"
    """`mean`: of all questions; `macro`: unweighted mean of the means by `by`; `recall`: share of questions
    whose score is at least `at`; `groups`: mean over the groups of `by`, each worth what `curve` says."""
    by: str = ""
    """Tag, or `problem_type`."""
    merge: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For `macro`: new value -> values of `by` whose means are averaged to one first."""
    only: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Tag, or `problem_type` -> values; other questions do not count."""
    at: float | None = Field(default=None, ge=0, le=1)
    """For `recall`."""
    curve: str = ""
    """For `groups`: name of the rule that says what a group is worth."""
    scale: float = 1.0
    """What 1 is printed as; 100 for percent."""
    source: str = ""
    """Who defines the protocol."""
