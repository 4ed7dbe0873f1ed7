"""The three steps for one question [paper §7], and all parts of a build, live or from the journal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from videop2r_data.backends import (
    Answer,
    BatchCaller,
    Caller,
    Journal,
    JudgeRequests,
    Loader,
    Money,
    Step,
    answer_variant,
    ask_verdict,
    fold,
    make_backend,
    make_batch_caller,
    make_breaker,
    make_caller,
    messages,
    open_keys,
)
from videop2r_data.builders.frames import ChangedMediaError, Held, MediaStep
from videop2r_data.builders.run import Result, Stop, Tally
from videop2r_data.builders.sources import open_source, read_pool
from videop2r_data.builders.workspace import Shard, Workspace
from videop2r_data.errors import ConfigError, MediaError, TransientError
from videop2r_data.media import DecodePool
from videop2r_data.prompts import VERDICT_AGAIN, Form, Prompt, load_form, load_prompt, render_generate
from videop2r_data.schemas import (
    Backend,
    BackendSpec,
    BadRow,
    Completion,
    Frames,
    Judgement,
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


def specs_of(recipe: Recipe) -> dict[str, BackendSpec]:
    """Step -> settings of what answers it, for the steps that the recipe has."""
    judge = {"judge": recipe.judge.backend} if recipe.judge is not None else {}
    return {"generate": recipe.generate.backend} | judge


class RequestBuilder:
    """Builds requests; the recipe's prompt paths are relative to `base`.

    Raises:
        ConfigError: a prompt is missing, or does not fit its step.
    """

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self.recipe = recipe
        self.generate_prompt: Prompt = load_prompt(recipe.generate.prompt, base=base, grammar=recipe.trace)
        self._judge = JudgeRequests(recipe.judge, base) if recipe.judge else None
        self.judge_prompt: Prompt | None = self._judge.prompt if self._judge else None
        self._generator_variant = answer_variant(recipe.generate.backend)
        self._attempts = [self._params(i) for i in range(recipe.generate.attempts)]
        for kind in ProblemType:  # a prompt that does not fit its step is an error before the first call
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


# Generate, verify, judge: up to `attempts` tries per question, each try judged only if it verifies.


_ANOTHER_TRY = (RejectReason.CONTENT_FILTERED, RejectReason.COMPLETION_EMPTY, RejectReason.NO_VERDICT)
"""Failures of one completion; the next try may succeed."""


class Asks(Protocol):
    """What answers a request: a `Caller`, or a batch."""

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer; None: not yet."""
        ...


class Recorder:
    """Passes requests on to `inner` and keeps them with their answers, in order."""

    def __init__(self, inner: Asks) -> None:
        self.inner = inner
        self.calls: list[tuple[Request, Answer | None]] = []

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """Ask `inner` and keep request and answer."""
        answer = await self.inner.ask(request, frames)
        self.calls.append((request, answer))
        return answer


@dataclass
class Steps:
    """Takes a question through generate, verify and judge.

    Attributes:
        judge: answers step 3; None skips it.
        live: calls may be made; False: answers that the journal lacks never come.
    """

    recipe: Recipe
    requests: RequestBuilder
    media: MediaStep
    generator: Asks
    judge: Asks | None
    live: bool

    async def run(self, sample: Sample) -> Result:
        """Everything about one question; the first try that passes every step is kept.

        Raises:
            AuthError, BudgetError: the run must stop.
        """
        with self.media.hold(sample) as held:
            try:
                for attempt in range(self.recipe.generate.attempts):
                    result = await self._one_try(sample, held, attempt)
                    if result.outcome is not Outcome.REJECTED and result.reason not in _ANOTHER_TRY:
                        break
                return result
            except MediaError as error:
                return Result(sample, Outcome.FAILED, Stage.MEDIA, RejectReason(error.reason), error.message)

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


