"""Requests and answers of the chat completions protocol, as bytes and headers."""

from __future__ import annotations

import itertools
import secrets
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Literal

import orjson

from videop2r_data.backends.answers import count_at, json_of, number, parse_span_s, text_at
from videop2r_data.backends.chat_input import FIXED_SIZE, video_metadata
from videop2r_data.backends.limiter import RateLimits
from videop2r_data.errors import TransientError
from videop2r_data.schemas import Completion, FinishReason, Frames, MediaRecord, Request, ServedModel, Usage

# What the headers of an OpenAI-compatible server say about its limits.


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


def _whole(text: str | None) -> int | None:
    value = number(text)
    return None if value is None else int(value)


# A body is built from fragments: the pictures of one frame set are turned into JSON once and shared by all
# calls about them, so that a call costs a copy instead of an encoding.


VideoForm = Literal["vllm", "frames"]
_BROKEN_OFF = frozenset({"error", "abort", "insufficient_system_resource"})
"""Finish reasons of OpenRouter, vLLM and DeepSeek for an answer that the server could not end."""
_FINISH: dict[Any, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


class FrameCache:
    """JSON of the frame sets used last, up to `max_bytes`."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self._parts: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def part(self, frames: Frames, form: VideoForm) -> bytes:
        """The content parts of these frames: JSON objects joined by commas, without brackets."""
        key = (frames.record.frames_sha256, f"{frames.mime} {frames.record.passthrough}")
        found = self._parts.get(key)
        if found is not None:
            self._parts.move_to_end(key)
            return found
        made = content_parts(frames, form)
        self._parts[key] = made
        self._bytes += len(made)
        while self._bytes > self.max_bytes and self._parts:
            _, old = self._parts.popitem(last=False)
            self._bytes -= len(old)
        return made


def request_body(
    request: Request,
    frames: Frames | None,
    *,
    cache: FrameCache,
    form: VideoForm,
    max_tokens_field: str = "max_tokens",
    extra: dict[str, Any] | None = None,
) -> bytes:
    """The JSON body of one call; equal requests give equal bytes.

    Args:
        request: what to ask.
        frames: encoded pictures, when the request has media.
        cache: shared by the calls of one backend.
        form: `vllm`: one `video_url` with metadata; `frames`: a list of `image_url`, which any server knows.
        max_tokens_field: `max_completion_tokens` for servers that insist.
        extra: further fields of the body.
    """
    messages = []
    for message in request.messages:
        if message.media and frames is not None:
            text = orjson.dumps(message.text)
            pictures = cache.part(frames, form)
            content: Any = orjson.Fragment(b"[" + pictures + b',{"type":"text","text":' + text + b"}]")
        else:
            content = message.text
        messages.append({"role": message.role, "content": content})
    params = request.params
    body: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "temperature": params.temperature,
        max_tokens_field: params.max_tokens,
    }
    if params.top_p is not None:
        body["top_p"] = params.top_p
    if params.seed is not None:
        body["seed"] = params.seed
    if frames is not None and frames.record.data_type == "video" and form == "vllm":
        body.update(vllm_fields(frames.record))
    if extra:
        body.update(extra)
    return orjson.dumps(body)


def content_parts(frames: Frames, form: VideoForm) -> bytes:
    """Encoded frames as content parts: JSON objects joined by commas, without brackets."""
    pictures = [b64encode(picture) for picture in frames.encoded]
    if frames.record.data_type == "video" and form == "vllm":
        # vLLM takes a frame list under this one media type; it tells JPEG from PNG by the bytes themselves.
        url = b"data:video/jpeg;base64," + b",".join(pictures)
        return b'{"type":"video_url","video_url":{"url":"' + url + b'"}}'
    head = b'{"type":"image_url","image_url":{"url":"data:' + frames.mime.encode() + b";base64,"
    return head + (b'"}},' + head).join(pictures) + b'"}}'


def vllm_fields(record: MediaRecord) -> dict[str, Any]:
    """Fields that keep vLLM from sampling, resizing or misdating the frames of a clip.

    `num_frames: -1` takes every frame sent (the default cuts the list at 32); without the metadata it would
    assume one frame a second. The server must trust them: `vllm serve --trust-request-mm-kwargs`. Images need
    none of it and carry none, so that they work on any server.
    """
    video = {"num_frames": -1, **video_metadata(record), "do_sample_frames": False}
    return {
        "media_io_kwargs": {"video": video},
        "mm_processor_kwargs": {"size": FIXED_SIZE},
    }


ID_HEADER = "X-Request-Id"
_MARK = "p2r-"
_RANDOM_CHARS = 20
"""Ids of so many characters are taken for unique; some servers count, or draw three digits."""
_REMEMBERED = 8192
_CALLS = itertools.count(secrets.randbits(48))
"""The ends of ids: each process counts from a place of its own."""
OTHERS = "the answer belongs to another question"


def request_id(request: Request) -> str:
    """An id for one call: what is asked (equal for equal bodies, as caches answer alike), and its own end."""
    frames = request.media.frames_sha256 if request.media is not None else ""
    params = map(str, request.params.canonical().values())
    digits = blake2b(digest_size=12)
    for part in (request.model, frames, *params, *(message.text for message in request.messages)):
        digits.update(part.encode("utf-8", "surrogatepass") + b"\xff")  # a byte that no text holds
    return f"{_MARK}{digits.hexdigest()}-{next(_CALLS):x}"


class Owners:
    """Tells the answer to a question from the answer to another one: a proxy may repeat or mix up answers.

    A server that takes the id of a request from its header (vLLM) names it in the answer. Any other gives
    each answer an id of its own, which must not come for two questions.

    >>> Owners().own("chatcmpl-p2r-" + 24 * "1" + "-a", "p2r-" + 24 * "2" + "-b")
    False
    """

    def __init__(self) -> None:
        self._questions: dict[str, str] = {}

    def own(self, name: object, sent: str) -> bool:
        """Whether an answer of this id is one to the call of that id, as far as ids tell."""
        question = sent.rpartition("-")[0]
        if not isinstance(name, str) or len(name) < _RANDOM_CHARS:
            return True
        if _MARK in name:
            return question in name
        if len(self._questions) > _REMEMBERED:
            del self._questions[next(iter(self._questions))]
        return self._questions.setdefault(name, question) == question


def parse_completion(
    raw: bytes,
    *,
    asked: str,
    clean: Callable[[str], str] = str,
    is_own: Callable[[object], bool] = lambda name: True,
) -> Completion:
    """Read an answer.

    Args:
        raw: the body.
        asked: stands in for a model id that the server does not report.
        clean: takes secrets out of what the server says.
        is_own: whether an answer of this id is one to this call.

    Raises:
        TransientError: the body is empty, cut off, no JSON, no chat completion, another call's or broken off.
    """
    if not raw.strip():
        raise TransientError("the server answered with an empty body", maybe_billed=True)
    try:
        data = json_of(raw)
    except ValueError:
        raise TransientError(
            f"the server answered with {len(raw)} bytes that are no JSON", maybe_billed=True
        ) from None
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
    except (KeyError, IndexError, TypeError, AttributeError):
        raise TransientError(
            f"the server answered without choices: {clean(server_message(data))}", maybe_billed=True
        ) from None
    if not is_own(data.get("id")):
        raise TransientError(OTHERS, maybe_billed=True)
    reason = text_at(choice, "finish_reason")
    if reason in _BROKEN_OFF or isinstance(choice.get("error"), dict):
        said = clean(server_message(choice["error"])) if choice.get("error") else reason
        raise TransientError(f"the server broke its answer off: {said}", maybe_billed=True)
    model = data.get("model")
    finish = _FINISH.get(reason, "other")
    declined = not text and isinstance(message.get("refusal"), str)
    return Completion(
        text=text,
        finish_reason="content_filter" if declined else finish,
        model=model if isinstance(model, str) and model else asked,
        usage=_usage(data.get("usage")),
        reasoning_chars=_reasoning_chars(message),
    )


def server_message(data: Any) -> str:
    """The error text in a decoded body, on one line and shortened."""
    found = data
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    text = found if isinstance(found, str) else orjson.dumps(found, default=repr).decode()
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"


def _text(content: Any) -> str:
    """Content is a string, null (nothing said) or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _reasoning_chars(message: dict[str, Any]) -> int:
    """Characters that the server took out of the text as reasoning; servers name the field differently."""
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return max((len(text) for text in found if isinstance(text, str)), default=0)


def _usage(usage: Any) -> Usage:
    """Some servers, such as gateways to Gemini, count thoughts, which are charged, in the total alone."""
    if not isinstance(usage, dict):
        return Usage()
    prompt = count_at(usage, "prompt_tokens")
    cached = min(prompt, count_at(usage.get("prompt_tokens_details"), "cached_tokens"))
    return Usage(
        input_tokens=prompt - cached,
        output_tokens=max(count_at(usage, "completion_tokens"), count_at(usage, "total_tokens") - prompt),
        cache_read_tokens=cached,
    )


def parse_models(data: Any) -> list[ServedModel] | None:
    """The models of a decoded list; None if it is no such list.

    `max_model_len` is what vLLM and SGLang say, `max_input_tokens` Anthropic, `inputTokenLimit` Google; other
    servers tell no length.

    >>> parse_models({"data": [{"id": "m", "max_model_len": 4096}]})
    [ServedModel(model='m', context=4096, prompt=None, note='')]
    """
    listed = data.get("data", data.get("models") or None) if isinstance(data, dict) else None
    if not isinstance(listed, list):
        return None
    found = []
    for entry in filter(lambda entry: isinstance(entry, dict), listed):
        if name := text_at(entry, "id") or text_at(entry, "name").removeprefix("models/"):
            prompt = count_at(entry, "max_input_tokens") or count_at(entry, "inputTokenLimit")
            lifecycle = text_at(entry, "lifecycle")
            found.append(
                ServedModel(
                    name,
                    count_at(entry, "max_model_len") or None,
                    prompt=prompt or None,
                    note="" if lifecycle == "active" else lifecycle,
                )
            )
    return found
