"""What a release is held against: its own lock where it has one, else the paper's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from videop2r_data.builders.verify.report import Code, Findings
from videop2r_data.files.release import Release
from videop2r_data.schemas.recipe import LengthSpec, VerifySpec
from videop2r_data.schemas.verdict import PAPER


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the row checks; small, and sent to every worker.

    Attributes:
        layout: which columns.
        spec: threshold, policy and optional checks of the verify step.
        own: `spec` is the recipe's own, so that its whole verify step can be run again.
        bounded: the recipe bounds the length of segments.
        judge: whether the recipe has a judge; None: not known.
        synthetic: what every row must say; None: not known.
    """

    layout: Literal["ours", "official"]
    spec: VerifySpec
    own: bool = False
    bounded: bool = False
    judge: bool | None = None
    synthetic: bool | None = None


def rules_of(release: Release, findings: Findings) -> Rules:
    """Take the rules from the lock's recipe; a recipe that cannot be read is reported."""
    if release.layout == "official":
        return Rules("official", VerifySpec(policy=PAPER))
    if release.lock is None:
        return Rules("ours", VerifySpec())
    try:
        recipe = release.lock.read_recipe()
    except ValidationError as error:
        first = error.errors()[0]
        findings.add(
            Code.LOCK_INVALID,
            "build.lock.json",
            field="recipe." + ".".join(map(str, first["loc"])),
            got=first["msg"],
            expected="a valid recipe",
        )
        return Rules("ours", VerifySpec())
    return Rules(
        "ours",
        recipe.verify,
        own=True,
        bounded=recipe.verify.length != LengthSpec(),
        judge=recipe.judge is not None,
        synthetic=recipe.synthetic,
    )