@dataclass
class _Try:
    """One try at one question; its fields become those of the `Result`."""

    steps: Steps
    sample: Sample
    attempt: int
    media: MediaRecord | None
    held: Held
    completion: str = ""
    trace: ProcessTrace | None = None
    score: Score | None = None
    judgement: Judgement | None = None
    generation_key: str = ""
    judge_key: str = ""
    models: dict[str, str] = field(default_factory=dict)

    async def run(self) -> Result:
        request = self.steps.requests.generate(self.sample, self.media, self.attempt)
        self.generation_key = request.key
        try:
            answer = await self.steps.generator.ask(request, self._frames if self.media else None)
        except TransientError as error:
            return self._end(Outcome.FAILED, Stage.GENERATE, RejectReason.CALL_FAILED, error.message)
        if self.attempt + 1 == self.steps.recipe.generate.attempts:
            self.held.release()  # no further try needs the frames: free them before the judge is asked
        completion = self._completion(answer, Stage.GENERATE)
        return completion if isinstance(completion, Result) else await self._verify(completion)

    async def _frames(self) -> Frames:
        assert self.media is not None
        return await self.held.frames(self.media)

    async def _verify(self, completion: Completion) -> Result:
        self.completion = completion.text
        recipe = self.steps.recipe
        verified = verify_completion(completion.text, self.sample, recipe.verify, recipe.trace)
        check = verified.check
        if verified.trace is None and completion.finish_reason == "length":
            detail = f"cut at max_tokens: {check.detail}"
            return self._end(Outcome.REJECTED, Stage.GENERATE, RejectReason.COMPLETION_CUT, detail)
        self.trace, self.score = verified.trace, verified.score
        if check.reason is not None:
            return self._end(Outcome.REJECTED, Stage.VERIFY, check.reason, check.detail)
        assert self.trace is not None and self.score is not None
        return await self._judge(self.trace)

    async def _judge(self, trace: ProcessTrace) -> Result:
        judge = self.steps.judge
        if judge is None:
            return self._end(Outcome.KEPT)
        request = self.steps.requests.judge(self.sample, trace)
        self.judge_key = request.key
        try:
            asked = await ask_verdict(judge.ask, request, waits=self.steps.live)
        except TransientError as error:
            return self._end(Outcome.FAILED, Stage.JUDGE, RejectReason.CALL_FAILED, error.message)
        self.judge_key = asked.request.key
        completion = self._completion(asked.answer, Stage.JUDGE)
        if isinstance(completion, Result):
            return completion
        self.judgement = judgement = asked.judgement
        assert judgement is not None
        if judgement.verdict is Sufficiency.YES:
            return self._end(Outcome.KEPT)
        outcome, reason = Outcome.REJECTED, RejectReason.INSUFFICIENT
        if judgement.verdict is None:
            outcome, reason = Outcome.FAILED, RejectReason.NO_VERDICT
        return self._end(outcome, Stage.JUDGE, reason, judgement.explanation)

    def _completion(self, answer: Answer | None, stage: Stage) -> Completion | Result:
        """What can be read, or the result without it."""
        if answer is None:
            return self._end(None, stage, RejectReason.CALL_FAILED, "no answer yet")
        completion = answer.completion
        if completion is None:
            return self._end(Outcome.FAILED, stage, RejectReason.CALL_REFUSED, answer.refused)
        self.models[stage.value] = completion.model
        if completion.finish_reason == "content_filter":
            self.completion = self.completion or completion.text
            detail = "the model declined to answer"
            return self._end(Outcome.FAILED, stage, RejectReason.CONTENT_FILTERED, detail)
        if not completion.text.strip() and completion.finish_reason != "length":
            detail = "the reply holds no text"
            if completion.reasoning_chars:
                detail += f"; {completion.reasoning_chars:,} characters came as reasoning"
            return self._end(Outcome.FAILED, stage, RejectReason.COMPLETION_EMPTY, detail)
        return completion

    def _end(
        self,
        outcome: Outcome | None,
        stage: Stage | None = None,
        reason: RejectReason | None = None,
        detail: str = "",
    ) -> Result:
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("steps", "held")}
        return Result(**found, outcome=outcome, stage=stage, reason=reason, detail=detail)


# Put the parts of a build together: sources, media, callers and steps, live or from the journal only.


