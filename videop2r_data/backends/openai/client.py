"""One model behind a server that speaks the chat completions protocol."""

from __future__ import annotations

from typing import Any

from videop2r_data.backends.http import HttpBackend, refuse_unbounded
from videop2r_data.backends.openai.wire import FrameCache, VideoForm, parse_completion, request_body
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import BackendSpec, Completion, Frames, Request

# Settings of the `openai` backend, checked before anything is sent.


_EXTRA = {"video", "max_tokens_field", "body"}


def read_settings(spec: BackendSpec) -> tuple[VideoForm, str, dict[str, Any]]:
    """The settings of `extra`, checked."""
    extra = spec.extra
    unknown = sorted(set(extra) - _EXTRA)
    if unknown:
        raise ConfigError(
            f"unknown setting(s) in extra of kind openai: {', '.join(unknown)}",
            hint=f"allowed: {', '.join(sorted(_EXTRA))}",
        )
    form = extra.get("video", "vllm")
    if form not in ("vllm", "frames"):
        raise ConfigError(f"extra.video is {form!r}", hint="allowed: vllm, frames")
    field = extra.get("max_tokens_field", "max_tokens")
    if field not in ("max_tokens", "max_completion_tokens"):
        raise ConfigError(
            f"extra.max_tokens_field is {field!r}", hint="allowed: max_tokens, max_completion_tokens"
        )
    body = extra.get("body", {})
    if not isinstance(body, dict) or {"model", "messages", "stream", "n"} & set(body):
        raise ConfigError(
            "extra.body must be a mapping without model, messages, stream and n",
            hint="put other fields of the request there, e.g. chat_template_kwargs",
        )
    refuse_unbounded(spec, {"max_tokens", "max_completion_tokens", "best_of"} & set(body))
    return form, field, body


class OpenAIBackend(HttpBackend):
    """One model on an OpenAI-compatible server. Settings that only some servers need stand under `extra`:

        video: vllm | frames      how clips travel: vLLM's frame list with metadata (default), or as images
        max_tokens_field: NAME    e.g. max_completion_tokens
        body: {FIELD: VALUE}      further fields of every request, e.g. chat_template_kwargs

    A vLLM server takes the metadata of clips only when started with `--trust-request-mm-kwargs`. Without
    metadata frames would be misdated, so a server that refuses it ends the run with this advice.

    Args:
        spec: `base_url` ends with the API's root (`http://host:8000/v1`).

    Raises:
        ConfigError: an unknown or impossible setting.
    """

    def __init__(self, spec: BackendSpec) -> None:
        super().__init__(spec, "/chat/completions")
        self._form, self._max_tokens_field, self._extra = read_settings(spec)
        self._cache = FrameCache()

    def _body(self, request: Request, frames: Frames | None) -> bytes:
        if request.media is not None and (frames is None or not frames.encoded):
            raise ValueError("the request has media, its encoded frames are missing")
        # `source`, the bytes of the file itself, may be of either type
        if frames is not None and request.media_encoding not in ("", "source"):
            promised = "image/png" if request.media_encoding == "png" else "image/jpeg"
            if frames.mime != promised:
                raise ValueError(f"frames are {frames.mime}, the request says {request.media_encoding}")
        return request_body(
            request,
            frames,
            cache=self._cache,
            form=self._form,
            max_tokens_field=self._max_tokens_field,
            extra=self._extra,
        )

    def _parse(self, raw: bytes, asked: str, sent: str = "") -> Completion:
        return parse_completion(
            raw, asked=asked, clean=self._clean, is_own=lambda name: self._own(name, sent)
        )
