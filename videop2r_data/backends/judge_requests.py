"""The request of step 3: the same question, answer and observation always make the same one.

A build, a training run and a calibration of judges share it, so that one's journal answers the other's calls.
They also share what is done about a reply without a verdict: the judge is asked again, in a stricter form.
A judge that sees the media has two requests: the claims of an observation, and their verdicts. A judge of
reasoning has one: what a think segment settles on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from videop2r_data.backends.breaker import Useless, useless_reply
from videop2r_data.backends.caller import Answer, Loader
from videop2r_data.errors import ConfigError, TransientError
from videop2r_data.prompts import Prompt, load_form, load_prompt
from videop2r_data.schemas import (
    BackendSpec,
    Completion,
    Decides,
    Faithfulness,
    Judgement,
    JudgeSpec,
    MediaRecord,
    Message,
    ProblemType,
    Purpose,
    Request,
    SamplingParams,
    digest,
)
from videop2r_data.validators import (
    Settled,
    asks_what_is_settled,
    holds_verdict_tag,
    parse_claims,
    parse_faithfulness,
    parse_judgement,
    parse_settled,
    render_claims,
    render_faithfulness,
    render_judge,
    render_settled,
)

AGAIN: dict[Purpose, str] = {
    "judge": "verdict-again-v1",
    "claims": "claims-again-v1",
    "faithfulness": "faithfulness-again-v1",
    "conclusion": "conclusion-again-v1",
}
"""Purpose -> the form of reply that is asked for when the first one cannot be read."""
T = TypeVar("T")


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
        render_judge(self.prompt, problem="?", options=(), answer="?", observation="?")

    def request(self, *, problem: str, options: Sequence[str], answer: str, observation: str) -> Request:
        """One call; all of its texts are neutralised."""
        text = render_judge(
            self.prompt, problem=problem, options=options, answer=answer, observation=observation
        )
        return judge_request(self.spec, "judge", self.prompt, text)


class FaithfulnessRequests:
    """Builds the two requests of a judge that sees: text only for the claims, with media for their verdicts.

    Args:
        spec: whom to ask for verdicts, and how; its prompt is one of claims, such as `faithfulness-v1`.
        base: folder that a prompt's path is relative to; None: the current one.
        claims_prompt: takes an observation apart.

    Raises:
        ConfigError: a prompt is missing, or is not one of its kind.
    """

    def __init__(
        self, spec: JudgeSpec, base: Path | None = None, *, claims_prompt: str = "claims-v1"
    ) -> None:
        self.spec = spec
        self.prompt: Prompt = load_prompt(spec.prompt, base=base)
        self.claims_prompt: Prompt = load_prompt(claims_prompt, base=base)
        for prompt, needed in ((self.prompt, "{claims}"), (self.claims_prompt, "{observation}")):
            if needed not in prompt.user or ("{answer}" in prompt.user):
                raise ConfigError(
                    f"a prompt that has no field {needed}, or shows the answer, cannot do this",
                    where=prompt.name,
                    hint="a judge of faithfulness needs prompt: faithfulness-v1 and claims_prompt: "
                    "claims-v1, or files with the same fields",
                )

    def claims(self, observation: str) -> Request:
        """The call that lists the claims of an observation; no media."""
        text = render_claims(self.claims_prompt, observation=observation)
        return judge_request(self.spec, "claims", self.claims_prompt, text)

    def check(self, claims: Sequence[str], media: MediaRecord, encoding: str) -> Request:
        """The call that decides claims; `encoding` is that of `Request.media_encoding`."""
        text = render_faithfulness(self.prompt, claims)
        request = judge_request(self.spec, "faithfulness", self.prompt, text, media=True)
        return replace(request, media=media, media_encoding=encoding)


class ConclusionRequests:
    """Builds the requests of a judge of reasoning: a think segment and the options, nothing else [paper §5].

    Its prompt is one such as `think-option-v1`; arguments and errors are those of `JudgeRequests`.
    """

    def __init__(self, spec: JudgeSpec, base: Path | None = None) -> None:
        self.spec = spec
        self.prompt: Prompt = load_prompt(spec.prompt, base=base)
        render_settled(self.prompt, think="?", options=(), problem="?", problem_type=ProblemType.NUMERICAL)

    def asks(self, problem_type: ProblemType) -> bool:
        """Whether it is asked about such questions at all."""
        return asks_what_is_settled(self.prompt, problem_type)

    def request(
        self, *, think: str, problem: str, options: Sequence[str], problem_type: ProblemType
    ) -> Request:
        """One call; all of its texts are neutralised."""
        text = render_settled(
            self.prompt, think=think, problem=problem, options=options, problem_type=problem_type
        )
        return judge_request(self.spec, "conclusion", self.prompt, text)


def judge_request(
    spec: JudgeSpec, purpose: Purpose, prompt: Prompt, text: str, *, media: bool = False
) -> Request:
    """A call to a judge's model; `text` is what its prompt became."""
    request = Request(
        purpose=purpose,
        model="",
        messages=messages(prompt.system, text, media=media),
        params=SamplingParams(temperature=spec.temperature, max_tokens=spec.max_tokens),
    )
    return to_model(request, spec.backend)


