"""The requests of steps 1 and 3, built from a recipe: the same question always makes the same request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videop2r_data.prompts import Prompt, load_prompt, render_generate
from videop2r_data.schemas import ProblemType, ProcessTrace, Sample, digest
from videop2r_data.schemas.calls import MediaRecord, Message, Request, SamplingParams
from videop2r_data.schemas.recipe import BackendSpec, Recipe
from videop2r_data.validators import render_judge

MAX_TEMPERATURE = 2.0


class RequestBuilder:
    """Builds requests.

    Args:
        recipe: what to ask, of whom.
        base: folder that prompt paths in the recipe are relative to.

    Raises:
        ConfigError: a prompt is missing, or does not fit its step.
    """

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self.recipe = recipe
        self.generate_prompt: Prompt = load_prompt(recipe.generate.prompt, base=base)
        self.judge_prompt: Prompt | None = (
            load_prompt(recipe.judge.prompt, base=base) if recipe.judge else None
        )
        self._check_prompts()
        self._generator_variant = _variant(recipe.generate.backend)
        self._judge_variant = _variant(recipe.judge.backend) if recipe.judge else ""
        self._attempts = [self._params(i) for i in range(recipe.generate.attempts)]

    def _check_prompts(self) -> None:
        """Render each prompt once: one that does not fit its step is found before anything is paid."""
        for kind in ProblemType:
            render_generate(self.generate_prompt, problem="?", options=(), problem_type=kind)
        if self.judge_prompt is not None:
            render_judge(self.judge_prompt, problem="?", options=(), answer="?", observation="?")

    def prompts(self) -> dict[str, str]:
        """Prompt name -> sha256 of its text."""
        return {p.name: p.sha256 for p in (self.generate_prompt, self.judge_prompt) if p is not None}

    def generate(self, sample: Sample, media: MediaRecord | None, attempt: int) -> Request:
        """Step 1, try `attempt` (from 0)."""
        text = render_generate(
            self.generate_prompt,
            problem=sample.problem,
            options=sample.options,
            problem_type=sample.problem_type,
        )
        return Request(
            purpose="generate",
            model=self.recipe.generate.backend.model,
            messages=_messages(self.generate_prompt.system, text, media=media is not None),
            params=self._attempts[attempt],
            media=media,
            media_encoding=self.recipe.media.wire if media is not None else "",
            variant=self._generator_variant,
        )

    def judge(self, sample: Sample, trace: ProcessTrace) -> Request:
        """Step 3: question, correct answer and observation, no media [paper §7.1]."""
        spec, prompt = self.recipe.judge, self.judge_prompt
        assert spec is not None and prompt is not None
        text = render_judge(
            prompt,
            problem=sample.problem,
            options=sample.options,
            answer=sample.reference,
            observation=trace.observation,
        )
        return Request(
            purpose="judge",
            model=spec.backend.model,
            messages=_messages(prompt.system, text, media=False),
            params=SamplingParams(temperature=spec.temperature, max_tokens=spec.max_tokens),
            variant=self._judge_variant,
        )

    def _params(self, attempt: int) -> SamplingParams:
        spec = self.recipe.generate
        # further tries always carry a seed: at equal temperatures they would otherwise be the same request
        seed = (spec.seed or 0) + attempt if attempt else spec.seed
        return SamplingParams(
            temperature=min(spec.temperature + attempt * spec.temperature_step, MAX_TEMPERATURE),
            max_tokens=spec.max_tokens,
            top_p=spec.top_p,
            seed=seed,
        )


def _variant(spec: BackendSpec) -> str:
    """Digest of the backend settings that shape an answer, beyond the request itself."""
    shaping: dict[str, Any] = {"revision": spec.revision} if spec.revision else {}
    if spec.kind == "openai":
        # the other kinds' extras say how a model is loaded, not what it is asked
        shaping |= {k: v for k, v in spec.extra.items() if k in ("body", "video")}
    return digest(shaping) if shaping else ""


def _messages(system: str, user: str, *, media: bool) -> tuple[Message, ...]:
    last = Message("user", user, media=media)
    return (Message("system", system), last) if system else (last,)
