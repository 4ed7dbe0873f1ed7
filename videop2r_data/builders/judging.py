"""Step 3: the judges of a recipe, one after the other, until one refuses what an observation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from videop2r_data.backends import (
    AGAIN,
    Answer,
    FaithfulnessRequests,
    JudgeRequests,
    Loader,
    answer_variant,
    ask_claims,
    ask_faithfulness,
    ask_verdict,
    messages,
)
from videop2r_data.builders.frames import MediaStep
from videop2r_data.builders.run import NOT_JUDGED, Judged
from videop2r_data.builders.votes import (
    ANSWERED,
    CONTRADICTED,
    FAITHFUL,
    UNANSWERED,
    Vote,
    joined,
    unsure,
    vote_of,
)
from videop2r_data.errors import TransientError
from videop2r_data.prompts import Form, Prompt, load_form, load_prompt, render_generate
from videop2r_data.schemas import (
    Claim,
    ClaimCell,
    Completion,
    DataType,
    Decides,
    Judgement,
    JudgementCell,
    NamedJudge,
    Outcome,
    ProblemType,
    ProcessTrace,
    Purpose,
    Recipe,
    RejectReason,
    Request,
    Sample,
    SamplingParams,
    Sufficiency,
    Trace,
)
from videop2r_data.validators import extract_answer, score

_WORDS = 500
"""Characters of a judge's words that a column keeps."""


