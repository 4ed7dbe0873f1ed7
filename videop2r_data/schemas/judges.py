"""Which judges are measured against people, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.inputs import Name
from videop2r_data.schemas.recipe import BackendSpec, JudgeSpec
from videop2r_data.schemas.yaml_file import parse_yaml, read_text


class NamedJudge(JudgeSpec):
    """A judge and how the table calls it."""

    name: Name
    """In the table of results."""


class JudgesFile(Model):
    """Several judges for the same labels."""

    judges_file: Literal[1] = 1
    """Version of this format."""
    judges: tuple[NamedJudge, ...] = Field(min_length=1)
    """Each a judge as in a recipe, with a name."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars for all of them, over all runs on one work folder."""

    @field_validator("judges")
    @classmethod
    def _names_differ(cls, value: tuple[NamedJudge, ...]) -> tuple[NamedJudge, ...]:
        names = [judge.name for judge in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the names of judges must differ, repeated: {', '.join(twice)}")
        for judge in value:
            _can_be_asked(judge.name, judge.backend)
        return value


def _can_be_asked(name: str, spec: BackendSpec) -> None:
    if spec.kind == "demo":
        raise ValueError(f"judge {name!r}: kind demo knows the answers; calibration needs a model")
    if spec.batch:
        raise ValueError(f"judge {name!r}: batch: true is for builds; a few hundred labels are asked at once")


def load_judges(path: Path) -> JudgesFile:
    """Read a judges file.

    Raises:
        ConfigError: the file is missing or not valid; all of its errors at once.
    """
    return parse_yaml(
        read_text(path, what="judges"),
        JudgesFile,
        where=str(path),
        what="judges file",
        valid="it lists judges: [{name, backend: {kind, model, ...}}]; see docs/judges.md",
        allowed="p2r-data schema judges prints what is allowed",
    )
