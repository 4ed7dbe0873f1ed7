"""The three steps for one question [paper §7], and all parts of a build, live or from the journal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.backends import (
    BatchCaller,
    Breaker,
    Caller,
    Journal,
    Money,
    Step,
    answer_variant,
    batch_scope,
    fold,
    make_backend,
    make_batches,
    make_breaker,
    make_caller,
    messages,
    open_keys,
)
from videop2r_data.builders.frames import Held, MediaStep
from videop2r_data.builders.judging import (
    Asks,
    Bench,
    Judging,
    Recorder,
    Ruling,
    question_prompt,
    question_text,
    unusable,
)
from videop2r_data.builders.run import Done, Result, Stop
from videop2r_data.builders.sources import Source, open_source, open_sources
from videop2r_data.builders.workspace import Shard, Workspace
from videop2r_data.errors import ConfigError, MediaError, TransientError
from videop2r_data.media import DecodePool
from videop2r_data.prompts import Prompt
from videop2r_data.schemas import (
    NOT_SHOWN,
    Backend,
    BackendSpec,
    BadRow,
    MediaRecord,
    MediaSpec,
    Outcome,
    Purpose,
    Recipe,
    RejectReason,
    Request,
    Sample,
    SamplingParams,
    Stage,
)
from videop2r_data.validators import verify_completion

if TYPE_CHECKING:
    from videop2r_data.builders.cluster import Cluster
    from videop2r_data.builders.finished import Finished

# Requests of steps 1 and 3: the same recipe and question make the same request, so the same journal key.


MAX_TEMPERATURE = 2.0


class RequestBuilder:
    """Builds the requests of step 1; the recipe's prompt paths are relative to `base`.

    Args:
        prompt: in place of the recipe's.
        purpose: what the calls are for; `blind` shows no media.

    Raises:
        ConfigError: a prompt is missing, or does not fit its step.
    """

    def __init__(
        self, recipe: Recipe, base: Path, *, prompt: Prompt | None = None, purpose: Purpose = "generate"
    ) -> None:
        self.recipe = recipe
        self.purpose = purpose
        self.generate_prompt = prompt or question_prompt(recipe.generate.prompt, base, recipe.trace)
        self._generator_variant = answer_variant(recipe.generate.backend)
        self._attempts = [self._params(i) for i in range(recipe.generate.attempts)]

    def generate(self, sample: Sample, media: MediaRecord | None, attempt: int) -> Request:
        """Step 1, try `attempt` (from 0)."""
        text = question_text(self.generate_prompt, sample)
        backend = self.recipe.generate.backend
        encoded = self.recipe.media.wire_of(media.passthrough) if media is not None else ""
        return Request(
            purpose=self.purpose,
            model=backend.identity,
            messages=messages(self.generate_prompt.system, text, media=media is not None),
            params=self._attempts[attempt],
            media=media,
            media_encoding=backend.wire_of(media, encoded),
            variant=self._generator_variant,
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


@dataclass
class Steps:
    """Takes a question through generate, verify and judge.

    Attributes:
        generator: answers step 1.
        judging: takes care of step 3, if the recipe has judges.
        left_out: sample_id -> why it is not asked.
    """

    recipe: Recipe
    requests: RequestBuilder
    media: MediaStep
    generator: Asks
    judging: Judging
    left_out: Mapping[str, str]

    async def run(self, sample: Sample) -> Result:
        """Everything about one question; the first try that passes every step is kept.

        Raises:
            AuthError, BudgetError: the run must stop.
        """
        if (why := self.left_out.get(sample.sample_id)) is not None:
            return Result(sample, Outcome.REJECTED, Stage.POOL, RejectReason.OVERLAPS, why)
        before = await self.judging.before(sample)
        if before.outcome is not Outcome.KEPT:
            return _ruled(Result(sample, None, Stage.JUDGE), before)
        with self.media.hold(sample) as held:
            try:
                for attempt in range(self.recipe.generate.attempts):
                    result = await held.asked(partial(self._attempt, sample, held, attempt, before))
                    if result.outcome is not Outcome.REJECTED and result.reason not in _ANOTHER_TRY:
                        break
                return result
            except MediaError as error:
                reason = RejectReason(error.reason)
                return Result(
                    sample, Outcome.FAILED, Stage.MEDIA, reason, error.message, judged=before.judged
                )

    async def _attempt(
        self, sample: Sample, held: Held, attempt: int, before: Ruling, media: MediaRecord | None
    ) -> Result:
        request = self.requests.generate(sample, media, attempt)
        found = Result(
            sample,
            Outcome.FAILED,
            Stage.GENERATE,
            attempt=attempt,
            media=media,
            generation_key=request.key,
            models=before.models,
            judged=before.judged,
        )
        try:
            answer = await self.generator.ask(request, held.loader(media))
        except TransientError as error:
            return replace(found, reason=RejectReason.CALL_FAILED, detail=error.message)
        seen_again = self.media in self.judging.views.values()
        if attempt + 1 == self.recipe.generate.attempts and not seen_again:
            held.release()  # no further try needs the frames: free them before the judge is asked
        if answer is None:
            return replace(found, outcome=None, reason=RejectReason.CALL_FAILED, detail="no answer yet")
        completion = answer.completion
        if completion is None:
            return replace(found, reason=RejectReason.CALL_REFUSED, detail=answer.refused)
        models = before.models | {"generate": completion.model}
        if (why := unusable(completion)) is not None:
            kept = completion.text if why[0] is RejectReason.CONTENT_FILTERED else ""
            return replace(found, models=models, reason=why[0], detail=why[1], completion=kept)
        shown = media.shown if media else NOT_SHOWN
        verified = verify_completion(completion.text, sample, self.recipe.verify, self.recipe.trace, shown)
        check, trace = verified.check, verified.trace
        found = replace(found, models=models, completion=completion.text, trace=trace, score=verified.score)
        if trace is None and completion.finish_reason == "length":
            detail = f"cut at max_tokens: {check.detail}"
            return replace(found, outcome=Outcome.REJECTED, reason=RejectReason.COMPLETION_CUT, detail=detail)
        if trace is None or check.reason is not None:
            outcome, stage = Outcome.REJECTED, Stage.VERIFY
            return replace(found, outcome=outcome, stage=stage, reason=check.reason, detail=check.detail)
        return _ruled(found, await self.judging.rule(before, sample, trace))


def _ruled(result: Result, ruling: Ruling) -> Result:
    """A result with what the judges make of it."""
    return replace(
        result,
        outcome=ruling.outcome,
        stage=None if ruling.outcome is Outcome.KEPT else Stage.JUDGE,
        reason=ruling.reason,
        detail=ruling.detail,
        judgement=ruling.judgement,
        judge_key=ruling.judge_key,
        judged=ruling.judged,
        models=result.models | ruling.models,
    )


Wanted = Callable[[Sample | BadRow], bool]
"""Whether a row of the pool is asked."""

# Put the parts of a build together: sources, media, callers and steps, live or from the journal only.


class Parts:
    """Everything that one build works with.

    Attributes:
        steps: takes one question through the build.
        generator: what answers step 1.
        judges: step -> what answers it, for each model of each judge.
        total: rows of the pool, once they are counted.

    Args:
        live: calls may be made and files decoded; else answers come from the journal only.
        batches: a step that takes batches is asked in batches.
        shard: work on this share of the pool only.
        stop: when it is asked, waits end and no further call is made.
        keep_going: do not stop for refusals and useless replies in a row.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: is told why a call is tried again.
        wanted: rows of the pool that are asked; None: all.
        free: step 1 may write anything, not only traces.
        took: is told the key of each answered request and how many seconds it took.
        also: step -> who is asked beside the steps of the recipe; its replies are of any form.
        hands: who decodes and asks; None: this process.
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
        wanted: Wanted | None = None,
        free: bool = False,
        took: Callable[[str, float], None] | None = None,
        also: dict[Step, BackendSpec] | None = None,
        hands: Cluster | None = None,
    ) -> None:
        self.recipe = recipe
        self._also = also or {}
        self._hands = hands
        self.backends = recipe.backends | self._also
        self.place = place
        self.journal = journal
        self.shard = shard
        self._wanted = [choose for choose in (wanted, shard.owns if shard else None) if choose is not None]
        self._free, self._took = free, took
        self._kept: list[Sample | BadRow] | None = None
        self.total: int | None = None
        self.tell = tell
        self._keep_going, self._forgive = keep_going, forgive
        self.money = Money(journal, recipe.max_cost)
        self.requests = RequestBuilder(recipe, place.base)
        self.bench = Bench(recipe, place.base)
        sources = [open_source(s, base=place.base, demo_root=place.demo) for s in recipe.sources]
        self.roots = {s.name: s.media_root for s in sources if s.media_root is not None}
        self._sampled: dict[tuple[MediaSpec, str], MediaStep] = {}
        self.media = self._media_step(recipe.media, recipe.generate.backend, live=live)
        self.generator = self._asker("generate", recipe.generate.backend, live=live, batches=batches)
        self.judges = {
            step: self._asker(step, spec, live=live, batches=batches)
            for step, spec in self.backends.items()
            if step != "generate"
        }
        judging = Judging(self.bench, dict(self.judges), self._views(live=live), live)
        self.left_out = left_out(recipe, place.base)
        self.steps = Steps(recipe, self.requests, self.media, self.generator, judging, self.left_out)
        if stop is not None:
            stop.listen(self._stop)

    @property
    def callers(self) -> list[Caller | BatchCaller]:
        """What answers the steps."""
        return [self.generator, *self.judges.values()]

    @property
    def batched(self) -> list[BatchCaller]:
        """What is asked in batches."""
        return [caller for caller in self.callers if isinstance(caller, BatchCaller)]

    def prompts(self) -> dict[str, str]:
        """Prompt name -> sha256 of its text."""
        return {p.name: p.sha256 for p in (self.requests.generate_prompt, *self.bench.prompts())}

    def _views(self, *, live: bool) -> dict[Step, MediaStep]:
        """Step that sees, beside the generator -> what samples frames for it."""
        media = self.recipe.media
        # a judge holds words against the clip, whatever was done to the frames of the model that wrote them
        seeing = {step: media.undisturbed(frames) for step, frames in self.bench.frames.items()}
        seeing |= dict.fromkeys(self._also, media)
        return {step: self._media_step(spec, self.backends[step], live=live) for step, spec in seeing.items()}

    def _media_step(self, spec: MediaSpec, backend: BackendSpec, *, live: bool) -> MediaStep:
        """What samples frames for a backend; judges that see the same ones share the generator's."""
        form = backend.declared.frames
        if (spec, form) not in self._sampled:
            # its processes start with the first file that must be decoded
            decoder = self._hands.sampler if self._hands else DecodePool
            sampler = decoder(spec, want=form) if live else None
            media = self._sampled[spec, form] = MediaStep(
                spec, journal=self.journal, roots=self.roots, sampler=sampler, arrays=form == "array"
            )
            media.store.budget *= self._actors(backend)
        return self._sampled[spec, form]

    def _actors(self, spec: BackendSpec) -> int:
        return 1 if self._hands is None else self._hands.actors(spec)

    @property
    def media_steps(self) -> list[MediaStep]:
        """Everything that samples frames, the generator's first."""
        return list(self._sampled.values())

    def _stop(self) -> None:
        for caller in self.callers:
            caller.stop()
        for media in self.media_steps:
            media.store.stop()

    def waiting_for(self) -> str:
        """What the calls wait for, in words; empty while no call waits."""
        crews = [crew.waiting_for() for crew in self._hands.crews] if self._hands else []
        limiters = [caller.limiter for caller in self.callers if isinstance(caller, Caller)]
        found = list(filter(None, crews)) or filter(None, (limiter.waiting_for() for limiter in limiters))
        return "; ".join(found)

    def record(self) -> dict[str, Recorder]:
        """Step -> its calls from now on, in order."""
        found = {"generate": Recorder(self.generator)}
        self.steps.generator = found["generate"]
        judges = {step: Recorder(judge) for step, judge in self.judges.items()}
        self.steps.judging.asks.update(judges)
        return found | judges

    @property
    def window(self) -> int:
        """Questions under way at once: half as many again as may be in a call, so that both limits stay full.

        With just as many, the questions that crowd before one server would be missing before the other.
        """
        calls = sum(spec.calls_at_once * self._actors(spec) for spec in self.backends.values())
        decoders = self._hands.decoders if self._hands and self.roots else self.recipe.media.workers
        return calls + calls // 2 + 2 * decoders

    def pool(self, finished: Finished | None = None) -> Iterator[Sample | BadRow]:
        """The questions (of this process's share) in pool order: read anew, or kept if they are few.

        `finished`: see `Source.rows`.
        """
        if self._kept is not None:
            return iter(self._kept)
        rows = chain.from_iterable(source.rows(finished) for source in self._sources())
        return (row for row in rows if isinstance(row, Done) or all(wanted(row) for wanted in self._wanted))

    def _sources(self) -> list[Source]:
        return open_sources(self.recipe.sources, base=self.place.base, demo_root=self.place.demo)

    def count(self) -> int:
        """How many rows the pool has: they are read, but not looked at unless some are not wanted."""
        if self._wanted:
            return sum(1 for _ in self.pool())
        return sum(1 for source in self._sources() for _ in islice(source.raw_rows(), source.spec.limit))

    def asked(self) -> Iterator[Sample | BadRow]:
        """The same without the rows that the recipe leaves out."""
        return (row for row in self.pool() if row.sample_id not in self.left_out)

    def keep(self, rows: list[Sample | BadRow]) -> None:
        """Keep the rows of the whole pool in memory for the next pass."""
        self._kept, self.total = rows, len(rows)

    async def close(self) -> None:
        """Stop decoders and backends."""
        async with AsyncExitStack() as stack:
            pools = [media.sampler for media in self.media_steps if isinstance(media.sampler, DecodePool)]
            for part in (*pools, *self.media_steps, *self.callers):
                stack.push_async_callback(part.close)

    def _asker(self, step: Step, spec: BackendSpec, *, live: bool, batches: bool) -> Caller | BatchCaller:
        if spec.batch and live and batches:
            return BatchCaller(
                make_batches(spec),
                journal=self.journal,
                money=self.money,
                price=spec.price,
                breaker=self._breaker(step),
                scope=batch_scope(step),
            )
        what = batch_scope(step) or "judge"
        events = self.journal.batch_events() if live else []
        if events and (waiting := len(open_keys(fold(events), batch_scope(step)))):
            raise ConfigError(
                f"{waiting:,} {what} calls of this build are in a batch at the server; asked one by one "
                "as well, they would be paid twice",
                where=str(self.place.journal),
                hint=f"collect them first: p2r-data build with {what}.backend.batch: true\n"
                "or give the batch up: p2r-data build --abandon-batch ID",
            )
        return self._caller(spec, step, live=live)

    def _caller(self, spec: BackendSpec, step: Step, *, live: bool) -> Caller:
        backend: Backend | None = None
        if live:
            far = self._hands
            backend = far.backend(step, spec) if far else backend_of(self.recipe, self.place, spec)
        return make_caller(
            spec,
            backend,
            step,
            journal=self.journal,
            money=self.money,
            breaker=self._breaker(step),
            concurrency=spec.calls_at_once * self._actors(spec),
            forgive=self._forgive,
            tell=self.tell,
            took=self._took,
        )

    def _breaker(self, step: Step) -> Breaker:
        decides = "blind" if step in self._also else self.bench.decides.get(step, "sufficiency")
        going, grammar = self._keep_going, None if self._free else self.recipe.trace
        return make_breaker(step, decides=decides, keep_going=going, flags=True, grammar=grammar)


