"""The request of step 3: the same question, answer and observation always make the same one.

A build, a training run and a calibration of judges share it, so that one's journal answers the other's calls.
They also share what is done about a reply without a verdict: the judge is asked again, in a stricter form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from videop2r_data.backends.caller import Answer
from videop2r_data.errors import TransientError
from videop2r_data.prompts import VERDICT_AGAIN, Prompt, load_form, load_prompt
from videop2r_data.schemas import BackendSpec, Judgement, JudgeSpec, Message, Request, SamplingParams, digest
from videop2r_data.validators import parse_judgement, render_judge


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


class Verdict(NamedTuple):
    """What became of one observation before its judge.

    Attributes:
        request: the call that decided.
        answer: what came of it; None: nothing yet.
        judgement: read from the answer; None if there is no completion to read.
        answers: all finished calls, the first one first.
    """

    request: Request
    answer: Answer | None
    judgement: Judgement | None
    answers: tuple[Answer, ...]


async def ask_verdict(
    ask: Callable[[Request], Awaitable[Answer | None]], request: Request, *, waits: bool = True
) -> Verdict:
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
    answer = await ask(request)
    judgement = _read(answer)
    if judgement is None or judgement.verdict is not None:
        return Verdict(request, answer, judgement, (answer,) if answer else ())
    assert answer is not None
    first = Verdict(request, answer, judgement, (answer,))
    stricter = asked_again(request)
    try:
        second = await ask(stricter)
    except TransientError:
        return first
    if second is None:
        return Verdict(stricter, None, None, (answer,)) if waits else first
    found = _read(second)
    if found is None or found.verdict is None:
        return first._replace(answers=(answer, second))
    # the stricter form asks for no reason: the one that was given stands in the first reply
    reasoned = found.model_copy(update={"explanation": found.explanation or judgement.explanation})
    return Verdict(stricter, second, reasoned, (answer, second))


def asked_again(request: Request) -> Request:
    """The same request with the stricter form of reply behind it."""
    *head, last = request.messages
    text = f"{last.text}\n\n{load_form(VERDICT_AGAIN).text}"
    return replace(request, messages=(*head, replace(last, text=text)))


def _read(answer: Answer | None) -> Judgement | None:
    if answer is None or answer.completion is None or answer.completion.finish_reason == "content_filter":
        return None
    return parse_judgement(answer.completion.text, finish_reason=answer.completion.finish_reason)


def messages(system: str, user: str, *, media: bool) -> tuple[Message, ...]:
    """A system message, unless it is empty, and a user message."""
    last = Message("user", user, media=media)
    return (Message("system", system), last) if system else (last,)


def answer_variant(spec: BackendSpec) -> str:
    """Digest of the backend settings that shape an answer, beyond the request itself; empty if none does."""
    shaping: dict[str, Any] = {"revision": spec.revision} if spec.revision else {}
    shaping |= {k: v for k, v in spec.extra.items() if k in spec.declared.shaping}
    return digest(shaping) if shaping else ""
