"""Measuring judges against people: the labels of reviewers, and the YAML file that names the judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from videop2r_data.errors import SourceError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.judges import NamedJudge, names_differ
from videop2r_data.schemas.verdict import ClaimVerdict
from videop2r_data.schemas.yaml_file import parse_yaml, read_settings

# --- the labels of reviewers: the truth that judges are measured against ---


Question = Literal["sufficiency", "faithfulness"]
"""What reviewers are asked of an observation."""


class ClaimLabel(Model):
    """What a reviewer says of one claim of an observation."""

    text: str
    """The claim, as it was seen."""
    verdict: ClaimVerdict


class HumanLabel(Model):
    """One mark of one reviewer, as the gallery exports it: a line of JSON.

    The texts stand in it as the reviewer saw them, so that a label says something of exactly these words, on
    any machine, whatever becomes of the data set.
    """

    human_label: Literal[1] = 1
    """Version of this format."""
    sample_id: str = Field(min_length=1)
    sufficient: bool
    """Yes to the question: the answer follows from the observation alone [paper §7.1], or, of question
    `faithfulness`, the observation is true to the clip."""
    problem: str
    options: list[str] = Field(default_factory=list)
    reference: str
    """The correct answer, without tags."""
    observation: str
    question: Question = "sufficiency"
    """What was asked: whether the answer follows from the observation alone, or whether the clip shows what
    the observation says."""
    claims: tuple[ClaimLabel, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Of question `faithfulness`: the claims that were labelled one by one."""
    reviewer: str = ""
    time: str = Field(default="", max_length=40)
    """When it was marked, ISO 8601 in UTC; empty: not known."""
    note: str = ""
    dataset: str = ""
    """Name of the data set that was looked at."""
    outcome: str = ""
    """`accepted`, `rejected` or `failed`, as the data set had it; empty: not known."""
    source: str = ""
    problem_type: str = ""
    data_type: str = ""


class BadLabel(Model):
    """A line that is no label: left out, and counted."""

    where: str
    """File and line."""
    detail: str


def read_labels(path: Path) -> Iterator[HumanLabel | BadLabel]:
    """The labels of a JSON Lines file, in order; blank lines are passed over.

    Raises:
        SourceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _read(line, f"{path}, line {number}")
    except OSError as error:
        raise SourceError(f"cannot read the labels: {error}", where=str(path)) from None


def _read(line: bytes, where: str) -> HumanLabel | BadLabel:
    try:
        return HumanLabel.model_validate_json(line)
    except ValidationError as error:
        found = error.errors()[0]
        field = ".".join(map(str, found["loc"]))
        detail = f"{field}: {found['msg']}" if field else str(found["msg"])
        return BadLabel(where=where, detail=detail[:300])


# --- the judges that are measured ---


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
        names_differ(value)
        for judge in value:
            if judge.decides != "sufficiency" or len(judge.backends) > 1:
                raise ValueError(f"judge {judge.name!r}: labels measure one model of sufficiency at a time")
        for name, backend in ((judge.name, judge.backend) for judge in value):
            if backend.kind == "demo":
                raise ValueError(f"judge {name!r}: kind demo knows the answers; calibration needs a model")
            if backend.batch:
                why = "batch: true is for builds; a few hundred labels are asked at once"
                raise ValueError(f"judge {name!r}: {why}")
        return value


def load_judges(path: Path) -> JudgesFile:
    """Read a judges file.

    Raises:
        ConfigError: the file is missing or not valid; all of its errors at once.
    """
    return parse_yaml(
        read_settings(path, what="judges"),
        JudgesFile,
        where=str(path),
        what="judges file",
        valid="it lists judges: [{name, backend: {kind, model, ...}}]; see docs/judges.md",
        allowed="p2r-data schema judges prints what is allowed",
    )
