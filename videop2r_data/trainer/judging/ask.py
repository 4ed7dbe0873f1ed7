"""From an observation to a judge's request, and from its answer to a verdict [paper §7.1]."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.backends.judge_requests import JudgeRequests, Verdict
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import JudgeSpec, Request, Sufficiency
from videop2r_data.trainer.judging.base import Judged, JudgeItem, Reason
from videop2r_data.trainer.judging.specs import JudgingSpec

DETAIL_CHARS = 2000


class Asker:
    """Makes requests; equal (question, answer, observation) under equal settings make one request.

    The request of an observation has the same key as in a build with the same judge, so that the journal of a
    build can serve as the cache of a training run.

    Args:
        spec: `kind: backend`.
        base: folder that a prompt's path is relative to.

    Raises:
        ConfigError: the prompt is missing, or is no judge prompt.
    """

    def __init__(self, spec: JudgingSpec, base: Path | None = None) -> None:
        if spec.backend is None:
            raise ConfigError("no model to ask", where="judging", hint="set judging.kind: backend")
        self._requests = JudgeRequests(
            JudgeSpec(
                backend=spec.backend,
                prompt=spec.prompt,
                temperature=spec.temperature,
                max_tokens=spec.max_tokens,
            ),
            base,
        )

    def request(self, item: JudgeItem) -> Request:
        """Question, correct answer and observation, neutralised; never the media."""
        example = item.example
        return self._requests.request(
            problem=example.problem,
            options=example.options,
            answer=example.reference,
            observation=item.observation or "",
        )


def verdict(asked: Verdict, *, cached: bool) -> Judged:
    """What a judge said; what is no verdict is unscored, with its reason."""
    answer = asked.answer
    if answer is None or answer.completion is None:
        detail = "" if answer is None else answer.refused[:DETAIL_CHARS]
        return Judged(None, Reason.REFUSED, cached, detail)
    judgement = asked.judgement
    if judgement is None:
        return Judged(None, Reason.REFUSED, cached, "the judge's model declined to answer")
    words = judgement.explanation[:DETAIL_CHARS]
    if judgement.verdict is None:
        return Judged(None, Reason.NO_VERDICT, cached, words)
    return Judged(judgement.verdict is Sufficiency.YES, Reason.JUDGED, cached, words)
