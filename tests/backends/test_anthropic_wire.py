"""Our types to the protocol's JSON and back, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends.answers import retry_after_s
from videop2r_data.backends.anthropic.wire import (
    message_params,
    result_error,
    sampling_fields,
    status_error,
    to_completion,
)
from videop2r_data.errors import AuthError, BackendError, RefusedError, TransientError
from videop2r_data.schemas.calls import Message, Request, SamplingParams

BOTH, ONE, NONE = {"temperature", "top_p"}, {"temperature"}, set[str]()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("claude-3-5-haiku-latest", BOTH),
        ("claude-3-7-sonnet-20250219", BOTH),
        ("claude-sonnet-4-20250514", BOTH),
        ("claude-opus-4-0", BOTH),
        ("claude-opus-4-1-20250805", ONE),
        ("claude-haiku-4-5", ONE),
        ("anthropic.claude-sonnet-4-6-v1:0", ONE),
        ("claude-opus-4-7", NONE),
        ("claude-opus-4-8-20260401", NONE),
        ("claude-sonnet-5", NONE),
        ("claude-opus-5-5", NONE),
        ("Qwen/Qwen2.5-VL-7B-Instruct", BOTH),
        ("", BOTH),
    ],
)
def test_sampling_fields(model: str, fields: set[str]) -> None:
    assert sampling_fields(model) == fields


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "999999"}, 999_999.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "1970-01-01T00:16:45Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "1970-01-01T00:17:00Z",
                "anthropic-ratelimit-output-tokens-remaining": "5",
                "anthropic-ratelimit-output-tokens-reset": "1970-01-01T00:18:00Z",
            },
            20.0,
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "later",
            },
            None,
        ),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float | None) -> None:
    # 1000 seconds are 00:16:40
    assert retry_after_s(headers, now=1000.0) == wait


@given(st.text(max_size=40))
@settings(deadline=None)
def test_no_header_breaks_it(text: str) -> None:
    wait = retry_after_s({"retry-after": text})
    assert wait is None or 0.0 <= wait < float("inf")


@given(
    status=st.integers(400, 599),
    body=st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.dictionaries(st.sampled_from(["error", "type", "details", "error_code"]), inner),
    ),
)
@settings(deadline=None)
def test_every_status_has_one_of_three_meanings(status: int, body: Any) -> None:
    error = status_error(status, body, {}, said="x" * 10_000)
    assert isinstance(error, TransientError | RefusedError | AuthError)
    assert len(str(error)) < 400 + len(str(body))


@pytest.mark.parametrize("code", ["enforced_spend_limit_reached", "organization_on_hold"])
def test_an_account_that_is_stopped_stops_the_run(code: str) -> None:
    body = {"error": {"type": "rate_limit_error", "details": {"error_code": code}}}
    assert isinstance(status_error(429, body, {}, said="stop"), AuthError)


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("invalid_request_error", "prompt is too long", RefusedError),
        ("invalid_request_error", "Your credit balance is too low", TransientError),
        ("not_found_error", "model", TransientError),
        ("rate_limit_error", "", TransientError),
        ("", "", TransientError),
    ],
)
def test_errored_entries(kind: str, message: str, expected: type[BackendError]) -> None:
    assert type(result_error({"type": kind, "message": message})) is expected


def test_an_answer_is_its_text_blocks() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        {"type": "text", "text": None},
        None,
    ]
    usage = {"input_tokens": 3, "output_tokens": -1, "cache_read_input_tokens": None}
    done = to_completion({"content": blocks, "model": "m", "stop_reason": None, "usage": usage})
    assert (done.text, done.finish_reason, done.usage.input_tokens) == ("ab", "other", 3)
    assert (done.usage.output_tokens, done.usage.cache_read_tokens) == (0, 0)
    broken: Any
    for broken in (None, "<html>", {"content": "x", "model": "m"}, {"content": []}):
        with pytest.raises(TransientError, match="no message"):
            to_completion(broken)


def test_what_no_message_can_be() -> None:
    with pytest.raises(RefusedError, match="without a user message"):
        message_params(Request("judge", "m", (Message("system", "s"),)), cache_prompt=True)
    hot = Request("judge", "m", (Message("user", "q"),), SamplingParams(temperature=1.5))
    with pytest.raises(RefusedError, match="takes 0 to 1"):
        message_params(hot, cache_prompt=True)
    free = Request("judge", "claude-opus-4-7", hot.messages, hot.params)
    assert "temperature" not in message_params(free, cache_prompt=True)
