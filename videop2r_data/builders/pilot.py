"""A pilot: rows that are really built, and what became of them, before the rest is paid."""

from __future__ import annotations

import math
from collections import Counter

from pydantic import Field

from videop2r_data.builders.outcome import Result
from videop2r_data.builders.steps import Steps
from videop2r_data.errors import BackendError
from videop2r_data.schemas import Outcome, RejectReason, Sample, Stage
from videop2r_data.schemas.base import Model

TRACES = 3
MAX_CHARS = 4000


class PilotTrace(Model):
    """One question of the pilot with its answer."""

    sample_id: str
    outcome: str
    """`kept`, `rejected` or `failed`."""
    reason: str
    """`stage/reason`; empty for a kept row."""
    detail: str
    problem: str
    reference: str
    output: str
    """What the generator wrote, its first `MAX_CHARS` characters."""
    judge: str
    """The judge's explanation; empty if it was not asked."""


class Pilot(Model):
    """What a pilot showed."""

    rows: int = Field(ge=0)
    """Rows that were asked about."""
    kept: int = Field(ge=0)
    rejected: int = Field(ge=0)
    failed: int = Field(ge=0)
    unanswered: int = Field(ge=0)
    """Of the failed ones: those that got no answer from a server; a build asks them again."""
    kept_share: float = Field(ge=0, le=1)
    """Of the rows that got their answers."""
    kept_low: float = Field(ge=0, le=1)
    kept_high: float = Field(ge=0, le=1)
    """95 % interval of `kept_share` (Wilson)."""
    reasons: dict[str, int]
    """`stage/reason` -> rows that are not kept, most frequent first."""
    usd: float = Field(ge=0)
    """What it cost; its calls are in the journal and are not paid again."""
    traces: list[PilotTrace]
    """A kept row, one that step 2 dropped and one that step 3 dropped, as far as there are such."""


class Watched:
    """The steps of a build, with their results kept; used where `Steps` is.

    Args:
        steps: what is done to one question.
    """

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.results: dict[str, Result] = {}

    async def process(self, sample: Sample) -> Result:
        """As `Steps.process`."""
        result = await self.steps.process(sample)
        self.results[sample.sample_id] = result
        return result


def pilot_of(drawn: list[Sample], results: dict[str, Result], *, usd: float) -> Pilot:
    """Sum a pilot up.

    Args:
        drawn: its rows, in pool order; those that were not reached before a stop have no result.
        results: sample id -> what became of it.
        usd: what it cost.

    Raises:
        BackendError: not one of its rows got an answer.
    """
    seen = [results[sample.sample_id] for sample in drawn if sample.sample_id in results]
    outcomes = Counter(result.outcome for result in seen)
    lost = [r for r in seen if r.outcome is Outcome.FAILED and r.reason in _NO_ANSWER]
    unanswered = sum(r.reason is RejectReason.CALL_FAILED for r in lost)
    if lost and not any(result.models for result in seen):
        raise BackendError(
            f"no row of the pilot got an answer ({len(lost)} of {len(seen)} asked); the last error: "
            f"{lost[-1].detail or lost[-1].reason}",
            hint="p2r-data doctor asks the servers one question each and says what to change",
        )
    reasons = Counter(f"{r.stage.value}/{r.reason.value}" for r in seen if r.stage and r.reason)
    kept, answered = outcomes[Outcome.KEPT], len(seen) - unanswered
    low, high = wilson(kept, answered)
    return Pilot(
        rows=len(seen),
        kept=kept,
        rejected=outcomes[Outcome.REJECTED],
        failed=outcomes[Outcome.FAILED],
        unanswered=unanswered,
        kept_share=kept / answered if answered else 0.0,
        kept_low=low,
        kept_high=high,
        reasons=dict(reasons.most_common()),
        usd=usd,
        traces=[_trace(result) for result in _telling(seen)],
    )


_NO_ANSWER = (RejectReason.CALL_FAILED, RejectReason.CALL_REFUSED)


def _telling(seen: list[Result]) -> list[Result]:
    """A kept row, one dropped by step 2 and one by step 3; then whatever else has a text."""
    texts = [result for result in seen if result.completion]
    kept = [result for result in texts if result.outcome is Outcome.KEPT]
    verify = [result for result in texts if result.stage is Stage.VERIFY]
    judge = [result for result in texts if result.stage is Stage.JUDGE]
    first = [*kept[:1], *verify[:1], *judge[:1]]
    return [*first, *(result for result in texts if result not in first)][:TRACES]


def _trace(result: Result) -> PilotTrace:
    return PilotTrace(
        sample_id=result.sample.sample_id,
        outcome=result.outcome.value if result.outcome else "",
        reason=f"{result.stage.value}/{result.reason.value}" if result.stage and result.reason else "",
        detail=result.detail,
        problem=result.sample.problem,
        reference=result.sample.reference,
        output=result.completion[:MAX_CHARS],
        judge=result.judgement.explanation if result.judgement else "",
    )


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share, 95 % by default.

    >>> tuple(round(x, 3) for x in wilson(50, 100))
    (0.404, 0.596)
    """
    if n == 0:
        return 0.0, 1.0
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
