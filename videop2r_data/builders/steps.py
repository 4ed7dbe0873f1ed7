"""The three steps for one question: generate, verify, judge [paper §7]."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from videop2r_data.backends import Answer, JudgeRequests, Loader, answer_variant, ask_verdict, messages
from videop2r_data.builders.frames import ChangedMediaError, Held, MediaStep
from videop2r_data.builders.run import Result
from videop2r_data.errors import MediaError, TransientError
from videop2r_data.prompts import VERDICT_AGAIN, Form, Prompt, load_form, load_prompt, render_generate
from videop2r_data.schemas import (
    Completion,
    Frames,
    MediaRecord,
    Outcome,
    ProblemType,
    ProcessTrace,
    Recipe,
    RejectReason,
    Request,
    Sample,
    SamplingParams,
    Score,
    Stage,
    Sufficiency,
)
from videop2r_data.validators import verify_completion

# Requests of steps 1 and 3: the same recipe and question make the same request, so the same journal key.


MAX_TEMPERATURE = 2.0


class RequestBuilder:
    """Builds requests.

    Args:
        recipe: models, prompts and sampling parameters.
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
        """Render each prompt once: a prompt that does not fit its step is an error before the first call."""
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


# A listener at the calls of a step, for pilots and `show`.


class Recorder:
    """Passes requests on and keeps them with their answers, in order.

    Args:
        inner: the caller or batch that answers.
    """

    def __init__(self, inner: Asks) -> None:
        self.inner = inner
        self.calls: list[tuple[Request, Answer | None]] = []

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """Ask `inner` and keep request and answer."""
        answer = await self.inner.ask(request, frames)
        self.calls.append((request, answer))
        return answer


# Generate, verify, judge: up to `attempts` tries per question, each try judged only if it verifies.


_ANOTHER_TRY = (RejectReason.CONTENT_FILTERED, RejectReason.COMPLETION_EMPTY, RejectReason.NO_VERDICT)
"""Failures of one completion; the next try may succeed."""


class Asks(Protocol):
    """What answers a request: a `Caller`, or a batch."""

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer; None: not yet."""
        ...


class Steps:
    """Takes a question through generate, verify and judge.

    Args:
        recipe: thresholds, attempts and checks.
        requests: builds the calls.
        media: samples frames.
        generator: answers step 1.
        judge: answers step 3; None skips it.
        live: calls may be made; False: answers that the journal lacks never come.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        requests: RequestBuilder,
        media: MediaStep,
        generator: Asks,
        judge: Asks | None,
        live: bool = True,
    ) -> None:
        self.live = live
        self.recipe = recipe
        self.requests = requests
        self.media = media
        self.generator = generator
        self.judge = judge

    async def run(self, sample: Sample) -> Result:
        """Everything about one question; the first try that passes every step is kept.

        Raises:
            AuthError, BudgetError: the run must stop.
        """
        with self.media.hold(sample) as held:
            try:
                return await self._tries(sample, held)
            except MediaError as error:
                return Result(
                    sample,
                    Outcome.FAILED,
                    Stage.MEDIA,
                    RejectReason(error.reason),
                    error.message,
                )

    async def _tries(self, sample: Sample, held: Held) -> Result:
        result: Result | None = None
        for attempt in range(self.recipe.generate.attempts):
            result = await self._one_try(sample, held, attempt)
            if result.outcome is not Outcome.REJECTED and result.reason not in _ANOTHER_TRY:
                break
        assert result is not None
        return result

    async def _one_try(self, sample: Sample, held: Held, attempt: int) -> Result:
        for _ in range(3):
            media = await held.record()
            try:
                return await _Try(self, sample, attempt, media, held).run()
            except ChangedMediaError:
                continue  # the file changed: its new record is in the journal, build the request from that
        raise MediaError(
            "the file changes while it is read", reason=RejectReason.MEDIA_UNREADABLE.value, where=sample.path
        )


