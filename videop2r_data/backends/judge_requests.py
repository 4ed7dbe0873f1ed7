"""The request of step 3: the same question, answer and observation always make the same one.

A build, a training run and a calibration of judges share it, so that one's journal answers the other's calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videop2r_data.prompts import Prompt, load_prompt
from videop2r_data.schemas import digest
from videop2r_data.schemas.calls import Message, Request, SamplingParams
from videop2r_data.schemas.recipe import BackendSpec, JudgeSpec
from videop2r_data.validators import render_judge


class JudgeRequests:
    """Builds a judge's requests: question, correct answer and observation, no media [paper §7.1].

    Args:
        spec: whom to ask, and how.
        base: folder that a prompt's path is relative to; None: the current one.

    Raises:
        ConfigError: the prompt is missing, or is no judge prompt. It is rendered once here, so that this is
            found before anything is paid.
    """

    def __init__(self, spec: JudgeSpec, base: Path | None = None) -> None:
        self.spec = spec
        self.prompt: Prompt = load_prompt(spec.prompt, base=base)
        self._params = SamplingParams(temperature=spec.temperature, max_tokens=spec.max_tokens)
        self._variant = answer_variant(spec.backend)
        render_judge(self.prompt, problem="?", options=(), answer="?", observation="?")

    def request(self, *, problem: str, options: Sequence[str], answer: str, observation: str) -> Request:
        """One call; all of its texts are neutralised."""
        text = render_judge(
            self.prompt, problem=problem, options=options, answer=answer, observation=observation
        )
        return Request(
            purpose="judge",
            model=self.spec.backend.model,
            messages=messages(self.prompt.system, text, media=False),
            params=self._params,
            variant=self._variant,
        )


def messages(system: str, user: str, *, media: bool) -> tuple[Message, ...]:
    """A system message, unless it is empty, and a user message."""
    last = Message("user", user, media=media)
    return (Message("system", system), last) if system else (last,)


def answer_variant(spec: BackendSpec) -> str:
    """Digest of the backend settings that shape an answer, beyond the request itself; empty if none does."""
    shaping: dict[str, Any] = {"revision": spec.revision} if spec.revision else {}
    if spec.kind == "openai":
        # the other kinds' extras say how a model is loaded, not what it is asked
        shaping |= {k: v for k, v in spec.extra.items() if k in ("body", "video")}
    return digest(shaping) if shaping else ""
