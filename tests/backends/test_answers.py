"""What an answer says, in any protocol."""

from __future__ import annotations

import pytest

from videop2r_data.backends import make_backend, make_batches
from videop2r_data.backends.answers import json_of, retry_after_s
from videop2r_data.backends.http import HttpBackend
from videop2r_data.schemas import BackendSpec

HALF = rb"cut \ud83d"
ANSWERS = {
    "openai": b'{"id": "1", "model": "m", "choices": [{"message": {"content": "%b"}}], "usage": {}}' % HALF,
    "anthropic": b'{"id": "1", "model": "m", "content": [{"type": "text", "text": "%b"}]}' % HALF,
    "gemini": b'{"candidates": [{"content": {"parts": [{"text": "%b"}]}}]}' % HALF,
}
LINES = {
    "openai": b'{"custom_id": "k", "response": {"status_code": 200, "body": %b}}',
    "anthropic": b'{"custom_id": "k", "result": {"type": "succeeded", "message": %b}}',
    "gemini": b'{"key": "k", "response": %b}',
}


def spec(kind: str) -> BackendSpec:
    return BackendSpec(kind=kind, model="m", base_url="http://localhost:1/v1")


@pytest.mark.parametrize("kind", ANSWERS)
def test_half_an_emoji_loses_no_answer(kind: str) -> None:
    """It was paid: asked again, the model may be cut at the same place."""
    backend = make_backend(spec(kind))
    assert isinstance(backend, HttpBackend)
    assert backend._parse(ANSWERS[kind], "m").text == "cut ?"


@pytest.mark.parametrize("kind", LINES)
def test_half_an_emoji_loses_no_line_of_a_batch(kind: str) -> None:
    result = make_batches(spec(kind))._result(LINES[kind] % ANSWERS[kind])  # type: ignore[attr-defined]
    assert result.key == "k" and result.completion.text == "cut ?"


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[" * 100_000, b'{"a": "\xff"}'])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(ValueError):
        json_of(body)


def test_a_server_that_asks_for_days_is_quoted_as_it_is() -> None:
    assert retry_after_s({"retry-after": "259200"}) == 259_200.0
