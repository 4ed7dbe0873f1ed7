"""From an observation to a judge's request, and from its answer to a verdict [paper §7.1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videop2r_data.backends.caller import Answer
from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas import Sufficiency, digest
from videop2r_data.schemas.calls import Message, Request, SamplingParams
from videop2r_data.schemas.recipe import BackendSpec
from videop2r_data.trainer.judging.base import Judged, JudgeItem, Reason
from videop2r_data.trainer.judging.specs import JudgingSpec
from videop2r_data.validators import parse_judgement, render_judge

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
        self.model = spec.backend.model
        self.prompt = load_prompt(spec.prompt, base=base)
        self.params = SamplingParams(temperature=spec.temperature, max_tokens=spec.max_tokens)
        self.variant = _variant(spec.backend)
        # a prompt that does not fit is found before anything is trained or paid
        render_judge(self.prompt, problem="?", options=(), answer="?", observation="?")

    def request(self, item: JudgeItem) -> Request:
        """Question, correct answer and observation, neutralised; never the media."""
        example = item.example
        text = render_judge(
            self.prompt,
            problem=example.problem,
            options=example.options,
            answer=example.reference,
            observation=item.observation or "",
        )
        user = Message("user", text)
        system = self.prompt.system
        return Request(
            purpose="judge",
            model=self.model,
            messages=(Message("system", system), user) if system else (user,),
            params=self.params,
            variant=self.variant,
        )


def verdict(answer: Answer | None, *, cached: bool) -> Judged:
    """Read a judge's answer; what is no verdict is unscored, with its reason."""
    if answer is None or answer.completion is None:
        detail = "" if answer is None else answer.refused[:DETAIL_CHARS]
        return Judged(None, Reason.REFUSED, cached, detail)
    if answer.completion.finish_reason == "content_filter":
        return Judged(None, Reason.REFUSED, cached, "the judge's model declined to answer")
    judgement = parse_judgement(answer.completion.text)
    words = judgement.explanation[:DETAIL_CHARS]
    if judgement.verdict is None:
        return Judged(None, Reason.NO_VERDICT, cached, words)
    return Judged(judgement.verdict is Sufficiency.YES, Reason.JUDGED, cached, words)


def _variant(spec: BackendSpec) -> str:
    """Digest of the backend's settings that shape an answer beyond the request, as a build makes it."""
    shaping: dict[str, Any] = {"revision": spec.revision} if spec.revision else {}
    if spec.kind == "openai":
        shaping |= {k: v for k, v in spec.extra.items() if k in ("body", "video")}
    return digest(shaping) if shaping else ""
