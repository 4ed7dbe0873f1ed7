"""Look one sample up: its question, its verdicts, and the calls behind them, out of the journal."""

from __future__ import annotations

from typing import Any

from videop2r_data.backends.journal import Journal
from videop2r_data.builders.assemble import Parts
from videop2r_data.builders.outcome import Result
from videop2r_data.builders.recorder import Recorder
from videop2r_data.builders.reproduce import locked, read_lock
from videop2r_data.builders.sources import BadRow
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Sample
from videop2r_data.schemas.base import Model


class CallView(Model):
    """One call of a sample."""

    key: str
    purpose: str
    model: str
    served: str
    messages: list[dict[str, Any]]
    params: dict[str, Any]
    answer: str
    refused: str
    finish_reason: str
    usage: dict[str, int]


class SampleView(Model):
    """Everything that is known of one sample."""

    sample: dict[str, Any]
    outcome: str
    stage: str
    reason: str
    detail: str
    attempt: int
    score: float | None
    score_reason: str
    judgement: str
    judge_explanation: str
    segments: dict[str, str]
    media: dict[str, Any] | None
    calls: list[CallView]


async def look_up(place: Workspace, wanted: str) -> SampleView:
    """Replay one sample.

    Args:
        place: the data set and its journal.
        wanted: sample_id or problem_id; empty: the first row of the pool.

    Raises:
        ConfigError: there is no such sample.
    """
    recipe = locked(read_lock(place.out), place.out)
    with Journal(place.journal, readonly=True) as journal:
        parts = Parts(recipe, place, journal, live=False)
        item = _find(parts, wanted)
        if isinstance(item, BadRow):
            return _bad(item)
        recorders = [Recorder(parts.generator)]
        parts.steps.generator = recorders[0]
        if parts.judge is not None:
            recorders.append(Recorder(parts.judge))
            parts.steps.judge = recorders[1]
        return _view(await parts.steps.process(item), recorders)


def _find(parts: Parts, wanted: str) -> Sample | BadRow:
    for item in parts.pool():
        if wanted in ("", item.sample_id, item.problem_id):
            return item
    raise ConfigError(
        f"no sample {wanted!r} in the pool",
        hint="sample_id and problem_id stand in every row of the data set",
    )


def _bad(item: BadRow) -> SampleView:
    return SampleView(
        sample={"source": item.source, "row": item.row, "problem_id": item.problem_id, "raw": item.raw},
        outcome="failed",
        stage="pool",
        reason=item.reason.value,
        detail=item.detail,
        attempt=0,
        score=None,
        score_reason="",
        judgement="",
        judge_explanation="",
        segments={},
        media=None,
        calls=[],
    )


def _view(result: Result, recorders: list[Recorder]) -> SampleView:
    return SampleView(
        sample=result.sample.model_dump(mode="json"),
        outcome=result.outcome.value if result.outcome else "waiting",
        stage=result.stage.value if result.stage else "",
        reason=result.reason.value if result.reason else "",
        detail=result.detail,
        attempt=result.attempt,
        score=result.score.value if result.score else None,
        score_reason=result.score.reason.value if result.score else "",
        judgement=(result.judgement.verdict or "no verdict") if result.judgement else "",
        judge_explanation=result.judgement.explanation if result.judgement else "",
        segments=result.trace.model_dump() if result.trace else {},
        media=result.media.model_dump(mode="json") if result.media else None,
        calls=[
            CallView(
                key=request.key,
                purpose=request.purpose,
                model=request.model,
                served=answer.completion.model if answer and answer.completion else "",
                messages=[{"role": m.role, "text": m.text, "media": m.media} for m in request.messages],
                params=request.params.canonical(),
                answer=answer.completion.text if answer and answer.completion else "",
                refused=answer.refused if answer else "not in the journal",
                finish_reason=answer.completion.finish_reason if answer and answer.completion else "",
                usage=answer.completion.usage.model_dump() if answer and answer.completion else {},
            )
            for recorder in recorders
            for request, answer in recorder.calls
        ],
    )
