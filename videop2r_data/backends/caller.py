"""One call, from request to journaled answer: journal, money, limiter, tries."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

from videop2r_data.backends.breaker import Breaker
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.limiter import MAX_PAUSE_S, AdaptiveLimiter, Outcome
from videop2r_data.backends.money import Money, cost_usd, likely_tokens, reserve_usd
from videop2r_data.backends.spending import NANO
from videop2r_data.errors import AuthError, P2RError, RefusedError, TransientError
from videop2r_data.schemas import Backend, Completion, Frames, Price, Request, Usage

# Try again: exponential backoff with full jitter, within the limits of one server.
#
# The wait after failed try i is drawn from `[0, min(cap, base * 2**(i - 1))]` seconds (full jitter: callers
# that failed together come back spread out), and is never shorter than what the server asked for. What it
# asked for also holds every other caller, through the limiter. Only a `TransientError` is worth another
# try. A server that cannot be reached is waited for instead (`limiter.Reach`): that is no try of any one
# call.


T = TypeVar("T")

BASE_S = 0.5
CAP_S = 60.0
_RNG = random.Random()  # noqa: S311 jitter is no secret


def backoff_s(attempt: int, *, rng: random.Random, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Seconds to wait after failed try number `attempt` (1 is the first), with full jitter.

    >>> 0.0 <= backoff_s(3, rng=random.Random(0)) <= 2.0
    True
    """
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** min(attempt - 1, 32)))


async def call_with_retries(
    fn: Callable[[], Awaitable[T]],
    *,
    retries: int,
    limiter: AdaptiveLimiter,
    rng: random.Random | None = None,
    tokens: int = 0,
    tokens_used: Callable[[T], int] | None = None,
    on_retry: Callable[[TransientError, int, float], None] | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    base_s: float = BASE_S,
    cap_s: float = CAP_S,
) -> T:
    """Call `fn` until it answers, holding one permit of the limiter during each try and none while waiting.

    Args:
        fn: one try; raises `TransientError` when another one makes sense.
        retries: tries after the first, 0 or more.
        limiter: shared by all callers of the server; told how each try ended.
        rng: draws the jitter, which changes no output; None: a generator seeded by the system.
        tokens: likely use of one try, for the limiter's budget per minute.
        tokens_used: what an answer really used, to correct that budget.
        on_retry: called before each wait with the error, the number of tries so far and the seconds to wait.
        sleep: replaced in tests; None: `limiter.rest`, which ends when the run is asked to stop.
        base_s, cap_s: see the module.

    Raises:
        TransientError: the last one, with the history of all tries in its message.
        RefusedError, AuthError, BudgetError: at once, as `fn` raised them.
        AwayError: the server could not be reached for longer than one waits.
        StoppedError: the run was asked to stop while this call waited.
    """
    failures: list[TransientError] = []
    while True:
        ticket = await limiter.acquire(tokens)
        began = limiter.clock()
        outcome: Outcome = "neutral"
        extra = 0
        try:
            answer = await fn()
            outcome = "ok"
            if tokens_used is not None:
                extra = tokens_used(answer) - tokens
            return answer
        except (RefusedError, AuthError):
            limiter.reach.answered()
            raise
        except TransientError as failure:
            error = failure
            if error.away and limiter.lost(error.message, since=began):
                continue
            outcome = _told(limiter, error)
        finally:
            limiter.release(ticket, outcome, extra_tokens=extra)
        failures.append(error)
        if len(failures) > retries:
            if len(failures) == 1:
                raise error
            raise _give_up(failures) from error
        wait = backoff_s(len(failures), rng=rng or _RNG, base_s=base_s, cap_s=cap_s)
        if error.retry_after_s:
            wait = max(wait, min(error.retry_after_s, MAX_PAUSE_S) + (rng or _RNG).uniform(0.0, base_s))
        if on_retry is not None:
            on_retry(error, len(failures), wait)
        await (limiter.rest if sleep is None else sleep)(wait)


def _told(limiter: AdaptiveLimiter, error: TransientError) -> Outcome:
    """What a failed try says about its server."""
    if not error.away:
        limiter.reach.reached()
    if error.retry_after_s:
        limiter.pause(error.retry_after_s)
    return "limited" if error.rate_limited else "strained"


def _give_up(failures: list[TransientError]) -> TransientError:
    """The last error, with what the tries before it met."""
    last = failures[-1]
    counts = Counter(error.message for error in failures)
    history = "; ".join(f"{message} ({n}x)" if n > 1 else message for message, n in counts.items())
    return TransientError(
        f"gave up after {len(failures)} tries: {history}",
        retry_after_s=last.retry_after_s,
        rate_limited=last.rate_limited,
        maybe_billed=last.maybe_billed,
    )


# Answers that come together are taken up a few at a time.


