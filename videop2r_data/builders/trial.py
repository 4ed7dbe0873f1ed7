"""One real call to a model, and what its answer says about the days that would follow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from videop2r_data.backends.breaker import Useless, advice_on, useless_reply, useless_trace, useless_verdict
from videop2r_data.backends.money import cost_usd
from videop2r_data.builders.findings import Finding, State, TrialCall, of_error
from videop2r_data.errors import AuthError, BackendError, RefusedError, TransientError
from videop2r_data.schemas import Sample
from videop2r_data.schemas.calls import Backend, Completion, Frames, Request
from videop2r_data.schemas.recipe import BackendSpec, VerifySpec
from videop2r_data.validators import parse_judgement, verify_completion

TRIES = 3
MAX_WAIT_S = 5.0
"""Between two tries: whoever looks at a server does not wait as long as a build does."""
SHOWN_CHARS = 300
_USELESS: dict[Useless, str] = {
    "empty": "the answer is empty: every row would be lost",
    "reasoning": "the first part of the trace was taken for reasoning: every row would be lost",
    "filtered": "the model declined to answer",
}
Result = TypeVar("Result")


@dataclass
class Trial:
    """What became of one call.

    Attributes:
        completion: the answer; None if there was none.
        call: the same, for the report.
        findings: what is to say about it.
    """

    completion: Completion | None = None
    call: TrialCall | None = None
    findings: list[Finding] = field(default_factory=list)


async def patiently(ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask up to `TRIES` times while the server says that it is busy.

    Raises:
        TransientError: it stays busy, or there is no connection at all. What `ask` raises else.
    """
    for tried in range(1, TRIES + 1):
        try:
            return await ask()
        except TransientError as error:
            if tried == TRIES or not (error.rate_limited or error.retry_after_s):
                raise
            await asyncio.sleep(min(error.retry_after_s or float(tried), MAX_WAIT_S))
    raise AssertionError("unreachable")


async def one_call(
    backend: Backend, spec: BackendSpec, request: Request, sample: Sample, frames: Frames | None
) -> Trial:
    """Make one call, past the journal, and read how it ended.

    Args:
        backend: started.
        spec: its settings: price and address.
        request: as a build would send it.
        sample: the question that it is about.
        frames: its media; None for a text.
    """
    count = frames.record.count if frames else 0
    what = f"{frames.record.data_type}, {count} frame{'s' * (count > 1)}" if frames else "text"
    began = time.monotonic()
    try:
        completion = await patiently(lambda: backend.complete(request, frames))
    except RefusedError as error:
        hint = error.hint or advice_on("refused", error.message)
        message = f"refused ({what}): {error.message}"
        return Trial(findings=[Finding(about="call", state="error", message=message, hint=hint)])
    except (TransientError, AuthError) as error:
        return Trial(findings=[of_error("call", error, hint=unanswered(spec, error))])
    usage = completion.usage
    call = TrialCall(
        data_type=frames.record.data_type if frames else "text",
        sample_id=sample.sample_id,
        frames=count,
        input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        seconds=round(time.monotonic() - began, 3),
        usd=cost_usd(usage, spec.price, batched=False),
        finish=completion.finish_reason,
        reply=completion.text[:SHOWN_CHARS],
    )
    return Trial(completion, call, _reply(completion, request, what))


def unanswered(spec: BackendSpec, error: BackendError) -> str:
    """Advice for a call that got no answer."""
    if not getattr(error, "away", False):
        return "the server is there and gave no answer: look at its log, then ask again"
    if spec.base_url:
        return "start the server, or correct base_url; if it is loading its model, wait and ask again"
    return "look at the connection to the service, then ask again"


def _reply(completion: Completion, request: Request, what: str) -> list[Finding]:
    """Faults that any answer may have."""
    useless = (useless_trace if request.purpose == "generate" else useless_reply)(completion)
    if useless is not None:
        kind, words = useless
        state: State = "warning" if kind == "filtered" else "error"
        message = f"{_USELESS.get(kind, kind)} ({'; '.join(filter(None, (what, words)))})"
        return [Finding(about="call", state=state, message=message, hint=advice_on(kind, words))]
    cut = completion.finish_reason == "length"
    found = [Finding(about="call", state="ok", message=f"answered ({what})")]
    if cut:
        limit = request.params.max_tokens
        text = f"the answer was cut at max_tokens ({limit:,})"
        found.append(
            Finding(about="call", state="warning", message=text, hint="raise max_tokens in the recipe")
        )
    if not completion.usage.input_tokens and not completion.usage.cache_read_tokens:
        text = "the server counts no tokens: estimates and --max-cost see a price of 0"
        hint = "switch on usage in the server's answers, or leave --max-cost out"
        found.append(Finding(about="call", state="warning", message=text, hint=hint))
    return found


def read_trace(
    completion: Completion, sample: Sample, spec: VerifySpec, *, whole: bool
) -> tuple[list[Finding], str]:
    """What step 2 says of a generator's answer, and its observation (empty if there is none).

    Args:
        whole: the call had every frame, so that its score means something.
    """
    if useless_trace(completion) is not None:
        return [], ""
    verified = verify_completion(completion.text, sample, spec)
    if verified.trace is None:
        return [
            Finding(
                about="trace",
                state="warning",
                message=f"the answer is no process-aware trace: {verified.check.reason}",
                hint="look at the reply: a larger model, another prompt file or guided decoding "
                "(extra.body) may be needed; p2r-data estimate --pilot measures how often",
            )
        ], ""
    if whole and verified.check.reason is not None:
        text = f"step 2 would drop this one row: {verified.check.reason}"
        return [Finding(about="trace", state="note", message=text)], verified.trace.observation
    return [Finding(about="trace", state="ok", message="a process-aware trace")], verified.trace.observation


def read_verdict(completion: Completion) -> list[Finding]:
    """What step 3 says of a judge's answer."""
    useless = useless_verdict(completion)
    if useless is None:
        verdict = parse_judgement(completion.text, finish_reason=completion.finish_reason).verdict
        return [Finding(about="verdict", state="ok", message=f"a verdict: {verdict}")]
    if useless[0] != "no_verdict":
        return []  # told as a fault of the call
    hint = advice_on(*useless)
    return [Finding(about="verdict", state="warning", message="the answer holds no verdict", hint=hint)]