def to_model(request: Request, backend: BackendSpec) -> Request:
    """The same request to another model."""
    wire = backend.wire_of(request.media, request.media_encoding)
    return replace(request, model=backend.identity, variant=answer_variant(backend), media_encoding=wire)


class Asked(NamedTuple, Generic[T]):
    """What became of one request to a judge.

    Attributes:
        request: the call that decided.
        answer: what came of it; None: nothing yet.
        value: read from the answer; None if there is no completion to read, or nothing in it.
        answers: all finished calls, the first one first.
        lost: why the second call got no answer after all retries, if it did not.
    """

    request: Request
    answer: Answer | None
    value: T | None
    answers: tuple[Answer, ...]
    lost: TransientError | None = None


Ask = Callable[[Request], Awaitable[Answer | None]]


async def ask_verdict(ask: Ask, request: Request, *, waits: bool = True) -> Asked[Judgement]:
    """Ask a judge; a reply without a verdict is asked for once more, in a stricter form.

    The second call is a request of its own, with its own place in the journal. If it gets no answer after all
    retries, the first reply stands, and a later run asks again.

    Args:
        ask: answers a request, from the journal or by a call.
        request: made by `JudgeRequests`.
        waits: an answer of None is still to come (a batch); False: there is none (a replay).

    Raises:
        TransientError: no answer to the first call after all retries.
        AuthError, BudgetError: the run must stop.
    """
    found = await _ask_until_whole(
        ask, request, _judgement, lambda judgement: judgement.verdict is not None, waits=waits
    )
    judgement = found.value
    if judgement is not None and found.request is not request:
        # the stricter form asks for no reason: the one that was given stands in the first reply
        first = own_words(found.answers[0], request)
        assert first is not None
        reason = judgement.explanation or _judgement(first).explanation
        judgement = judgement.model_copy(update={"explanation": reason})
    return found._replace(value=judgement)


async def ask_claims(ask: Ask, request: Request, *, waits: bool = True) -> Asked[tuple[str, ...]]:
    """As `ask_verdict`, for the claims of an observation (`FaithfulnessRequests.claims`); the value is None
    where neither reply is a list."""
    return await _ask_until_whole(
        ask, request, lambda said: parse_claims(said.text), lambda _: True, waits=waits
    )


async def ask_faithfulness(
    ask: Callable[[Request, Loader | None], Awaitable[Answer | None]],
    request: Request,
    claims: Sequence[str],
    frames: Loader | None,
    *,
    waits: bool = True,
) -> Asked[Faithfulness]:
    """As `ask_verdict`, for the verdicts of just these claims (`FaithfulnessRequests.check`); `frames` gives
    the pixels of the request's media."""

    def read(said: Completion) -> Faithfulness:
        return parse_faithfulness(said.text, claims, finish_reason=said.finish_reason)

    return await _ask_until_whole(
        lambda one: ask(one, frames), request, read, lambda found: found.score is not None, waits=waits
    )