SHARE = 8
"""In one turn of the loop passes this part of the line."""


class Turns:
    """Lets one of those in line pass in each turn of the event loop, or an eighth of a long line.

    What every call does between its answer and the next request takes several turns of the loop. A hundred
    answers that come at once would go through them side by side, and a hundred requests would leave together
    at the end: the server idles until they come, the client until they are answered, and again. A few at a
    time, the first requests are out while later answers are still being read.

    One belongs to one event loop and is not thread-safe.

    >>> async def passed():
    ...     turns, done = Turns(), []
    ...     async def one(name):
    ...         await turns.take()
    ...         done.append(name)
    ...     tasks = [asyncio.create_task(one(name)) for name in "abc"]
    ...     await asyncio.sleep(0)
    ...     first = "".join(done)
    ...     await asyncio.gather(*tasks)
    ...     return first, "".join(done)
    >>> asyncio.run(passed())
    ('a', 'abc')
    """

    def __init__(self, share: int = SHARE) -> None:
        self._share = share
        self._busy = False
        """Somebody passed in this turn of the loop."""
        self._line: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Go on, in this turn or a later one, first come first served."""
        if self._busy:
            future = asyncio.get_running_loop().create_future()
            self._line.append(future)
            await future
        else:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Another turn of the loop: those in front may go on."""
        passes = 0
        most = max(1, len(self._line) // self._share)
        while self._line and passes < most:
            future = self._line.popleft()
            if not future.done():  # else it was cancelled while it waited
                future.set_result(None)
                passes += 1
        self._busy = passes > 0
        if passes:
            asyncio.get_running_loop().call_soon(self._next)


# One paid call, done right: asked once, journaled at once, retried with care, never above the budget.


Loader = Callable[[], Awaitable[Frames]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call that was finished, now or in an earlier run."""

    completion: Completion | None
    """None: the server refused the request."""
    refused: str = ""

    @property
    def is_empty(self) -> bool:
        """Nothing was said: refused, or a reply without text."""
        return self.completion is None or not self.completion.text.strip()


@dataclass(eq=False)
class Caller:
    """Asks one model, through the journal.

    Attributes:
        backend: makes the calls; None: answers come from the journal only (`replay`).
        journal: where finished calls are kept and found.
        money: the budget, shared by the callers of a build.
        limiter: how many calls may be in flight.
        price: US dollars per million tokens; None: free.
        retries: tries after the first, for transient errors.
        count_tokens: the limiter has a budget of tokens per minute.
        breaker: stops the run when the server gives no answer that can be used.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: is told why a call is tried again, and when.
        took: is told the key of each answered request and how many seconds it took.
        turns: answers that come together are taken up a few at a time.
        made, found: calls finished in this run, and those answered from the journal.
    """

    backend: Backend | None
    _: KW_ONLY
    journal: Journal
    money: Money
    limiter: AdaptiveLimiter
    price: Price | None = None
    retries: int = 6
    count_tokens: bool = False
    breaker: Breaker = field(default_factory=Breaker)
    forgive: bool = False
    tell: Callable[[str], None] | None = None
    took: Callable[[str, float], None] | None = None
    turns: Turns = field(default_factory=Turns)
    made: int = field(default=0, init=False)
    found: int = field(default=0, init=False)
    _in_flight: dict[str, asyncio.Future[Answer]] = field(default_factory=dict, init=False)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _started: bool = field(default=False, init=False)

    async def ask(self, request: Request, frames: Loader | None = None) -> Answer | None:
        """The answer to a request, paid at most once; equal requests in flight share one call.

        Args:
            request: what to ask.
            frames: gives the pixels, asked for only if the call must be made.

        Returns:
            The answer; None if there is no backend and the journal has none.

        Raises:
            TransientError: no answer after all retries.
            AuthError, AwayError, BudgetError, BackendError: the run must stop.
            StoppedError: it was asked to, and the call was not made.
        """
        key = request.key
        known = self._known(key)
        if known is not None or self.backend is None:
            return known
        pixels: Frames | None = None
        if frames is not None and key not in self._in_flight:
            # loaded before equal requests share one call: equal pixels may come from several files, and one
            # file that is gone must not fail the requests about the others
            pixels = await frames()
            known = self._known(key)
            if known is not None:
                return known
        running = self._in_flight.get(key)
        if running is not None:
            return await asyncio.shield(running)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._in_flight[key] = future
        try:
            answer = await self._make(self.backend, request, pixels)
            await self.journal.settled()
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
                future.exception()  # marks it as seen: asyncio would log an exception that no one awaits
            raise
        else:
            future.set_result(answer)
            return answer
        finally:
            del self._in_flight[key]
            self.money.rest()

    def _known(self, key: str) -> Answer | None:
        data = self.journal.call(key)
        if data is None:
            return None
        answer = read_answer(data)
        if self.forgive and self.backend is not None and answer.is_empty and not self.journal.is_new(key):
            self.journal.withdraw(key)
            return self._known(key)
        self.found += 1
        return answer

    def stop(self) -> None:
        """Make no further call: every wait for a permit, a server or another try ends with StoppedError."""
        self.limiter.stop()
        self.money.stop()

    async def close(self) -> None:
        """Close the backend if it was started."""
        if self._started and self.backend is not None:
            self._started = False
            await self.backend.close()

    def _on_retry(self, error: TransientError, tries: int, wait_s: float) -> None:
        if self.tell is not None:
            self.tell(f"{error.message}; try {tries + 1} in {wait_s:.0f} s")

    async def _start(self, backend: Backend) -> None:
        """Start the backend with the first call: a run that only reads its journal loads no model."""
        async with self._starting:
            if not self._started:
                await backend.start()
                self._started = True

    async def _complete(self, backend: Backend, request: Request, pixels: Frames | None) -> Completion:
        began = time.perf_counter()
        completion = await backend.complete(request, pixels)
        if self.took is not None:
            self.took(request.key, time.perf_counter() - began)
        return completion

    async def _paid(
        self, backend: Backend, request: Request, pixels: Frames | None, reserve: int
    ) -> Completion:
        """One call within the budget; money that it cannot have cost is given back."""
        if not reserve:
            return await self._complete(backend, request, pixels)
        async with self.money.call(request.key, reserve):
            try:
                return await self._complete(backend, request, pixels)
            except P2RError as error:
                # what was refused ends with the answer that says so
                if not getattr(error, "maybe_billed", False) and not isinstance(error, RefusedError):
                    self.money.void(request.key, reserve)
                raise

    async def _make(self, backend: Backend, request: Request, pixels: Frames | None) -> Answer:
        if not self._started:
            await self._start(backend)
        key = request.key
        reserve = 0 if self.price is None else round(reserve_usd(request, self.price) * NANO)

        async def attempt() -> Completion:
            """One call, journaled before it waits for its turn."""
            completion = await self._paid(backend, request, pixels, reserve)
            completion = keep(self.journal, key, completion, self.price)
            await self.turns.take()
            return completion

        try:
            completion = await call_with_retries(
                attempt,
                retries=self.retries,
                limiter=self.limiter,
                tokens=likely_tokens(request) if self.count_tokens else 0,
                tokens_used=_tokens_used if self.count_tokens else None,
                on_retry=self._on_retry,
            )
        except RefusedError as error:
            message = valid(error.message)
            self.journal.put_refused(key, message)
            self.made += 1
            self.breaker.failed("refused", message)
            self.breaker.check()
            return Answer(None, message)
        except AuthError as error:
            error.where = error.where or self.limiter.name  # a recipe names two servers
            raise
        except TransientError as error:
            self.breaker.failed("failed", error.message)
            self.breaker.check()
            raise
        self.made += 1
        self.breaker.answered(completion)
        self.breaker.check()
        return Answer(completion)


def _tokens_used(completion: Completion) -> int:
    usage = completion.usage
    return usage.input_tokens + usage.output_tokens


def valid(text: str) -> str:
    """Text that can be written: half a surrogate pair, which a server may cut an emoji to, becomes `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
"""The counts of a journal record, in their order."""


def keep(journal: Journal, key: str, completion: Completion, price: Price | None) -> Completion:
    """Journal a finished call with what it cost; returns it as every later run will read it.

    One whose tokens the server did not count costs what was written ahead for it.
    """
    text, model = valid(completion.text), valid(completion.model)
    if text != completion.text or model != completion.model:
        completion = completion.model_copy(update={"text": text, "model": model})
    usage = completion.usage
    data: dict[str, Any] = {
        "text": completion.text,
        "finish": completion.finish_reason,
        "model": completion.model,
        "usage": [getattr(usage, name) for name in _TOKENS],
    }
    if completion.batched:
        data["batched"] = True
    if completion.reasoning_chars:
        data["reasoning_chars"] = completion.reasoning_chars
    cost = 0 if price is None else round(cost_usd(usage, price, batched=completion.batched) * NANO)
    if price is not None and usage == Usage():
        cost = journal.spending.held_nusd(bytes.fromhex(key))
    journal.put_call(key, data, nusd=cost)
    return completion


def read_answer(data: dict[str, Any]) -> Answer:
    """The answer that a journal record holds."""
    if "refused" in data:
        return Answer(None, data["refused"])
    return Answer(
        Completion(
            text=data["text"],
            finish_reason=data["finish"],
            model=data["model"],
            usage=Usage(**dict(zip(_TOKENS, data["usage"], strict=True))),
            batched=data.get("batched", False),
            reasoning_chars=data.get("reasoning_chars", 0),
        )
    )
