"""Gemini through `generateContent`, and the Files API for clips that are sent as they are."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
from yarl import URL

from videop2r_data.backends.answers import text_at
from videop2r_data.backends.gemini.wire import content_body, to_completion
from videop2r_data.backends.http import HttpBackend, decode, payload, refuse_unbounded
from videop2r_data.backends.openai.wire import OTHERS
from videop2r_data.errors import AuthError, BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas import BackendSpec, Completion, Frames, Request

PUBLIC = "https://generativelanguage.googleapis.com/v1beta"
_NO_ACCESS = re.compile(r"API.key (not valid|expired)|billing|location is not supported", re.I)
_RETRY = re.compile(rb'"retryDelay": *"([0-9.]{1,9})s"')
_UNBOUNDED = {"maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count"}
_LOOK_S = 2.0
"""Seconds between two looks at a clip that the server still reads."""


class GeminiBackend(HttpBackend):
    """One Gemini model; without `base_url` at Google's API.

    Raises:
        ConfigError: an unknown or impossible setting.
    """

    keep_alive = False  # nor has each of its answers an id

    def __init__(self, spec: BackendSpec) -> None:
        path = f"/models/{spec.model.removeprefix('models/')}:generateContent"
        super().__init__(spec, path, PUBLIC, "GEMINI_API_KEY")
        body, video = spec.extra.get("body", {}), spec.extra.get("video", "frames")
        known = not set(spec.extra) - {"body", "video"} and video in ("frames", "file")
        config = body.get("generationConfig", {}) if isinstance(body, dict) else None
        if not known or not isinstance(config, dict) or {"contents", "systemInstruction"} & set(body):
            hint = "allowed: body (fields of the request but its contents), and video: frames or file"
            raise ConfigError(f"extra of kind gemini cannot be {str(spec.extra)[:200]}", hint=hint)
        refuse_unbounded(spec, _UNBOUNDED & set(config))
        self._extra = body

    def _credentials(self) -> dict[str, str]:
        return {"x-goog-api-key": self._key} if self._key else {}

    def _models_url(self) -> URL:
        return self._at("/models").update_query(pageSize=1000)

    def _body(self, request: Request, frames: Frames | None) -> bytes:
        return orjson.dumps(content_body(request, frames, extra=self._extra))

    def _parse(self, raw: bytes, asked: str, sent: str = "") -> Completion:
        data = decode(raw)
        if not self._own(text_at(data, "responseId"), sent):
            raise TransientError(OTHERS, maybe_billed=True)
        return to_completion(data, asked=asked)

    def _failure(self, status: int, body: bytes, headers: Any) -> BackendError:
        failure = super()._failure(status, body, headers)
        if status == 400 and _NO_ACCESS.search(failure.message):
            return AuthError(failure.message, hint=self._hint(status))
        if isinstance(failure, TransientError) and (asked := _RETRY.search(body)):
            failure.retry_after_s = float(asked[1])
        return failure

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try, as `HttpBackend.complete`; a clip that goes as its file is uploaded before."""
        if not request.sends_file:
            return await super().complete(request, frames)
        if frames is None or frames.path is None:
            raise RefusedError("the request sends the file of its clip, and none came with it")
        async with self._clip(frames) as file:
            body = content_body(request, frames, extra=self._extra, file=file)
            told = await self._json("POST", self._url, paid=True, data=payload(orjson.dumps(body)))
        return to_completion(told, asked=request.model)

    @asynccontextmanager
    async def _clip(self, frames: Frames) -> AsyncIterator[dict[str, str]]:
        """The clip at the server for the time of one call; it is that of the digest in the request's key."""
        assert frames.path is not None
        try:
            data = await asyncio.to_thread(frames.path.read_bytes)
        except OSError as error:
            raise TransientError(f"{frames.path} cannot be read: {error.strerror}") from None
        if await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()) != frames.record.file_sha256:
            raise TransientError(f"{frames.path} changed while the build runs")
        mime = mimetypes.guess_type(frames.path.name)[0] or "video/mp4"
        try:
            told = await self._upload(data, mime, frames.record.file_sha256)
            url = self._at(f"/{told['name']}")
            for _ in range(int(self._spec.timeout_s / _LOOK_S) + 1):
                if (state := text_at(told, "state")) != "PROCESSING":
                    break
                await asyncio.sleep(_LOOK_S)
                told = await self._json("GET", url, paid=True)
        except TransientError as error:
            error.maybe_billed = False  # nothing was asked yet
            raise
        try:
            if state != "ACTIVE":
                said = text_at(told, "error", "message")[:300]
                raise RefusedError(f"the server cannot read this clip: {state} {said}")
            yield {"fileUri": text_at(told, "uri"), "mimeType": mime}
        finally:
            with suppress(BackendError):  # it goes by itself after two days
                await self._send("DELETE", url)

    async def _upload(self, data: bytes, mime: str, label: str) -> dict[str, Any]:
        """Hand a file over in one piece; returns what the server says of it."""
        headers = {
            "X-Goog-Upload-Protocol": "resumable",
            "X-Goog-Upload-Command": "start",
            "X-Goog-Upload-Header-Content-Length": str(len(data)),
            "X-Goog-Upload-Header-Content-Type": mime,
        }
        begin = self._root.with_path(f"/upload{self._root.path.rstrip('/')}/files")
        named = {"file": {"displayName": label}}
        told, body = await self._send("POST", begin, paid=True, json=named, headers=headers)
        place = told.headers.get("x-goog-upload-url", "")
        if told.status != 200 or not place:
            raise self._failure(told.status, body, told.headers)
        # The address is the server's; behind a gateway that is another host, which our key must not reach.
        url = begin.with_path(URL(place).path).with_query(URL(place).query)
        headers = {"X-Goog-Upload-Offset": "0", "X-Goog-Upload-Command": "upload, finalize"}
        done = await self._json("POST", url, paid=True, data=payload(data, mime), headers=headers)
        if not re.fullmatch(r"files/[A-Za-z0-9_-]{1,128}", text_at(done, "file", "name")):
            raise TransientError("the answer to an upload names no file")
        file: dict[str, Any] = done["file"]
        return file