class _Try:
    """One try at one question; its fields become those of the `Result`."""

    def __init__(
        self, steps: Steps, sample: Sample, attempt: int, media: MediaRecord | None, held: Held
    ) -> None:
        self.steps = steps
        self.held = held
        self.sample = sample
        self.attempt = attempt
        self.media = media
        self.completion = ""
        self.generation_key = ""
        self.judge_key = ""
        self.models: dict[str, str] = {}

    async def run(self) -> Result:
        request = self.steps.requests.generate(self.sample, self.media, self.attempt)
        self.generation_key = request.key
        try:
            answer = await self.steps.generator.ask(request, self._frames if self.media else None)
        except TransientError as error:
            return self._end(Outcome.FAILED, Stage.GENERATE, RejectReason.CALL_FAILED, error.message)
        if self.attempt + 1 == self.steps.recipe.generate.attempts:
            self.held.release()  # no further try needs the frames: free them before the judge is asked
        completion = self._completion(answer, "generate")
        return completion if isinstance(completion, Result) else await self._verify(completion)

    async def _frames(self) -> Frames:
        assert self.media is not None
        return await self.held.frames(self.media)

    async def _verify(self, completion: Completion) -> Result:
        self.completion = completion.text
        verified = verify_completion(completion.text, self.sample, self.steps.recipe.verify)
        if verified.trace is None and completion.finish_reason == "length":
            return self._end(
                Outcome.REJECTED,
                Stage.GENERATE,
                RejectReason.COMPLETION_CUT,
                f"cut at max_tokens: {verified.check.detail}",
            )
        if verified.check.reason is not None:
            return self._end(
                Outcome.REJECTED,
                Stage.VERIFY,
                verified.check.reason,
                verified.check.detail,
                trace=verified.trace,
                score=verified.score,
            )
        assert verified.trace is not None and verified.score is not None
        return await self._judge(verified.trace, verified.score)

    async def _judge(self, trace: ProcessTrace, score: Score) -> Result:
        judge = self.steps.judge
        if judge is None:
            return self._end(Outcome.KEPT, trace=trace, score=score)
        request = self.steps.requests.judge(self.sample, trace)
        self.judge_key = request.key
        try:
            asked = await ask_verdict(judge.ask, request, waits=self.steps.live)
        except TransientError as error:
            return self._end(
                Outcome.FAILED,
                Stage.JUDGE,
                RejectReason.CALL_FAILED,
                error.message,
                trace=trace,
                score=score,
            )
        self.judge_key = asked.request.key
        completion = self._completion(asked.answer, "judge", trace=trace, score=score)
        if isinstance(completion, Result):
            return completion
        judgement = asked.judgement
        assert judgement is not None
        if judgement.verdict is Sufficiency.YES:
            return self._end(Outcome.KEPT, trace=trace, score=score, judgement=judgement)
        outcome, reason = Outcome.REJECTED, RejectReason.INSUFFICIENT
        if judgement.verdict is None:
            outcome, reason = Outcome.FAILED, RejectReason.NO_VERDICT
        return self._end(
            outcome,
            Stage.JUDGE,
            reason,
            judgement.explanation,
            trace=trace,
            score=score,
            judgement=judgement,
        )

    def _completion(
        self,
        answer: Answer | None,
        step: str,
        *,
        trace: ProcessTrace | None = None,
        score: Score | None = None,
    ) -> Completion | Result:
        stage = Stage(step)
        if answer is None:
            return self._end(None, stage, RejectReason.CALL_FAILED, "no answer yet", trace=trace, score=score)
        if answer.completion is None:
            reason = RejectReason.CALL_REFUSED
            return self._end(Outcome.FAILED, stage, reason, answer.refused, trace=trace, score=score)
        self.models[step] = answer.completion.model
        if answer.completion.finish_reason == "content_filter":
            self.completion = self.completion or answer.completion.text
            reason = RejectReason.CONTENT_FILTERED
            return self._end(
                Outcome.FAILED, stage, reason, "the model declined to answer", trace=trace, score=score
            )
        if not answer.completion.text.strip() and answer.completion.finish_reason != "length":
            reason = RejectReason.COMPLETION_EMPTY
            detail = "the reply holds no text"
            if answer.completion.reasoning_chars:
                detail += f"; {answer.completion.reasoning_chars:,} characters came as reasoning"
            return self._end(Outcome.FAILED, stage, reason, detail, trace=trace, score=score)
        return answer.completion

    def _end(
        self,
        outcome: Outcome | None,
        stage: Stage | None = None,
        reason: RejectReason | None = None,
        detail: str = "",
        **found: object,
    ) -> Result:
        return Result(
            self.sample,
            outcome,
            stage,
            reason,
            detail,
            attempt=self.attempt,
            completion=self.completion,
            media=self.media,
            generation_key=self.generation_key,
            judge_key=self.judge_key,
            models=self.models,
            **found,  # type: ignore[arg-type]
        )
