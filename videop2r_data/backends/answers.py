"""What an answer says, in any protocol: its JSON, its errors, and when to come back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, AnyStr

import orjson

from videop2r_data.errors import TransientError

_GATEWAY = frozenset({499, 502, 504, 524})
"""A gateway gave up (499: Google's); the server behind it may have answered, and counted the tokens."""
_SECRET_CHARS = 16
_BUDGETS = (
    *(f"x-ratelimit-{{}}-{of}" for of in ("requests", "tokens")),
    *(f"anthropic-ratelimit-{of}-{{}}" for of in ("requests", "tokens", "input-tokens", "output-tokens")),
)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def number(text: str | None) -> float | None:
    """A finite number of 0 or more, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) and value >= 0 else None


def parse_span_s(text: str) -> float | None:
    """Seconds of a span such as `6m0s`, `1.5s`, `20ms` or a bare number of seconds; None if it is none.

    >>> parse_span_s("1m30s"), parse_span_s("250ms"), parse_span_s("7"), parse_span_s("soon")
    (90.0, 0.25, 7.0, None)
    """
    text = text.strip()[:32]
    seconds = number(text)
    if seconds is not None:
        return seconds
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        return None
    return sum(float(n) * _UNIT_S[u] for n, u in parts)


def retry_after_s(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds that a server asks to wait; None if it does not say. Whoever waits has a bound of its own.

    By `retry-after-ms`, else by `retry-after` (seconds, a span or an HTTP date), else the latest reset of the
    budgets of OpenAI and Anthropic that are used up.

    Args:
        headers: case-insensitive mapping; a date counts from the server's own `date`, if it gives one.
        now: Unix seconds by this machine's clock, which may be wrong; None: it is read.
    """
    now = time.time() if now is None else now
    found = _asked_s(headers, now)
    if found is None:
        used_up = (name for name in _BUDGETS if headers.get(name.format("remaining"), "0").strip() == "0")
        resets = (_reset_s(headers.get(name.format("reset"), ""), now) for name in used_up)
        found = max((reset for reset in resets if reset is not None), default=None)
    return found


def _asked_s(headers: Mapping[str, str], now: float) -> float | None:
    in_ms = number(headers.get("retry-after-ms"))
    if in_ms is not None:
        return in_ms / 1000.0
    asked = headers.get("retry-after", "")
    seconds = parse_span_s(asked)
    if seconds is not None:
        return seconds
    until, began = _unix_s(asked), _unix_s(headers.get("date", ""))
    return None if until is None else max(0.0, until - (now if began is None else began))


def _reset_s(text: str, now: float) -> float | None:
    """Seconds until a budget is full again: OpenAI gives a span, Anthropic a date."""
    seconds = parse_span_s(text)
    if seconds is None:
        with suppress(ValueError, OverflowError):
            return max(0.0, datetime.fromisoformat(text).timestamp() - now)
    return seconds


def _unix_s(date: str) -> float | None:
    """Unix seconds of an HTTP date; None if it is none."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def scrubbed(answer: AnyStr, key: str) -> AnyStr:
    """An answer without the key, which a gateway may echo: what is answered is journaled and released.

    Args:
        key: one of fewer than 16 characters may be a word of the answer, and stays.
    """
    if len(key) < _SECRET_CHARS:
        return answer
    return answer.replace(key, "***") if isinstance(answer, str) else answer.replace(key.encode(), b"***")


def transient(status: int, text: str, retry_after_s: float | None) -> TransientError | None:
    """The error of an HTTP status that says to ask again; None: this one does not."""
    if status not in (408, 409, 425, 429, 499) and status < 500:
        return None
    limited = status in (429, 529)
    billed = status in _GATEWAY
    return TransientError(text, retry_after_s=retry_after_s, rate_limited=limited, maybe_billed=billed)


def json_of(body: bytes) -> Any:
    """Decode JSON; half a surrogate pair, which some servers cut an emoji to, becomes `?`.

    Raises:
        ValueError: it is none.
    """
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(body)
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return orjson.loads(text.encode("utf-8", errors="replace"))


def text_at(body: object, *path: str) -> str:
    """The text at a path of nested mappings, such as an error code; empty if there is none."""
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body if isinstance(body, str) else ""


def count_at(body: object, name: str) -> int:
    """A number of tokens in a mapping; 0 for anything else."""
    value = body.get(name) if isinstance(body, dict) else None
    return value if type(value) is int and 0 <= value < 2**53 else 0
