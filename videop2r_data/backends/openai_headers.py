"""What the headers of an OpenAI-compatible server say about when to come back."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import isfinite

from videop2r_data.backends.limiter import RateLimits

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RESETS = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")


def parse_span_s(text: str) -> float | None:
    """Seconds of a span such as `6m0s`, `1.5s`, `20ms` or a bare number of seconds; None if it is none.

    >>> parse_span_s("1m30s"), parse_span_s("250ms"), parse_span_s("7"), parse_span_s("soon")
    (90.0, 0.25, 7.0, None)
    """
    text = text.strip()[:32]
    seconds = _number(text)
    if seconds is not None:
        return seconds
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        return None
    return sum(float(n) * _UNIT_S[u] for n, u in parts)


def retry_after_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that the server asks to wait, 0 or more; None if it does not say.

    In this order: `retry-after-ms`, `retry-after` (seconds or an HTTP date), the later of the resets of the
    budgets that `x-ratelimit-remaining-*` calls used up.

    Args:
        headers: case-insensitive mapping.
        now: Unix seconds, for tests.
    """
    in_ms = _number(headers.get("retry-after-ms", ""))
    if in_ms is not None:
        return in_ms / 1000.0
    asked = headers.get("retry-after", "")
    seconds = parse_span_s(asked)
    if seconds is not None:
        return seconds
    if asked:
        try:
            at = parsedate_to_datetime(asked).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            at = None
        if at is not None:
            return max(0.0, at - (time.time() if now is None else now))
    resets = [
        parse_span_s(headers.get(name, ""))
        for name in _RESETS
        if headers.get(name.replace("reset", "remaining"), "0").strip() == "0"
    ]
    known = [reset for reset in resets if reset is not None]
    return max(known) if known else None


def rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """The budgets that the server reports; None if it reports none."""
    requests = headers.get("x-ratelimit-remaining-requests")
    tokens = headers.get("x-ratelimit-remaining-tokens")
    if requests is None and tokens is None:
        return None
    return RateLimits(
        remaining_requests=_whole(requests),
        limit_requests=_whole(headers.get("x-ratelimit-limit-requests")),
        reset_requests_s=parse_span_s(headers.get("x-ratelimit-reset-requests", "")),
        remaining_tokens=_whole(tokens),
        limit_tokens=_whole(headers.get("x-ratelimit-limit-tokens")),
        reset_tokens_s=parse_span_s(headers.get("x-ratelimit-reset-tokens", "")),
    )


def _number(text: str) -> float | None:
    """A finite number of 0 or more, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def _whole(text: str | None) -> int | None:
    value = _number(text) if text else None
    return None if value is None else int(value)
