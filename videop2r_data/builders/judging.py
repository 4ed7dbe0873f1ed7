"""Step 3: the judges of a recipe, one after the other, until one refuses what an observation says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from videop2r_data.backends import (
    AGAIN,
    Answer,
    Asked,
    ConclusionRequests,
    FaithfulnessRequests,
    JudgeRequests,
    Loader,
    ask_claims,
    ask_faithfulness,
    ask_settled,
    ask_verdict,
    judge_request,
    to_model,
)
from videop2r_data.builders.frames import MediaStep
from videop2r_data.builders.run import NOT_JUDGED, Judged
from videop2r_data.builders.votes import CONTRADICTED, FAITHFUL, Vote, joined, unsure, vote_of
from videop2r_data.errors import TransientError
from videop2r_data.prompts import Form, Prompt, load_form, load_prompt, render_generate
from videop2r_data.schemas import (
    BackendSpec,
    Claim,
    ClaimCell,
    Completion,
    DataType,
    Decides,
    Faithfulness,
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
    Sufficiency,
    Trace,
    TraceGrammar,
)
from videop2r_data.validators import Settled, extract_answer, score, settles_elsewhere

ANSWERED, UNANSWERED = "answered", "unanswered"
_WORDS = 500
"""Characters of a judge's words that a column keeps."""


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


# What is asked, by what a judge decides; made before the first call.


def question_prompt(
    name: str, base: Path, grammar: TraceGrammar | None = None, *, observation: str | None = None
) -> Prompt:
    """A prompt that shows a question, and with `observation` one of these too.

    Raises:
        ConfigError: it is missing, or does not fit.
    """
    prompt = load_prompt(name, base=base, grammar=grammar)
    for kind in ProblemType:  # a prompt that does not fit is an error before the first call
        render_generate(prompt, problem="?", options=(), problem_type=kind, observation=observation)
    return prompt


def question_text(prompt: Prompt, sample: Sample) -> str:
    """The user message that shows a question."""
    return render_generate(
        prompt, problem=sample.problem, options=sample.options, problem_type=sample.problem_type
    )


class BlindRequests:
    """Can the question be answered without media: its text alone, as a generator would be asked."""

    def __init__(self, spec: NamedJudge, base: Path) -> None:
        self.spec = spec
        self.prompt = question_prompt(spec.prompt, base)

    def request(self, sample: Sample) -> Request:
        """One call about one question."""
        return judge_request(self.spec, "blind", self.prompt, question_text(self.prompt, sample))


def read_by(spec: NamedJudge, trace: ProcessTrace) -> str:
    """What a judge reads of a trace; blank if the trace has none of it."""
    if not spec.reads:
        return trace.think if spec.decides == "conclusion" else trace.observation
    if isinstance(trace, Trace):
        return "\n".join(text.strip() for name in spec.reads for text in trace.texts(name))
    return "\n".join(getattr(trace, name).strip() for name in spec.reads)


Requests = JudgeRequests | FaithfulnessRequests | BlindRequests | ConclusionRequests
_PURPOSES: dict[Decides, tuple[Purpose, ...]] = {
    "sufficiency": ("judge",),
    "faithfulness": ("claims", "faithfulness"),
    "blind": ("blind",),
    "conclusion": ("conclusion",),
}
"""What a judge asks, by what it decides."""


class Bench:
    """The judges of a recipe with what makes their requests; prompts are relative to `base`.

    Raises:
        ConfigError: a prompt is missing, or does not fit what its judge decides.
    """

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self.recipe = recipe
        self.judges = [(spec, _requests(spec, base)) for spec in recipe.all_judges]
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
        for spec, requests in self.judges:
            used += prompts_of(requests)
            used += [load_form(AGAIN[purpose]) for purpose in _PURPOSES[spec.decides] if purpose in AGAIN]
        return used


def _requests(spec: NamedJudge, base: Path) -> Requests:
    if spec.decides == "faithfulness":
        return FaithfulnessRequests(spec, base, claims_prompt=spec.claims_prompt or "claims-v1")
    if spec.decides == "conclusion":
        return ConclusionRequests(spec, base)
    return JudgeRequests(spec, base) if spec.decides == "sufficiency" else BlindRequests(spec, base)


def prompts_of(requests: Requests) -> tuple[Prompt, ...]:
    """The prompts of a judge, in the order in which it uses them."""
    first = (requests.claims_prompt,) if isinstance(requests, FaithfulnessRequests) else ()
    return (*first, requests.prompt)


# What the judges make of a question.