class Parts:
    """Everything that one build works with.

    Attributes:
        steps: takes one question through the build.
        generator, judge: what answers steps 1 and 3; the judge is None where the recipe has none.

    Args:
        live: calls may be made and files decoded; else answers come from the journal only.
        batches: a judge that takes batches is asked in batches.
        shard: work on this share of the pool only.
        stop: when it is asked, waits end and no further call is made.
        keep_going: do not stop for refusals and useless replies in a row.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: is told why a call is tried again.
    """

    def __init__(
        self,
        recipe: Recipe,
        place: Workspace,
        journal: Journal,
        *,
        live: bool,
        batches: bool = True,
        shard: Shard | None = None,
        stop: Stop | None = None,
        keep_going: bool = False,
        forgive: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.place = place
        self.journal = journal
        self.shard = shard
        self._kept: list[Sample | BadRow] | None = None
        self._tell = tell
        self._keep_going = keep_going
        self._forgive = forgive
        self.money = Money(journal, recipe.max_cost)
        self.requests = RequestBuilder(recipe, place.base)
        wanted = recipe.generate.backend.declared.frames
        # its processes start with the first file that must be decoded
        self.sampler = DecodePool(recipe.media, want=wanted) if live else None
        sources = [open_source(s, base=place.base, demo_root=place.demo) for s in recipe.sources]
        roots = {s.name: s.media_root for s in sources if s.media_root is not None}
        self.media = MediaStep(
            recipe.media, journal=journal, roots=roots, sampler=self.sampler, arrays=wanted == "array"
        )
        self.generator = self._caller(recipe.generate.backend, "generate", live=live)
        self.judge = self._judge(live=live, batches=batches)
        self.steps = Steps(recipe, self.requests, self.media, self.generator, self.judge, live)
        if stop is not None:
            stop.listen(self._stop)

    @property
    def callers(self) -> list[Caller | BatchCaller]:
        """What answers the steps."""
        return [self.generator] if self.judge is None else [self.generator, self.judge]

    def _stop(self) -> None:
        for caller in self.callers:
            caller.stop()
        self.media.store.stop()

    def waiting_for(self) -> str:
        """What the calls wait for, in words; empty while no call waits."""
        limiters = [caller.limiter for caller in self.callers if isinstance(caller, Caller)]
        return "; ".join(filter(None, (limiter.waiting_for() for limiter in limiters)))

    def record(self) -> dict[str, Recorder]:
        """Step -> its calls from now on, in order."""
        found = {"generate": Recorder(self.generator)}
        self.steps.generator = found["generate"]
        if self.judge is not None:
            self.steps.judge = found["judge"] = Recorder(self.judge)
        return found

    @property
    def window(self) -> int:
        """Questions under way at once: half as many again as may be in a call, so that both limits stay full.

        With just as many, the questions that crowd before one server would be missing before the other.
        """
        calls = sum(spec.concurrency for spec in specs_of(self.recipe).values())
        return calls + calls // 2 + 2 * self.recipe.media.workers

    def pool(self) -> Iterator[Sample | BadRow]:
        """The questions (of this process's share) in pool order: read anew, or kept if they are few."""
        if self._kept is not None:
            return iter(self._kept)
        pool = read_pool(self.recipe.sources, base=self.place.base, demo_root=self.place.demo)
        return pool if self.shard is None else filter(self.shard.owns, pool)

    def keep(self, rows: list[Sample | BadRow]) -> None:
        """Keep the rows of the whole pool in memory for the next pass."""
        self._kept = rows

    async def close(self) -> None:
        """Stop decoders and backends."""
        async with AsyncExitStack() as stack:
            for part in (self.sampler, self.media, *self.callers):
                if part is not None:
                    stack.push_async_callback(part.close)

    def _judge(self, *, live: bool, batches: bool) -> Caller | BatchCaller | None:
        if self.recipe.judge is None:
            return None
        spec = self.recipe.judge.backend
        if spec.batch and live and batches:
            breaker = make_breaker("judge", keep_going=self._keep_going, flags=True)
            return make_batch_caller(spec, journal=self.journal, money=self.money, breaker=breaker)
        events = self.journal.batch_events() if live else []
        if events and (waiting := len(open_keys(fold(events)))):
            raise ConfigError(
                f"{waiting:,} judge calls of this build are in a batch at the server; asked one by one "
                "as well, they would be paid twice",
                where=str(self.place.journal),
                hint="collect them first: p2r-data build with judge.backend.batch: true\n"
                "or give the batch up: p2r-data build --abandon-batch ID",
            )
        return self._caller(spec, "judge", live=live)

    def _caller(self, spec: BackendSpec, step: Step, *, live: bool) -> Caller:
        return make_caller(
            spec,
            backend_of(self.recipe, self.place, spec) if live else None,
            step,
            journal=self.journal,
            money=self.money,
            breaker=make_breaker(step, keep_going=self._keep_going, flags=True, grammar=self.recipe.trace),
            forgive=self._forgive,
            tell=self._tell,
        )


def backend_of(recipe: Recipe, place: Workspace, spec: BackendSpec) -> Backend:
    """The backend that answers a step of a recipe, not started yet; a demo world lies in `place`.

    Raises:
        ConfigError: the settings do not fit the kind, or a demo backend has no demo source.
    """

    def demo(spec: BackendSpec) -> Backend:
        from videop2r_data.demo import DemoBackend

        world = demo_source(recipe)
        if world is None:
            raise ConfigError(
                "a backend of kind demo answers only for a source of kind demo", where=recipe.name
            )
        return DemoBackend(spec, place.demo / world, recipe.trace)

    return make_backend(spec, demo=demo)


def demo_source(recipe: Recipe) -> str | None:
    """Name of the first source of kind demo."""
    return next((source.name for source in recipe.sources if source.kind == "demo"), None)


class Watcher(Protocol):
    """Progress display of a pass over the pool."""

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins; `total` questions if known."""

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more question is done."""