def left_out(recipe: Recipe, base: Path) -> Mapping[str, str]:
    """sample_id -> why a row is not asked, as the recipe's `leave_out` lists them.

    Raises:
        ConfigError: the list cannot be read, or is one of other sources.
    """
    if recipe.leave_out is None:
        return {}
    from videop2r_data.builders.overlap import read_left_out

    return read_left_out(recipe.leave_out, base, [source.name for source in recipe.sources])


def backend_of(recipe: Recipe, place: Workspace, spec: BackendSpec) -> Backend:
    """The backend that answers a step of a recipe, not started yet; a demo world lies in `place`.

    Raises:
        ConfigError: the settings do not fit the kind, or a demo backend has no demo source.
    """

    def demo(spec: BackendSpec) -> Backend:
        """The demo world's own answers, of the recipe's demo source."""
        from videop2r_data.demo import DemoBackend

        world = demo_source(recipe)
        if world is None:
            raise ConfigError(
                "a backend of kind demo answers only for a source of kind demo", where=recipe.name
            )
        return DemoBackend(spec, place.demo / world, recipe.trace)

    return make_backend(spec, demo=demo)


def demo_source(recipe: Recipe) -> str | None:
    """Name of the first source that is a synthetic world."""
    return next((s.name for s in recipe.sources if s.kind == "demo" or s.demo is not None), None)
