"""How many calls may be in flight, how fast they go out, and when a silent server counts as away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from videop2r_data.errors import AwayError, P2RError, StoppedError

# Whether a server can be reached, and how long a run waits for one that cannot.
#
# A server that is restarted refuses connections for a minute or more. That is no fault of any one request: no
# try is counted against a call meanwhile, one call at a time looks whether the server is back, and the others
# wait. A call's failure to connect means an outage only if nobody was answered since that call's try began;
# otherwise the fault is the call's own.
#
# Pure but for the clock that is handed in; `AdaptiveLimiter` does the waiting.


FIRST_PROBE_S = 0.5
LONGEST_PROBE_S = 5.0
SILENT_S = 3.0
"""Seconds without any answer, ever, after which a run says so."""
QUIET_S = 60.0
"""Seconds without an answer, after earlier ones, after which a run says so."""


class Reach:
    """What is known of one server.

    Args:
        wait_s: seconds to wait for a server that cannot be reached; 0: failures count as any other.
        clock: seconds, monotonic.

    >>> now = [0.0]
    >>> reach = Reach(60.0, lambda: now[0])
    >>> reach.lost("connection refused", since=0.0), reach.away_s, reach.delay_s(0.2)
    (True, 0.0, 0.3)
    >>> now[0] = 61.0
    >>> reach.gone
    True
    >>> reach.reached()
    >>> reach.gone, reach.away_s
    (False, None)
    """

    def __init__(self, wait_s: float, clock: Callable[[], float]) -> None:
        self.wait_s = wait_s
        self.words = ""
        """What the last failure to connect said."""
        self._clock = clock
        self._reached_at: float | None = None
        self._answered_at: float | None = None
        self._away_since: float | None = None
        self._probe_at = 0.0
        self._probes = 0

    @property
    def away_s(self) -> float | None:
        """Seconds since the server was first found away; None: it is not."""
        return None if self._away_since is None else self._clock() - self._away_since

    @property
    def gone(self) -> bool:
        """Whether the server has been away for longer than `wait_s`."""
        away_s = self.away_s
        return away_s is not None and away_s >= self.wait_s

    def lost(self, words: str, *, since: float) -> bool:
        """A try that began at `since` could not connect.

        Returns:
            Whether this is an outage: wait, and do not count the try.
        """
        if self.wait_s <= 0 or (self._reached_at is not None and self._reached_at >= since):
            return False
        now = self._clock()
        if self._away_since is None:
            self._away_since, self._probes = now, 0
            self._probe_at = now + FIRST_PROBE_S
        self.words = words
        return True

    def reached(self) -> None:
        """A connection was made: an outage, if there was one, is over."""
        self._reached_at = self._clock()
        self._away_since = None

    def answered(self) -> None:
        """The server answered a request."""
        self.reached()
        self._answered_at = self._reached_at

    def delay_s(self, now: float) -> float:
        """Seconds until the next call may look whether the server is back; 0 or less: now."""
        return 0.0 if self._away_since is None else self._probe_at - now

    def took(self, now: float) -> None:
        """A call goes out."""
        if self._away_since is not None:
            self._probes += 1
            self._probe_at = now + min(LONGEST_PROBE_S, FIRST_PROBE_S * 2.0 ** min(self._probes, 8))

    def silent_s(self, since: float) -> float | None:
        """Seconds without an answer to the calls in flight, the first since `since`; None: too few."""
        now = self._clock()
        last = since if self._answered_at is None else max(since, self._answered_at)
        patience = SILENT_S if self._answered_at is None else QUIET_S
        return now - last if now - last >= patience else None


# How many calls may be in flight, and when the next may start.
#
# Four rules in one place, for all callers of one server:
#
# - **Concurrency** adapts: additive increase, multiplicative decrease. Status 429 halves it, other transient
#   errors in numbers cut it to three quarters, a run of successes raises it again. Calls that started before
#   a cut cannot cause another one, so that 256 refusals of one burst count once.
# - **Budgets per minute** of requests and tokens are two token buckets.
# - **Pauses** that the server asks for (`retry-after`, an exhausted `x-ratelimit-remaining-*`) hold everyone.
# - **Outages**: while a server cannot be reached, one call at a time looks whether it is back (`Reach`).
#
# Every wait here ends at once when the run is asked to stop, and `waiting_for` names its reason. Nothing here
# knows HTTP or the journal. One limiter belongs to one event loop and is not thread-safe.


Outcome = Literal["ok", "limited", "strained", "neutral"]
"""How a call ended, as far as the server's load goes: answered, "too many", another transient error, no word
about load (cancelled, refused)."""

CUT_LIMITED = 0.5
CUT_STRAINED = 0.75
STRAIN_LIMIT = 3.0
STRAIN_RELIEF = 0.05
ROUNDS_TO_RECOVER = 32
BURST_S = 10.0
MAX_PAUSE_S = 900.0
TOLD_S = 2.0
"""Pauses that last longer are told."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a server says about the budget of this account; None: it does not say.

    Attributes:
        remaining_requests, remaining_tokens: left in the current window.
        limit_requests, limit_tokens: size of the window's budget.
        reset_requests_s, reset_tokens_s: seconds until the budget is full again.
    """

    remaining_requests: int | None = None
    limit_requests: int | None = None
    reset_requests_s: float | None = None
    remaining_tokens: int | None = None
    limit_tokens: int | None = None
    reset_tokens_s: float | None = None


class _Bucket:
    """A budget per minute that refills evenly and holds at most ten seconds' worth."""

    __slots__ = ("capacity", "level", "per_s", "seen")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_s = per_minute / 60.0
        self.capacity = max(1.0, self.per_s * BURST_S)
        self.level = self.capacity
        self.seen = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; an amount above the capacity needs a full bucket."""
        self.level = min(self.capacity, self.level + (now - self.seen) * self.per_s)
        self.seen = now
        return max(0.0, (min(amount, self.capacity) - self.level) / self.per_s)

    def take(self, amount: float) -> None:
        """Spend this much; the level may fall below zero."""
        self.level -= amount


class AdaptiveLimiter:
    """Permits for calls to one server.

    Args:
        max_concurrency: calls in flight at most, at least 1; the limit starts there.
        requests_per_minute: None: no such budget.
        tokens_per_minute: input and output tokens; None: no such budget.
        server_wait_s: seconds to wait for a server that cannot be reached; 0: a failure like any other.
        name: what the server is called in messages.
        clock: seconds, monotonic.

    >>> import asyncio
    >>> async def one_call():
    ...     limiter = AdaptiveLimiter(8)
    ...     ticket = await limiter.acquire()
    ...     limiter.release(ticket, "limited")
    ...     return limiter.limit, limiter.in_flight
    >>> asyncio.run(one_call())
    (4, 0)
    """

    def __init__(
        self,
        max_concurrency: int,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        server_wait_s: float = 0.0,
        name: str = "the server",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be 1 or more, got {max_concurrency}")
        self.max_concurrency = max_concurrency
        self.in_flight = 0
        """Permits given and not yet returned."""
        self.cuts = 0
        """How often the concurrency was lowered."""
        self.name = name
        self.reach = Reach(server_wait_s, clock)
        self._limit = float(max_concurrency)
        self._step = max_concurrency / ROUNDS_TO_RECOVER
        self._strain = 0.0
        self.clock = clock
        now = clock()
        self._paused_until = 0.0
        self._asked_s = 0.0
        self._busy_since = 0.0
        self._stopped = False
        self._resting: set[asyncio.Future[None]] = set()
        self._requests = _Bucket(requests_per_minute, now) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute, now) if tokens_per_minute else None
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, from 1 to `max_concurrency`."""
        return int(self._limit)

    @property
    def waiting(self) -> int:
        """Callers that wait for a permit."""
        return sum(1 for future, _ in self._waiters if not future.done())

    @property
    def pause_s(self) -> float:
        """Seconds until a pause that the server asked for ends; 0.0 when there is none."""
        return max(0.0, self._paused_until - self.clock())

    async def acquire(self, tokens: int = 0) -> int:
        """Wait for a permit, first come first served.

        Args:
            tokens: tokens that the call will likely use; counts against the budget per minute only.

        Returns:
            A ticket to hand to `release`, exactly once.

        Raises:
            StoppedError: the run was asked to stop.
            AwayError: the server could not be reached for longer than `server_wait_s`.
        """
        if (error := self._closed()) is not None:
            raise error
        if not self._waiters and self._admit(tokens):
            return self.cuts
        future = asyncio.get_running_loop().create_future()
        self._waiters.append((future, tokens))
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            # the permit came just before the cancellation
            if future.done() and not future.cancelled() and future.exception() is None:
                self.in_flight -= 1
            self._wake()
            raise
        if self._stopped and (error := self._closed()) is not None:  # by the very call whose permit this was
            self.in_flight -= 1
            raise error
        return self.cuts

    def release(self, ticket: int, outcome: Outcome = "neutral", *, extra_tokens: int = 0) -> None:
        """Return a permit and say how the call ended.

        Args:
            ticket: what `acquire` returned.
            outcome: see `Outcome`.
            extra_tokens: tokens used beyond those given to `acquire` (negative: fewer).
        """
        self.in_flight -= 1
        if extra_tokens and self._tokens is not None:
            self._tokens.take(extra_tokens)
        if outcome == "ok":
            self.reach.answered()
            self._relax(ticket)
        elif outcome == "limited":
            self._cut(ticket, CUT_LIMITED)
        elif outcome == "strained":
            self._strain += 1.0
            if self._strain >= STRAIN_LIMIT:
                self._cut(ticket, CUT_STRAINED)
        if self._waiters:
            self._wake()

    async def rest(self, seconds: float) -> None:
        """Wait for so many seconds without a permit.

        Raises:
            StoppedError, AwayError: as `acquire`.
        """
        if (error := self._closed()) is not None:
            raise error
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._resting.add(future)
        timer = loop.call_later(seconds, _end, future)
        try:
            await future
        finally:
            timer.cancel()
            self._resting.discard(future)

    def stop(self) -> None:
        """End every wait now and give no further permit; calls in flight go on."""
        self._stopped = True
        self._fail_waiters()

    def lost(self, words: str, *, since: float) -> bool:
        """A try could not connect; see `Reach.lost`. Every wait ends once the server is given up.

        Args:
            words: what the failure said.
            since: when the try began, by the limiter's clock.
        """
        outage = self.reach.lost(words, since=since)
        if self.reach.gone:
            self._fail_waiters()
        return outage

    def waiting_for(self) -> str:
        """What the callers wait for, in words; empty while calls go out and come back."""
        if self._stopped:
            return ""
        away_s = self.reach.away_s
        if away_s is not None:
            return (
                f"{self.name} cannot be reached for {away_s:.0f} s now, and is waited for until "
                f"{self.reach.wait_s:.0f} s ({self.reach.words})"
            )
        if self.pause_s > TOLD_S and (self.waiting or self._resting):
            more = f", which asked for {self._asked_s:,.0f} s" if self._asked_s > MAX_PAUSE_S else ""
            return (
                f"the next call goes to {self.name} in {self.pause_s:.0f} s, as its last answer asked{more}"
            )
        silent_s = self.reach.silent_s(self._busy_since) if self.in_flight else None
        if silent_s is not None:
            calls = "1 call" if self.in_flight == 1 else f"{self.in_flight:,} calls"
            return f"no answer from {self.name} for {silent_s:.0f} s, {calls} under way"
        return ""

    def pause(self, seconds: float) -> None:
        """Start no call for so long (at most 15 minutes); calls in flight go on."""
        if seconds > 0:
            until = self.clock() + min(seconds, MAX_PAUSE_S)
            if until > self._paused_until:
                self._paused_until, self._asked_s = until, seconds

    def observe(self, limits: RateLimits) -> None:
        """Pause when the server says that the budget is used up.

        Servers refill evenly or all at once; with the budget's size known, a tenth of it is waited for, which
        suits the first kind and costs the second kind one refusal with a `retry-after`.
        """
        for remaining, limit, reset_s in (
            (limits.remaining_requests, limits.limit_requests, limits.reset_requests_s),
            (limits.remaining_tokens, limits.limit_tokens, limits.reset_tokens_s),
        ):
            if remaining is not None and remaining <= 0 and reset_s:
                self.pause(reset_s * 0.1 if limit and limit >= 10 else reset_s)

    def _admit(self, tokens: int) -> bool:
        """Take a permit if every rule allows it now."""
        if self.in_flight >= int(self._limit):
            return False
        now = self.clock()
        if self._requests or self._tokens or self._paused_until or self.reach.away_s is not None:
            if self._delay_s(tokens, now) > 0.0:
                return False
            if self._requests is not None:
                self._requests.take(1.0)
            if self._tokens is not None:
                self._tokens.take(tokens)
            self.reach.took(now)
        if not self.in_flight:
            self._busy_since = now
        self.in_flight += 1
        return True

    def _delay_s(self, tokens: int, now: float) -> float:
        """Seconds until pause and budgets let a call of so many tokens start."""
        delay = max(self._paused_until - now, self.reach.delay_s(now))
        if self._requests is not None:
            delay = max(delay, self._requests.wait_s(1.0, now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.wait_s(tokens, now))
        return delay

    def _closed(self) -> P2RError | None:
        """Why no call may go out any more; None: one may."""
        if self._stopped:
            return StoppedError(f"asked to stop while a call waited for {self.name}")
        if not self.reach.gone:
            return None
        return AwayError(
            f"{self.name} could not be reached for {self.reach.wait_s:.0f} s: {self.reach.words}",
            hint="look at the server and at `base_url`, then run the same command: nothing is lost "
            "(`server_wait_s` and --server-wait say how long a run waits)",
        )

    def _fail_waiters(self) -> None:
        waiting = [future for future, _ in self._waiters]
        self._waiters.clear()
        for future in (*waiting, *self._resting):
            error = self._closed()  # an exception each: a traceback belongs to one of them
            if error is not None and not future.done():
                future.set_exception(error)
        self._wake()

    def _wake(self) -> None:
        """Hand permits to the callers in front; set a timer if only time holds them."""
        waiters = self._waiters
        while waiters:
            future, tokens = waiters[0]
            if future.done():  # cancelled while it waited
                waiters.popleft()
            elif self._admit(tokens):
                waiters.popleft()
                future.set_result(None)
            else:
                break
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waiters and self.in_flight < int(self._limit):
            delay = self._delay_s(waiters[0][1], self.clock())
            self._timer = waiters[0][0].get_loop().call_later(max(delay, 0.001), self._wake)

    def _relax(self, ticket: int) -> None:
        self._strain = max(0.0, self._strain - STRAIN_RELIEF)
        if ticket == self.cuts and self._limit < self.max_concurrency:
            self._limit = min(float(self.max_concurrency), self._limit + self._step / self._limit)

    def _cut(self, ticket: int, factor: float) -> None:
        if ticket != self.cuts:
            return
        self._limit = max(1.0, self._limit * factor)
        self._strain = 0.0
        self.cuts += 1


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
