"""The requests of steps 1 and 3, built from a recipe: the same question always makes the same request."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.backends.judge_requests import JudgeRequests, answer_variant, messages
from videop2r_data.prompts import VERDICT_AGAIN, Form, Prompt, load_form, load_prompt, render_generate
from videop2r_data.schemas import ProblemType, ProcessTrace, Sample
from videop2r_data.schemas.calls import MediaRecord, Request, SamplingParams
from videop2r_data.schemas.recipe import Recipe

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
        self._judge = JudgeRequests(recipe.judge, base) if recipe.judge else None
        self.judge_prompt: Prompt | None = self._judge.prompt if self._judge else None
        self._check_prompts()
        self._generator_variant = answer_variant(recipe.generate.backend)
        self._attempts = [self._params(i) for i in range(recipe.generate.attempts)]

    def _check_prompts(self) -> None:
        """Render each prompt once: one that does not fit its step is found before anything is paid."""
        for kind in ProblemType:
            render_generate(self.generate_prompt, problem="?", options=(), problem_type=kind)

    def prompts(self) -> dict[str, str]:
        """Prompt name -> sha256 of its text."""
        used: list[Prompt | Form] = [self.generate_prompt]
        if self.judge_prompt is not None:
            used += (self.judge_prompt, load_form(VERDICT_AGAIN))
        return {p.name: p.sha256 for p in used}

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
            messages=messages(self.generate_prompt.system, text, media=media is not None),
            params=self._attempts[attempt],
            media=media,
            media_encoding=self.recipe.media.wire_of(media.passthrough) if media is not None else "",
            variant=self._generator_variant,
        )

    def judge(self, sample: Sample, trace: ProcessTrace) -> Request:
        """Step 3: question, correct answer and observation, no media [paper §7.1]."""
        assert self._judge is not None
        return self._judge.request(
            problem=sample.problem,
            options=sample.options,
            answer=sample.reference,
            observation=trace.observation,
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