_REFUSES = {
    Sufficiency.NO.value: RejectReason.INSUFFICIENT,
    CONTRADICTED: RejectReason.CONTRADICTED,
    ANSWERED: RejectReason.ANSWERED_BLIND,
}
"""Verdict with which a judge that filters refuses -> reason."""


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

    async def rule(
        self,
        before: Ruling,
        sample: Sample,
        trace: ProcessTrace,
        *,
        asks: Callable[[NamedJudge], bool] | None = None,
    ) -> Ruling:
        """What the judges make of a trace; `before` is of its question.

        Args:
            before: what was made of the question.
            sample: the question.
            trace: need be no accepted one: a judge gets what there is of the segments that it reads.
            asks: which judges are asked; None: all.

        Raises:
            MediaError: the frames for a judge cannot be read. AuthError, BudgetError: the run must stop.
        """
        ruling = replace(before, models=dict(before.models))
        return await self._rule(ruling, sample, trace, asks or (lambda _: True))

    async def _rule(
        self,
        ruling: Ruling,
        sample: Sample,
        trace: ProcessTrace | None,
        asks: Callable[[NamedJudge], bool] = lambda _: True,
    ) -> Ruling:
        for spec, requests in self.bench.judges:
            if (spec.decides == "blind") != (trace is None) or not asks(spec):
                continue
            if spec.decides in ("faithfulness", "blind") and sample.data_type is DataType.TEXT:
                continue  # there is nothing to see, and nothing but text to answer from
            if isinstance(requests, ConclusionRequests) and not requests.asks(sample.problem_type):
                continue  # two answers of this type cannot be held against each other
            case = _Case(self, spec, requests, sample, trace, ruling)
            try:
                case.decide(await case.votes())
            except TransientError as error:
                ruling.end(Outcome.FAILED, RejectReason.CALL_FAILED, error.message)
            except _NoAnswerYetError:
                ruling.end(None, RejectReason.CALL_FAILED, "no answer yet")
            if ruling.outcome is not Outcome.KEPT:
                break
        return ruling