class Asks(Protocol):
    """What answers a request: a `Caller`, or a batch."""

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer; None: not yet."""
        ...


# What is asked, by what a judge decides: one object per judge, made before the first call.


class SufficiencyCalls:
    """Does the answer follow from the observation: question, answer and observation, no media."""

    def __init__(self, spec: NamedJudge, base: Path) -> None:
        self.requests = {step: JudgeRequests(model, base) for step, model in spec.models.items()}
        self.prompts = (self.requests[spec.name].prompt,)


class FaithfulnessCalls:
    """Is each claim of the observation true of the media: all models see the claims that the first listed."""

    def __init__(self, spec: NamedJudge, base: Path) -> None:
        self.requests = {
            step: FaithfulnessRequests(
                model,
                base,
                claims_prompt=spec.claims_prompt or "claims-v1",
                splitter=spec.backend,
            )
            for step, model in spec.models.items()
        }
        first = self.requests[spec.name]
        self.prompts = (first.claims_prompt, first.prompt)


class BlindCalls:
    """Can the question be answered without media: its text alone, as a generator would be asked."""

    def __init__(self, spec: NamedJudge, base: Path) -> None:
        self.spec = spec
        prompt = load_prompt(spec.prompt, base=base)
        self.prompts = (prompt,)
        self._params = SamplingParams(temperature=spec.temperature, max_tokens=spec.max_tokens)
        for kind in ProblemType:  # a prompt that does not fit is an error before the first call
            render_generate(prompt, problem="?", options=(), problem_type=kind)

    def request(self, sample: Sample) -> Request:
        """One call about one question."""
        (prompt,) = self.prompts
        text = render_generate(
            prompt, problem=sample.problem, options=sample.options, problem_type=sample.problem_type
        )
        return Request(
            purpose="blind",
            model=self.spec.backend.model,
            messages=messages(prompt.system, text, media=False),
            params=self._params,
            variant=answer_variant(self.spec.backend),
        )


_Kind = SufficiencyCalls | FaithfulnessCalls | BlindCalls
_KINDS: dict[str, type[_Kind]] = {
    "sufficiency": SufficiencyCalls,
    "faithfulness": FaithfulnessCalls,
    "blind": BlindCalls,
}


_PURPOSES: dict[Decides, tuple[Purpose, ...]] = {
    "sufficiency": ("judge",),
    "faithfulness": ("claims", "faithfulness"),
    "blind": ("blind",),
}
"""What a judge asks, by what it decides."""


class Bench:
    """The judges of a recipe with their prompts; those are relative to `base`.

    Raises:
        ConfigError: a prompt is missing, or does not fit what its judge decides.
    """

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self.recipe = recipe
        self.judges: list[tuple[NamedJudge, _Kind]] = [
            (spec, _KINDS[spec.decides](spec, base)) for spec in recipe.all_judges
        ]
        self.decides = {step: spec.decides for spec in recipe.all_judges for step in spec.backends}
        """Step -> what its judge decides."""
        self.frames = {
            step: spec.frames or recipe.media.frames
            for spec in recipe.all_judges
            for step in spec.backends
            if spec.decides == "faithfulness"
        }
        """Step of a judge that sees -> frames that it is shown."""

    def prompts(self) -> list[Prompt | Form]:
        """Every prompt, with the forms in which a judge is asked again."""
        used: list[Prompt | Form] = []
        for spec, kind in self.judges:
            used += kind.prompts
            used += [load_form(AGAIN[purpose]) for purpose in _PURPOSES[spec.decides] if purpose in AGAIN]
        return used


# What the judges make of a question.


@dataclass
class Ruling:
    """What the judges make of one question: `KEPT` unless one refuses it."""

    outcome: Outcome | None = Outcome.KEPT
    reason: RejectReason | None = None
    detail: str = ""
    judgement: Judgement | None = None
    """Of the first judge of sufficiency that filters."""
    judge_key: str = ""
    models: dict[str, str] = field(default_factory=dict)
    judged: Judged = NOT_JUDGED

    def end(self, outcome: Outcome | None, reason: RejectReason, detail: str) -> None:
        """Refuse the question, or leave it open."""
        self.outcome, self.reason, self.detail = outcome, reason, detail


class _NoAnswerYetError(Exception):
    """The answer is in a batch, or the journal lacks it."""


def unusable(completion: Completion) -> tuple[RejectReason, str] | None:
    """Why a completion holds nothing to read: the reason and details; None: it can be read."""
    if completion.finish_reason == "content_filter":
        return RejectReason.CONTENT_FILTERED, "the model declined to answer"
    if not completion.text.strip() and completion.finish_reason != "length":
        detail = "the reply holds no text"
        if completion.reasoning_chars:
            detail += f"; {completion.reasoning_chars:,} characters came as reasoning"
        return RejectReason.COMPLETION_EMPTY, detail
    return None


@dataclass
class Judging:
    """Asks the judges.

    Attributes:
        asks: step -> what answers it.
        views: step of a judge that sees -> what samples the frames for it.
        live: calls may be made; False: answers that the journal lacks never come.
    """

    bench: Bench
    asks: dict[str, Asks]
    views: Mapping[str, MediaStep]
    live: bool

    async def before(self, sample: Sample) -> Ruling:
        """What can be asked of the question itself, before a trace is written.

        Raises:
            AuthError, BudgetError: the run must stop.
        """
        return await self._rule(Ruling(), sample, None)

    async def rule(self, before: Ruling, sample: Sample, trace: ProcessTrace) -> Ruling:
        """What the judges make of a trace; `before` is of its question.

        Raises:
            MediaError: the frames for a judge cannot be read. AuthError, BudgetError: the run must stop.
        """
        return await self._rule(replace(before, models=dict(before.models)), sample, trace)

    async def _rule(self, ruling: Ruling, sample: Sample, trace: ProcessTrace | None) -> Ruling:
        for spec, kind in self.bench.judges:
            if isinstance(kind, BlindCalls) != (trace is None):
                continue
            if spec.decides != "sufficiency" and sample.data_type is DataType.TEXT:
                continue  # there is nothing to see, and nothing but text to answer from
            case = _Case(self, spec, kind, sample, trace, ruling)
            try:
                votes = await case.votes()
            except TransientError as error:
                ruling.end(Outcome.FAILED, RejectReason.CALL_FAILED, error.message)
                return ruling
            except _NoAnswerYetError:
                ruling.end(None, RejectReason.CALL_FAILED, "no answer yet")
                return ruling
            case.decide(votes)
            if ruling.outcome is not Outcome.KEPT:
                break
        return ruling


@dataclass
class _Case:
    """One judge before one question."""

    judging: Judging
    spec: NamedJudge
    kind: _Kind
    sample: Sample
    trace: ProcessTrace | None
    ruling: Ruling

    # --- asking ---

    async def votes(self) -> list[Vote]:
        """Of every model that is asked, in order; the one that a judge turns to when unsure comes last."""
        spec, kind = self.spec, self.kind
        claims: Sequence[str] | None = None
        listed: tuple[str, ...] = ()
        if isinstance(kind, FaithfulnessCalls):
            found = await self._claims(kind)
            if isinstance(found, Vote):
                return [found]
            claims, listed = found
        votes: list[Vote] = []
        for step in spec.backends:
            if len(votes) > len(spec.panel) and not unsure(votes):
                break  # the next one is the model that is asked only where the others leave it open
            if isinstance(kind, FaithfulnessCalls):
                assert claims is not None
                vote = await self._check(kind, step, claims)
                votes.append(vote._replace(keys=(*listed, *vote.keys)))
            else:
                votes.append(await self._text_vote(kind, step))
        return votes

    async def _text_vote(self, kind: SufficiencyCalls | BlindCalls, step: str) -> Vote:
        sample = self.sample
        if isinstance(kind, BlindCalls):
            request = kind.request(sample)
            answer = await self.judging.asks[step].ask(request)
            said = self._said(answer, step, request)
            return said if isinstance(said, Vote) else self._blind(said, request)
        request = kind.requests[step].request(
            problem=sample.problem,
            options=sample.options,
            answer=sample.reference,
            observation=self._text(),
        )
        self._note_key(request)
        asked = await ask_verdict(self.judging.asks[step].ask, request, waits=self.judging.live)
        self._note_key(asked.request)
        said = self._said(asked.answer, step, asked.request)
        if isinstance(said, Vote):
            return said
        judgement = asked.judgement
        assert judgement is not None
        reason = RejectReason.NO_VERDICT if judgement.verdict is None else None
        return Vote(judgement.verdict or "", judgement.explanation, (asked.request.key,), reason)

    def _blind(self, said: Completion, request: Request) -> Vote:
        verify = self.judging.bench.recipe.verify
        least = verify.threshold if self.spec.min_score is None else self.spec.min_score
        found = extract_answer(said.text, verify.policy)
        value = 0.0
        if found.answer is not None:
            scored = score(
                self.sample.problem_type,
                prediction=found.answer,
                reference=self.sample.reference,
                options=self.sample.options,
                policy=verify.policy,
            )
            value = scored.value or 0.0
        verdict = ANSWERED if value >= least and value > 0 else UNANSWERED
        return Vote(verdict, (found.answer or "")[:_WORDS], (request.key,), score=value)

    async def _claims(self, kind: FaithfulnessCalls) -> tuple[tuple[str, ...], tuple[str, ...]] | Vote:
        """The claims with the key of their request, or why there are none."""
        name = self.spec.name
        request = kind.requests[name].claims(self._text())
        asked = await ask_claims(self.judging.asks[name].ask, request, waits=self.judging.live)
        said = self._said(asked.answer, name, asked.request)
        if isinstance(said, Vote):
            return said
        keys = (asked.request.key,)
        if asked.value is None:
            return Vote("", "the reply is no list of claims", keys, RejectReason.NO_VERDICT)
        return (asked.value, keys) if asked.value else Vote(FAITHFUL, "no claim", keys, score=0.0)

    async def _check(self, kind: FaithfulnessCalls, step: str, claims: Sequence[str]) -> Vote:
        view = self.judging.views[step]
        with view.hold(self.sample) as held:
            media = await held.record()
            assert media is not None  # a text row has no judge that sees
            request = kind.requests[step].check(claims, media, view.spec.wire_of(media.passthrough))
            asked = await ask_faithfulness(
                self.judging.asks[step].ask,
                request,
                claims,
                lambda: held.frames(media),
                waits=self.judging.live,
            )
        said = self._said(asked.answer, step, asked.request)
        unscored = tuple(Claim(text=text) for text in claims)
        if isinstance(said, Vote):
            return said._replace(claims=unscored)
        assert asked.value is not None
        return vote_of(asked.value, (asked.request.key,))

    def _text(self) -> str:
        """What the judge reads of the trace."""
        trace = self.trace
        assert trace is not None
        if not self.spec.reads:
            return trace.observation
        if isinstance(trace, Trace):
            return "\n".join(text.strip() for name in self.spec.reads for text in trace.texts(name))
        return "\n".join(getattr(trace, name).strip() for name in self.spec.reads)

    def _note_key(self, request: Request) -> None:
        """A row names the call of its first judge of sufficiency, also where that got no answer."""
        if self.ruling.judgement is None and self.spec.does == "filter":
            self.ruling.judge_key = request.key

    def _said(self, answer: Answer | None, step: str, request: Request) -> Completion | Vote:
        if answer is None:
            raise _NoAnswerYetError
        completion = answer.completion
        if completion is None:
            return Vote("", answer.refused, (request.key,), RejectReason.CALL_REFUSED)
        self.ruling.models[step] = completion.model
        why = unusable(completion)
        return completion if why is None else Vote("", why[1], (request.key,), why[0])

    # --- deciding ---

    def decide(self, votes: list[Vote]) -> None:
        """Make one verdict of the votes, note it, and refuse the question if the judge filters."""
        final = joined(self.spec, votes)
        if self.judging.bench.recipe.judges:
            self._note(final, votes)
        if self._is_the_one(final):
            verdict = Sufficiency(final.verdict) if final.verdict else None
            self.ruling.judgement = Judgement(verdict=verdict, explanation=final.detail)
            self.ruling.judge_key = final.keys[-1]
        if self.spec.does == "filter":
            self._filter(final)

    def _is_the_one(self, final: Vote) -> bool:
        """Whether the old columns of one judge are about this verdict."""
        mine = isinstance(self.kind, SufficiencyCalls) and self.spec.does == "filter"
        read = final.reason in (None, RejectReason.NO_VERDICT)
        return mine and read and self.ruling.judgement is None

    def _filter(self, final: Vote) -> None:
        if not final.verdict:
            self.ruling.end(Outcome.FAILED, final.reason or RejectReason.NO_VERDICT, final.detail)
        elif final.verdict == Sufficiency.NO:
            self.ruling.end(Outcome.REJECTED, RejectReason.INSUFFICIENT, final.detail)
        elif final.verdict == CONTRADICTED:
            self.ruling.end(Outcome.REJECTED, RejectReason.CONTRADICTED, final.detail)
        elif final.verdict == ANSWERED:
            self.ruling.end(Outcome.REJECTED, RejectReason.ANSWERED_BLIND, f"answered: {final.detail}")
        elif final.verdict == FAITHFUL and (final.score or 0.0) < (self.spec.min_score or 0.0):
            detail = f"{final.score:.0%} of the claims are supported, {self.spec.min_score:.0%} are needed"
            self.ruling.end(Outcome.REJECTED, RejectReason.UNSUPPORTED, detail)

    def _note(self, final: Vote, votes: list[Vote]) -> None:
        spec, judged = self.spec, self.ruling.judged
        keys = dict.fromkeys(key for vote in votes for key in vote.keys)
        cell = JudgementCell(
            judge=spec.name,
            decides=spec.decides,
            verdict=final.verdict,
            score=final.score,
            votes=[vote.verdict for vote in votes],
            detail=final.detail[:_WORDS],
            keys=list(keys),
        )
        judged = judged._replace(judgements=(*judged.judgements, cell))
        if final.claims and not judged.claims:
            claims = (ClaimCell(text=c.text, verdict=c.verdict or "", at=list(c.at)) for c in final.claims)
            judged = judged._replace(claims=tuple(claims))
        if isinstance(self.kind, BlindCalls) and final.verdict and judged.blind is None:
            judged = judged._replace(blind=final.verdict == ANSWERED)
        self.ruling.judged = judged
