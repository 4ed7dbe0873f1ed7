"""What became of one question, and the released rows that it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from videop2r_data.builders.sources import BadRow, content
from videop2r_data.schemas import (
    Judgement,
    Outcome,
    ProcessTrace,
    RejectReason,
    Sample,
    Score,
    Stage,
    render_trace,
)
from videop2r_data.schemas.calls import MediaRecord
from videop2r_data.schemas.rows import RejectedRow, RlRow, SftRow

MAX_DETAIL = 500


@dataclass(frozen=True, slots=True)
class Result:
    """One question after the three steps.

    Attributes:
        outcome: None while an answer is outstanding (a batch that has not come back).
        reason: why it is not kept.
        attempt: the try that this result is about, from 0.
        completion: raw text of the generator.
        models: step -> model id as its server reported it, for the calls of this try.
    """

    sample: Sample
    outcome: Outcome | None
    stage: Stage | None = None
    reason: RejectReason | None = None
    detail: str = ""
    attempt: int = 0
    completion: str = ""
    trace: ProcessTrace | None = None
    score: Score | None = None
    judgement: Judgement | None = None
    media: MediaRecord | None = None
    generation_key: str = ""
    judge_key: str = ""
    models: dict[str, str] = field(default_factory=dict)


def _question(sample: Sample) -> dict[str, Any]:
    return content(sample) | {"sample_id": sample.sample_id}


def rl_row(sample: Sample) -> dict[str, Any]:
    """The `rl` row of a question."""
    return RlRow.model_validate(_question(sample)).model_dump(mode="json")


def sft_row(result: Result, *, synthetic: bool) -> dict[str, Any]:
    """The `sft` row of a kept result."""
    trace, media, score = result.trace, result.media, result.score
    assert trace is not None and score is not None and score.value is not None
    row = SftRow.model_validate(
        _question(result.sample)
        | {
            "observation": trace.observation,
            "think": trace.think,
            "answer": trace.answer,
            "process": trace.process,
            "output": render_trace(trace),
            "reward": score.value,
            "attempt": result.attempt,
            "judgement": result.judgement.verdict or "" if result.judgement else "",
            "judge_explanation": result.judgement.explanation if result.judgement else "",
            "frame_indices": list(media.indices) if media else [],
            "frame_times_s": list(media.times_s) if media else [],
            "source_fps": media.source_fps if media else None,
            "times": (media.times or "") if media else "",
            "media_missing": media.missing if media else None,
            "media_sha256": media.file_sha256 if media else "",
            "generation_key": result.generation_key,
            "judge_key": result.judge_key,
            "synthetic": synthetic,
        }
    )
    return row.model_dump(mode="json")


def rejected_row(result: Result, *, synthetic: bool) -> dict[str, Any]:
    """The `rejected` row of a result that is not kept."""
    assert result.outcome is not None and result.stage is not None and result.reason is not None
    row = RejectedRow.model_validate(
        _question(result.sample)
        | {
            "outcome": result.outcome,
            "stage": result.stage,
            "reason": result.reason.value,
            "detail": result.detail[:MAX_DETAIL],
            "output": result.completion,
            "reward": result.score.value if result.score else None,
            "attempt": result.attempt,
            "judge_explanation": result.judgement.explanation if result.judgement else "",
            "generation_key": result.generation_key,
            "judge_key": result.judge_key,
            "synthetic": synthetic,
        }
    )
    return row.model_dump(mode="json")


def bad_row(bad: BadRow, *, synthetic: bool) -> dict[str, Any]:
    """The `rejected` row of a pool row that could not be read."""
    row = RejectedRow(
        problem_id=bad.problem_id,
        problem=bad.raw,
        problem_type="",
        data_type="",
        options=[],
        solution="",
        path="",
        data_source="",
        sample_id=bad.sample_id,
        outcome=Outcome.FAILED,
        stage=Stage.POOL,
        reason=bad.reason.value,
        detail=bad.detail[:MAX_DETAIL],
        output="",
        reward=None,
        attempt=0,
        judge_explanation="",
        generation_key="",
        judge_key="",
        synthetic=synthetic,
    )
    return row.model_dump(mode="json")