@dataclass
class _Case:
    """One judge before one question."""

    judging: Judging
    spec: NamedJudge
    requests: Requests
    sample: Sample
    trace: ProcessTrace | None
    ruling: Ruling

    # --- asking ---

    async def votes(self) -> list[Vote]:
        """Of every model that is asked, in order; the one that a judge turns to when unsure comes last."""
        spec, claims = self.spec, Vote("")
        if isinstance(self.requests, FaithfulnessRequests):
            # all models see the claims that the first one listed
            claims = await self._claims(self.requests)
            if not claims.claims:
                return [claims]
        votes: list[Vote] = []
        for step, backend in spec.backends.items():
            if len(votes) > len(spec.panel) and not unsure(spec, votes):
                break  # the next one is the model that is asked only where the others leave it open
            asked = await self._ask(step, backend, [claim.text for claim in claims.claims])
            vote = self._unread(step, asked) or self._read(asked.value, (asked.request.key,))
            votes.append(vote._replace(keys=(*claims.keys, *vote.keys), claims=vote.claims or claims.claims))
        return votes

    async def _claims(self, requests: FaithfulnessRequests) -> Vote:
        """The claims without verdicts; without claims a vote that says why there are none."""
        name = self.spec.name
        asked = await ask_claims(
            self.judging.asks[name].ask, requests.claims(self._text()), waits=self.judging.live
        )
        keys = (asked.request.key,)
        if (unread := self._unread(name, asked)) is not None:
            return unread
        if asked.value is None:
            return Vote("", "the reply is no list of claims", keys, RejectReason.NO_VERDICT)
        if not asked.value:
            return Vote(FAITHFUL, "no claim", keys, score=0.0)
        return Vote("", keys=keys, claims=tuple(Claim(text=text) for text in asked.value))

    async def _ask(self, step: str, backend: BackendSpec, claims: list[str]) -> Asked[Any]:
        """One model; the value is a judgement, verdicts on the claims, or the text of a blind answer."""
        ask, waits, requests = self.judging.asks[step].ask, self.judging.live, self.requests
        sample = self.sample
        if isinstance(requests, FaithfulnessRequests):
            view = self.judging.views[step]
            with view.hold(sample) as held:
                media = await held.record()
                assert media is not None  # a text row has no judge that sees
                check = requests.check(claims, media, view.spec.wire_of(media.passthrough))
                return await ask_faithfulness(
                    ask, to_model(check, backend), claims, lambda: held.frames(media), waits=waits
                )
        if isinstance(requests, BlindRequests):
            request = to_model(requests.request(sample), backend)
            answer = await ask(request)
            return Asked(request, answer, answer and answer.completion, ())
        kind, options = sample.problem_type, sample.options
        if isinstance(requests, ConclusionRequests):
            request = requests.request(
                think=self._text(), problem=sample.problem, options=options, problem_type=kind
            )
            return await ask_settled(ask, to_model(request, backend), kind, options, waits=waits)
        request = requests.request(
            problem=sample.problem, options=sample.options, answer=sample.reference, observation=self._text()
        )
        request = to_model(request, backend)
        self._note_key(request)
        found = await ask_verdict(ask, request, waits=waits)
        self._note_key(found.request)
        return found

    def _text(self) -> str:
        assert self.trace is not None
        return read_by(self.spec, self.trace)

    def _note_key(self, request: Request) -> None:
        """A row names the call of its first judge of sufficiency, also where that got no answer."""
        if self.ruling.judgement is None and self.spec.does == "filter":
            self.ruling.judge_key = request.key

    def _unread(self, step: str, asked: Asked[Any]) -> Vote | None:
        """A vote that says why there is nothing to read; None: there is.

        Raises:
            TransientError: what there is to read would be another thing with the answer that did not come.
        """
        if asked.lost is not None:
            raise asked.lost
        if asked.answer is None:
            raise _NoAnswerYetError
        completion, keys = asked.answer.completion, (asked.request.key,)
        if completion is None:
            return Vote("", asked.answer.refused, keys, RejectReason.CALL_REFUSED)
        self.ruling.models[step] = completion.model
        why = unusable(completion)
        return None if why is None else Vote("", why[1], keys, why[0])

    def _read(self, value: object, keys: tuple[str, ...]) -> Vote:
        if isinstance(value, Faithfulness):
            return vote_of(value, keys)
        if isinstance(value, Judgement):
            reason = RejectReason.NO_VERDICT if value.verdict is None else None
            return Vote(value.verdict or "", value.explanation, keys, reason)
        if isinstance(value, Settled):
            return self._settled(value, keys)
        assert isinstance(value, Completion)
        verify = self.judging.bench.recipe.verify
        least = verify.threshold if self.spec.min_score is None else self.spec.min_score
        found = extract_answer(value.text, verify.policy)
        worth = 0.0
        if found.answer is not None:
            scored = score(
                self.sample.problem_type,
                prediction=found.answer,
                reference=self.sample.reference,
                options=self.sample.options,
                policy=verify.policy,
            )
            worth = scored.value or 0.0
        verdict = ANSWERED if worth >= least and worth > 0 else UNANSWERED
        return Vote(verdict, (found.answer or "")[:_WORDS], keys, score=worth)

    def _settled(self, value: Settled, keys: tuple[str, ...]) -> Vote:
        """The option that the reasoning settles on; its score says whether the answer is the same."""
        assert self.trace is not None
        if value.option is None:
            return Vote("", value.words, keys, RejectReason.NO_VERDICT)
        sample, policy = self.sample, self.judging.bench.recipe.verify.policy
        other = settles_elsewhere(
            value.option, self.trace.answer, sample.problem_type, sample.options, policy
        )
        return Vote(value.option, value.words, keys, score=None if other is None else float(not other))

    # --- deciding ---

    def decide(self, votes: list[Vote]) -> None:
        """Make one verdict of the votes, note it, and refuse the question if the judge filters."""
        final = joined(self.spec, votes) if len(votes) > 1 else votes[0]
        if self.judging.bench.recipe.judges:
            self._note(final, votes)
        if self.spec.does == "record":
            return
        first = self.spec.decides == "sufficiency" and self.ruling.judgement is None
        if first and final.reason in (None, RejectReason.NO_VERDICT):
            # the columns of a single judge are about this verdict
            verdict = Sufficiency(final.verdict) if final.verdict else None
            self.ruling.judgement = Judgement(verdict=verdict, explanation=final.detail)
            self.ruling.judge_key = final.keys[-1]
        if not final.verdict:
            self.ruling.end(Outcome.FAILED, final.reason or RejectReason.NO_VERDICT, final.detail)
        elif final.verdict in _REFUSES:
            detail = f"answered: {final.detail}" if final.verdict == ANSWERED else final.detail
            self.ruling.end(Outcome.REJECTED, _REFUSES[final.verdict], detail)
        elif final.verdict == FAITHFUL and (final.score or 0.0) < (self.spec.min_score or 0.0):
            detail = f"{final.score:.0%} of the claims are supported, {self.spec.min_score:.0%} are needed"
            self.ruling.end(Outcome.REJECTED, RejectReason.UNSUPPORTED, detail)

    def _note(self, final: Vote, votes: list[Vote]) -> None:
        spec, judged = self.spec, self.ruling.judged
        cell = JudgementCell(
            judge=spec.name,
            decides=spec.decides,
            verdict=final.verdict,
            score=final.score,
            votes=[vote.verdict for vote in votes],
            detail=final.detail[:_WORDS],
            keys=list(dict.fromkeys(key for vote in votes for key in vote.keys)),
        )
        claims, blind = judged.claims, judged.blind
        if not claims:
            claims = tuple(
                ClaimCell(text=c.text, verdict=c.verdict or "", at=list(c.at)) for c in final.claims
            )
        if spec.decides == "blind" and final.verdict and blind is None:
            blind = final.verdict == ANSWERED
        self.ruling.judged = Judged((*judged.judgements, cell), claims, blind)
