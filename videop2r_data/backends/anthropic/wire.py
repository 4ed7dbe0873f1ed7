"""What the Anthropic protocol says, both ways: our types to its JSON, its answers and errors to our types.

Pure but for the clock that dates a rate limit. Shared by single messages and by batches, so that a request
means the same in both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

from videop2r_data.backends.answers import count_at, retry_after_s, text_at, transient
from videop2r_data.errors import AuthError, BackendError, RefusedError, TransientError
from videop2r_data.schemas import Completion, FinishReason, Frames, Message, Request, Usage

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_MAX_QUOTE = 300
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_NO_MONEY = re.compile(
    r"credit balance|usage limits?\b|spend(ing)? limit|organization (has been|is) disabled", re.I
)
_FINAL_TYPES = frozenset({"invalid_request_error", "request_too_large"})


def sampling_fields(model: str) -> frozenset[str]:
    """Which of `temperature` and `top_p` a model takes, judged by the version in its id.

    Up to Claude 4 both; from 4.1 on only one of them in a request (temperature is kept); from 4.7 on neither:
    the server answers status 400 to a request that holds one. An id without a version (another server that
    speaks this protocol) is sent both.

    >>> sorted(sampling_fields("claude-3-7-sonnet-20250219"))
    ['temperature', 'top_p']
    >>> sorted(sampling_fields("claude-haiku-4-5-20251001")), sorted(sampling_fields("claude-opus-4-7"))
    (['temperature'], [])
    """
    found = _VERSION.search(model)
    if found is None:
        return frozenset({"temperature", "top_p"})
    version = (int(found[1]), int(found[2] or 0))
    if version >= (4, 7):
        return frozenset()
    return frozenset({"temperature"}) if version >= (4, 1) else frozenset({"temperature", "top_p"})


def message_params(request: Request, frames: Frames | None = None, *, cache_prompt: bool) -> dict[str, Any]:
    """The JSON body of one message.

    Frames go as base64 image blocks before the text of the message marked `media`; each frame of a video
    stands behind its time stamp. The system prompt is one block, marked for the prompt cache if asked. `seed`
    has no counterpart in this protocol and is not sent.

    Raises:
        RefusedError: temperature above 1 for a model that takes one, media announced but no encoded frames
            given, or no user message.
    """
    params = request.params
    allowed = sampling_fields(request.model)
    if "temperature" in allowed and not 0.0 <= params.temperature <= 1.0:
        raise RefusedError(f"temperature {params.temperature}: {request.model} takes 0 to 1")
    system = [m.text for m in request.messages if m.role == "system" and m.text]
    messages = [
        {"role": "user", "content": _content(m, request, frames)}
        for m in request.messages
        if m.role == "user"
    ]
    if not messages:
        raise RefusedError("a request without a user message")
    body: dict[str, Any] = {"model": request.model, "max_tokens": params.max_tokens, "messages": messages}
    if system:
        block: dict[str, Any] = {"type": "text", "text": "\n\n".join(system)}
        if cache_prompt:
            block["cache_control"] = {"type": "ephemeral"}
        body["system"] = [block]
    if "temperature" in allowed:
        body["temperature"] = params.temperature
    if params.top_p is not None and "top_p" in allowed:
        body["top_p"] = params.top_p
    return body


def _content(message: Message, request: Request, frames: Frames | None) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if message.media:
        if frames is None or not frames.encoded:
            raise RefusedError("the request announces media, and no encoded frames came with it")
        timed = request.media is not None and request.media.data_type == "video"
        times_s = frames.record.seen.times_s
        for index, picture in enumerate(frames.encoded):
            if timed:
                blocks.append({"type": "text", "text": f"[{times_s[index]:.2f} s]"})
            data = base64.b64encode(picture).decode("ascii")
            source = {"type": "base64", "media_type": frames.mime, "data": data}
            blocks.append({"type": "image", "source": source})
    if message.text:
        # An empty text block is refused by the server; a picture alone is not.
        blocks.append({"type": "text", "text": message.text})
    return blocks


def to_completion(message: Any) -> Completion:
    """A decoded answer to ours; only text blocks count, in order.

    Raises:
        TransientError: it is no message: a proxy's page, a cut body.
    """
    found = message if isinstance(message, dict) else {}
    content, model = found.get("content"), found.get("model")
    if not isinstance(content, list) or not isinstance(model, str):
        raise TransientError(f"the answer is no message: {repr(message)[:_MAX_QUOTE]}", maybe_billed=True)
    usage = found.get("usage")
    return Completion(
        text="".join(text_at(block, "text") for block in content if text_at(block, "type") == "text"),
        finish_reason=_FINISH.get(text_at(found, "stop_reason"), "other"),
        model=model,
        usage=Usage(
            input_tokens=count_at(usage, "input_tokens"),
            output_tokens=count_at(usage, "output_tokens"),
            cache_read_tokens=count_at(usage, "cache_read_input_tokens"),
            cache_write_tokens=count_at(usage, "cache_creation_input_tokens"),
        ),
    )


def status_error(status: int, body: object, headers: Mapping[str, str], *, said: str) -> BackendError:
    """The error that an HTTP status means.

    Args:
        status: 4xx or 5xx (529 is "overloaded" here).
        body: parsed JSON of the answer, or anything else.
        headers: of the answer, any case of names that the mapping itself knows.
        said: what to quote, already free of secrets.
    """
    kind, code = text_at(body, "error", "type"), text_at(body, "error", "details", "error_code")
    text = f"status {status}{f' {kind}' if kind else ''}: {said[:_MAX_QUOTE]}"
    stopped = kind == "billing_error" or "spend_limit" in code or "on_hold" in code
    # Out of credit comes as a plain 400: every further call would fail alike, so it must not cost rows.
    if stopped or status in (401, 402, 403, 404) or (status == 400 and _NO_MONEY.search(said)):
        return AuthError(text)
    failure = transient(status, text, retry_after_s(headers))
    if failure is not None:
        return failure
    return RefusedError(text)


def result_error(error: object) -> BackendError:
    """The error that an errored entry of a batch means; `error` is its `error.error` object.

    Only a fault of the request itself is for good. A fault of the account (no credit, no permission, no such
    model) costs nothing and must not be held against the row for ever: it is `TransientError`, ask again.
    """
    kind, said = text_at(error, "type"), text_at(error, "message")
    text = f"{kind or 'unknown error'}: {said[:_MAX_QUOTE]}"
    if kind in _FINAL_TYPES and not _NO_MONEY.search(said):
        return RefusedError(text)
    return TransientError(text, rate_limited=kind in ("rate_limit_error", "overloaded_error"))