async def ask_settled(
    ask: Ask, request: Request, problem_type: ProblemType, options: Sequence[str], *, waits: bool = True
) -> Asked[Settled]:
    """As `ask_verdict`, for what a think segment settles on (`ConclusionRequests.request`); the words are
    those of the reply that decides."""

    def read(said: Completion) -> Settled:
        return parse_settled(
            said.text, problem_type=problem_type, options=options, finish_reason=said.finish_reason
        )

    return await _ask_until_whole(ask, request, read, lambda found: found.option is not None, waits=waits)


async def _ask_until_whole(
    ask: Ask,
    request: Request,
    read: Callable[[Completion], T | None],
    whole: Callable[[T], bool],
    *,
    waits: bool,
) -> Asked[T]:
    answer = await ask(request)
    said = own_words(answer, request)
    value = read(said) if said is not None else None
    if answer is None or said is None or (value is not None and whole(value)):
        return Asked(request, answer, value, (answer,) if answer else ())
    first = Asked(request, answer, value, (answer,))
    stricter = asked_again(request)
    try:
        second = await ask(stricter)
    except TransientError as error:
        return first._replace(lost=error)
    if second is None:
        return Asked(stricter, None, None, (answer,)) if waits else first
    again = own_words(second, stricter)
    found = read(again) if again is not None else None
    if found is None or not whole(found):
        return first._replace(answers=(answer, second))
    return Asked(stricter, second, found, (answer, second))


def asked_again(request: Request) -> Request:
    """The same request with the stricter form of reply behind it."""
    *head, last = request.messages
    text = f"{last.text}\n\n{load_form(AGAIN[request.purpose]).text}"
    return replace(request, messages=(*head, replace(last, text=text)))


def own_words(answer: Answer | None, request: Request) -> Completion | None:
    """The completion that can be read, if there is one, without what it repeats of its request.

    The forms that a request shows (`<judgement>No</judgement>`) are no verdict of a judge that echoes them.
    """
    if answer is None or answer.completion is None or answer.completion.finish_reason == "content_filter":
        return None
    said = answer.completion
    text = said.text
    for shown in (*(message.text for message in request.messages), load_form(AGAIN[request.purpose]).text):
        text = text.replace(shown, "") if shown else text
    return said if text == said.text else said.model_copy(update={"text": text})


def _judgement(said: Completion) -> Judgement:
    return parse_judgement(said.text, finish_reason=said.finish_reason)


# Replies of judges that are of no use: what a `Breaker` counts.


def useless_verdict(completion: Completion) -> tuple[Useless, str] | None:
    """As `useless_reply`, for a judge: also a reply without a verdict."""
    return useless_reply(completion) or _silent(completion, _judgement(completion).verdict is not None)


def useless_evidence(completion: Completion) -> tuple[Useless, str] | None:
    """As `useless_reply`, for a judge that sees: also a reply with neither claims nor verdicts on them."""
    text = completion.text
    read = parse_claims(text) is not None or "</claim>" in text.lower()
    return useless_reply(completion) or _silent(completion, read)


def useless_conclusion(completion: Completion) -> tuple[Useless, str] | None:
    """As `useless_reply`, for a judge of reasoning: also a reply without any verdict."""
    return useless_reply(completion) or _silent(completion, holds_verdict_tag(completion.text))


def _silent(completion: Completion, read: bool) -> tuple[Useless, str] | None:
    return None if read else ("no_verdict", " ".join(completion.text.split())[:200])


USELESS: dict[Decides, Callable[[Completion], tuple[Useless, str] | None]] = {
    "sufficiency": useless_verdict,
    "faithfulness": useless_evidence,
    "blind": useless_reply,
    "conclusion": useless_conclusion,
}
"""What a judge decides -> why a reply of it cannot be used."""


def messages(system: str, user: str, *, media: bool) -> tuple[Message, ...]:
    """A system message, unless it is empty, and a user message."""
    last = Message("user", user, media=media)
    return (Message("system", system), last) if system else (last,)


def answer_variant(spec: BackendSpec) -> str:
    """Digest of the backend settings that shape an answer, beyond the request itself; empty if none does."""
    shaping: dict[str, Any] = {"revision": spec.revision} if spec.revision else {}
    shaping |= {k: v for k, v in spec.extra.items() if k in spec.declared.shaping}
    return digest(shaping) if shaping else ""
