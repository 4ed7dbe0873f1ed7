"""Whether a server can be reached, and how long a run waits for one that cannot.

A server that is restarted refuses connections for a minute or more. That is no fault of any one request: no
try is counted against a call meanwhile, one call at a time looks whether the server is back, and the others
wait. A call's failure to connect means an outage only if nobody was answered since that call's try began;
otherwise the fault is the call's own.

Pure but for the clock that is handed in; `AdaptiveLimiter` does the waiting.
"""

from __future__ import annotations

from collections.abc import Callable

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
        """It has been away for longer than one waits."""
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
        """The server was connected to: an outage, if there was one, is over."""
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
