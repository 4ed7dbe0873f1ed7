"""An evaluation: one graded question, and what a benchmark's questions come to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.rows import ClaimCell, Int32, JudgementCell, SegmentCell
from videop2r_data.schemas.sample import DataType, ProblemType
from videop2r_data.schemas.verdict import Unit

Place = Literal["segment", "tag", "cue", "boxed", "bare", ""]
"""Where an answer was found: the answer segment of a whole trace; an answer tag; behind words that announce
it; in a box; the whole text; nowhere."""


class Reply(Model):
    """What a model answered to one question, and what the answer is worth."""

    text: str
    """the completion; empty if there is none"""
    finish: str
    """stop, length, content_filter or other; empty if there is no completion"""
    failed: str
    """reason code if the question got no completion; empty if it did"""
    detail: str
    """the error in words"""
    answer: str | None
    """as it was read out of the completion"""
    place: str
    """where the answer was found: segment, tag, cue, boxed, bare; empty: nowhere"""
    score: Unit | None
    """by the metric of the benchmark; 0 without a completion; None: the reference cannot be used"""
    reason: str
    """why the score is what it is"""
    input_tokens: Int32
    """as the server counted them, pixels included"""
    output_tokens: Int32
    """as the server counted them"""
    key: str
    """sha256 of the request: its key in the journal"""


class TagCell(Model):
    """One tag of a question, as it stands in the column `tags`."""

    name: str
    """task, level, duration ..."""
    value: str
    """of this question"""


class NamedReply(Model):
    """A reply of the perception examination, as it stands in the column `examined`."""

    shown: str
    """what stood in front of the question: nothing, media, or observation"""
    model: str
    """who answered"""
    reply: Reply
    """what was answered"""


class EvalRow(Model):
    """One question of an evaluation: a row of `rows/<benchmark>.parquet`."""

    benchmark: str
    """name of its declaration"""
    problem_id: str
    """id in the benchmark"""
    sample_id: str
    """benchmark/problem_id"""
    problem: str
    """the question"""
    problem_type: ProblemType
    data_type: DataType
    options: list[str]
    """"A. text" and so on; empty unless multiple choice"""
    reference: str
    """the reference answer"""
    path: str
    """media file below the media root"""
    start_s: float | None
    """where the part of the clip begins"""
    end_s: float | None
    """where it ends"""
    tags: list[TagCell]
    """what the tables go by"""
    reply: Reply
    """the answer of the model that is evaluated"""
    blind: Reply | None
    """the same model asked without media; None: not asked"""
    segments: list[SegmentCell]
    """of the trace; empty if the completion is none"""
    well_formed: bool
    """the completion is a trace of the grammar that was asked for"""
    fault: str
    """why it is none"""
    words: dict[str, int]
    """words of each segment"""
    frame_indices: list[Int32]
    """frames that the model saw, in display order"""
    frame_times_s: list[float]
    """their times in seconds from the first shown frame"""
    frame_width: Int32
    """pixels of a frame, as it was sent"""
    frame_height: Int32
    """pixels of a frame, as it was sent"""
    mismatch_rule: bool | None
    """think settles on another answer, by the rule; None: no rule decides"""
    think_option: str | None
    """what the judge says that think settles on; No: on nothing; None: not asked, or no verdict"""
    mismatch_judge: bool | None
    """it differs from the answer; None: not asked, or no verdict"""
    judgements: list[JudgementCell]
    """of each judge of sufficiency and of faithfulness"""
    claims: list[ClaimCell]
    """of the first judge that sees"""
    examined: list[NamedReply]
    """answers of the perception examination"""


class Measured(Model):
    """One figure of a benchmark with its interval, beside that of the question alone."""

    protocol: str
    """id of the aggregate, e.g. vsi_macro8"""
    by: str = ""
    """tag that the table goes by; empty: the benchmark as a whole"""
    group: str = ""
    """value of the tag"""
    value: float | None
    low: float | None
    high: float | None
    n: int = Field(ge=0)
    """questions behind it, those without an answer included"""
    question_only: float | None = None
    """the same of the answers without media"""
