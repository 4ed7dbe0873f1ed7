"""The released rows: configs `sft` (default), `rl` and `rejected`.

Columns that the official release has keep its names: `observation` is P, `process` is R, `output` the whole
trace, `reward` the score of the answer.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.reasons import Outcome, Stage
from videop2r_data.schemas.sample import DataType, ProblemType
from videop2r_data.schemas.verdict import Unit

Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31), "int32"]


class QuestionColumns(Model):
    """What every config says of its question."""

    problem_id: str
    problem: str
    problem_type: str
    data_type: str
    options: list[str]
    """`[]` when there are none, never null."""
    solution: str
    """Reference, `<answer>…</answer>`."""
    path: str
    """Media file relative to the media root of its source; empty for text."""
    data_source: str
    sample_id: str


class RlRow(QuestionColumns):
    """One question of the pool whose row and media could be read: config `rl`."""

    problem_type: ProblemType
    data_type: DataType


class SftRow(QuestionColumns):
    """One accepted trace: config `sft`."""

    problem_type: ProblemType
    data_type: DataType
    observation: str
    """P, without its tags."""
    think: str
    answer: str
    """The model's answer, without its tag."""
    process: str
    """R: `<think>…</think><answer>…</answer>`."""
    output: str
    """The whole trace, canonical."""
    reward: Unit
    """Score of `answer` against `solution` by the metric of the type."""
    attempt: Int32
    """Which try was kept, from 0."""
    judgement: str
    """`Yes`, or empty when the recipe has no judge."""
    judge_explanation: str
    frame_indices: list[Int32]
    frame_times_s: list[float]
    source_fps: float | None
    times: str
    """`exact`, `repaired` or `assumed`: where `frame_times_s` come from; empty for images and text, and where
    the journal's record does not say."""
    media_missing: float | None
    """Share of the media file that its container promises and that could not be decoded."""
    media_sha256: str
    generation_key: str
    """Key of the generating call in the journal."""
    judge_key: str
    synthetic: bool


class RejectedRow(QuestionColumns):
    """One question that is not in `sft`, with the reason: config `rejected`.

    A row that could not be read from its pool is here too: `problem` is then its raw text, cut.
    """

    outcome: Outcome
    stage: Stage
    reason: str
    """A `RejectReason` value."""
    detail: str
    output: str
    """The raw completion of the last try, if there is one."""
    reward: Unit | None
    attempt: Int32
    judge_explanation: str
    generation_key: str
    judge_key: str
    synthetic: bool


CONFIGS: dict[str, type[QuestionColumns]] = {"sft": SftRow, "rl": RlRow, "rejected": RejectedRow}

ADDED_LATER: dict[str, dict[str, Any]] = {"sft": {"times": "", "media_missing": None}}
"""Config -> columns that earlier data sets lack, and the cell that stands for "not noted". Such data sets
stay valid; what is written today has every column."""
