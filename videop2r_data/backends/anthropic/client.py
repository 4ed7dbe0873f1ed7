"""Claude through the Messages API."""

from __future__ import annotations

import os
from typing import Any

import orjson
from yarl import URL

from videop2r_data.backends.answers import text_at
from videop2r_data.backends.anthropic.wire import message_params, status_error, to_completion
from videop2r_data.backends.http import HttpBackend, decode
from videop2r_data.backends.openai.wire import OTHERS, server_message
from videop2r_data.errors import BackendError, TransientError
from videop2r_data.schemas import BackendSpec, Completion, Frames, Request

PUBLIC = "https://api.anthropic.com"
NO_KEY = "none"
"""Sent to a server of one's own that asks for no key."""


class AnthropicBackend(HttpBackend):
    """One Claude model; without `base_url` at `ANTHROPIC_BASE_URL`, else at the public API."""

    keep_alive = False  # an answer that a proxy repeats late costs no call

    def __init__(self, spec: BackendSpec) -> None:
        public = os.environ.get("ANTHROPIC_BASE_URL") or PUBLIC
        super().__init__(spec, "/v1/messages", public, "ANTHROPIC_API_KEY")

    def _credentials(self) -> dict[str, str]:
        return {"x-api-key": self._key or NO_KEY, "anthropic-version": "2023-06-01"}

    def _models_url(self) -> URL:
        return self._at("/v1/models").update_query(limit=1000)

    def _body(self, request: Request, frames: Frames | None) -> bytes:
        return orjson.dumps(message_params(request, frames, cache_prompt=self._spec.cache_prompt))

    def _parse(self, raw: bytes, asked: str, sent: str = "") -> Completion:
        data = decode(raw)
        if not self._own(text_at(data, "id"), sent):
            raise TransientError(OTHERS, maybe_billed=True)
        return to_completion(data)

    def _failure(self, status: int, body: bytes, headers: Any) -> BackendError:
        if status < 400:
            return super()._failure(status, body, headers)
        data = decode(body)
        return status_error(status, data, headers, said=self._clean(server_message(data)))
