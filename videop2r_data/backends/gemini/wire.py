"""What the Gemini protocol says, both ways: our types to its JSON, its answers and errors to our types.

Written against the REST reference of `v1beta` and what google-genai 2.19 sends and reads.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import partial
from typing import Any

from videop2r_data.backends.answers import count_at, text_at
from videop2r_data.errors import RefusedError, TransientError
from videop2r_data.schemas import Completion, FinishReason, Frames, Request, Usage

_FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
}


def content_body(
    request: Request,
    frames: Frames | None,
    *,
    extra: Mapping[str, Any],
    file: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON of one call.

    Frames go as inline pictures before the text of the message marked `media`, each frame of a video behind
    its time; a clip that was uploaded goes as that file, with the part that the question is about.

    Args:
        request: what to ask.
        frames: encoded pictures, when the request has media.
        extra: further fields; those of `generationConfig` are added to ours.
        file: `fileUri` and `mimeType` of the uploaded clip.

    Raises:
        RefusedError: media announced and not given, or no user message.
    """
    system = [{"text": m.text} for m in request.messages if m.role == "system" and m.text]
    asked = [m for m in request.messages if m.role == "user"]
    if not asked:
        raise RefusedError("a request without a user message")
    body: dict[str, Any] = {"contents": [], **extra}
    if system:
        body["systemInstruction"] = {"parts": system}
    for message in asked:
        parts = _media(request, frames, file) if message.media else []
        if message.text:
            parts.append({"text": message.text})
        body["contents"].append({"role": "user", "parts": parts})
    params = request.params
    config = {
        "temperature": params.temperature,
        "maxOutputTokens": params.max_tokens,
        "topP": params.top_p,
        "seed": params.seed,
    }
    sent = {name: value for name, value in config.items() if value is not None}
    body["generationConfig"] = sent | extra.get("generationConfig", {})
    return body


def _media(request: Request, frames: Frames | None, file: Mapping[str, str] | None) -> list[dict[str, Any]]:
    if file is not None:
        part = request.media.part if request.media is not None else None
        if part is None:
            return [{"fileData": dict(file)}]
        span = {"startOffset": f"{part.start_s:g}s", "endOffset": f"{part.end_s:g}s"}
        return [{"fileData": dict(file), "videoMetadata": span}]
    if frames is None or not frames.encoded:
        raise RefusedError("the request announces media, and no encoded frames came with it")
    parts: list[dict[str, Any]] = []
    times_s = frames.record.seen.times_s
    for index, picture in enumerate(frames.encoded):
        if frames.record.data_type == "video":
            parts.append({"text": f"[{times_s[index]:.2f} s]"})
        data = b64encode(picture).decode("ascii")
        parts.append({"inlineData": {"mimeType": frames.mime, "data": data}})
    return parts


def to_completion(data: Any, *, asked: str) -> Completion:
    """An answer to ours; parts that are the model's thoughts are counted, not read.

    Raises:
        TransientError: it is no answer: a proxy's page, a cut body.
    """
    try:
        blocked = "promptFeedback" in data and "candidates" not in data
        first = {} if blocked else data["candidates"][0]
        parts = [part for part in first.get("content", {}).get("parts", ()) if isinstance(part, dict)]
    except (KeyError, IndexError, TypeError, AttributeError):
        said = str(data)[:200]
        raise TransientError(f"the answer holds no candidates: {said}", maybe_billed=True) from None
    return Completion(
        text="".join(text_at(part, "text") for part in parts if not part.get("thought")),
        finish_reason="content_filter" if blocked else _FINISH.get(text_at(first, "finishReason"), "other"),
        model=text_at(data, "modelVersion") or asked,
        usage=_usage(data.get("usageMetadata")),
        reasoning_chars=sum(len(text_at(part, "text")) for part in parts if part.get("thought")),
    )


def _usage(usage: Any) -> Usage:
    """Thoughts are charged like the answer; what was read from a cache is part of the prompt's count."""
    count = partial(count_at, usage)
    prompt = count("promptTokenCount") + count("toolUsePromptTokenCount")
    cached = min(prompt, count("cachedContentTokenCount"))
    return Usage(
        input_tokens=prompt - cached,
        output_tokens=count("candidatesTokenCount") + count("thoughtsTokenCount"),
        cache_read_tokens=cached,
    )
