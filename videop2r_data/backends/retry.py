"""Try again: exponential backoff with full jitter, within the limits of one server.

The wait after failed try i is drawn from `[0, min(cap, base * 2**(i - 1))]` seconds (full jitter: callers
that failed together come back spread out), and is never shorter than what the server asked for. What it asked
for also holds every other caller, through the limiter. Only a `TransientError` is worth another try. A server
that cannot be reached is waited for instead (`limiter.reach`): that is no try of any one call.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from videop2r_data.backends.limiter import MAX_PAUSE_S, AdaptiveLimiter, Outcome
from videop2r_data.errors import AuthError, RefusedError, TransientError

T = TypeVar("T")

BASE_S = 0.5
CAP_S = 60.0
GATEWAY = frozenset({502, 504, 524})
"""A gateway gave up; the server behind it may have answered, and counted the tokens."""
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
        began = limiter.now()
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
