"""One model behind a server that speaks the chat completions protocol."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from videop2r_data.backends.breaker import TRUST_FLAG, what_to_change
from videop2r_data.backends.caller import LIST_S, text_at, transient
from videop2r_data.backends.limiter import RateLimits
from videop2r_data.backends.openai.wire import (
    FrameCache,
    VideoForm,
    parse_completion,
    parse_models,
    rate_limits,
    request_body,
    retry_after_s,
    server_message,
)
from videop2r_data.errors import AuthError, BackendError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas import BackendSpec, Completion, Frames, Request, ServedModel

# Deadlines of many calls with one timer: a timer for each costs a tenth of the CPU of a short call.


TICKS = 20
"""A call ends at most this part of its deadline late."""
MAX_TICK_S = 1.0


class Deadlines:
    """Ends calls of one event loop that take longer than they may.

    Args:
        seconds: what each call may take; it ends at most a twentieth of that, or a second, later.

    >>> async def main():
    ...     with Deadlines(0.02).call():
    ...         await asyncio.sleep(5)
    >>> asyncio.run(main())
    Traceback (most recent call last):
    ...
    TimeoutError
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.under_way: dict[_Call, float] = {}
        """Calls with their deadlines, oldest first."""
        self._tick_s = min(seconds / TICKS, MAX_TICK_S)
        self._timer: asyncio.TimerHandle | None = None

    def call(self) -> _Call:
        """A context for one call: raises TimeoutError in it when its time is over."""
        return _Call(self)

    def watch(self, call: _Call) -> None:
        """Start the deadline of a call."""
        loop = asyncio.get_running_loop()
        self.under_way[call] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self._tick_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        over = []
        for call, due in self.under_way.items():
            if due > now:
                break
            over.append(call)
        for call in over:
            del self.under_way[call]
            call.expire()
        self._timer = loop.call_later(self._tick_s, self._tick, loop) if self.under_way else None


class _Call:
    """One call; cancels its task when time is over, and turns that cancellation alone into TimeoutError."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def expire(self) -> None:
        """The deadline passed: cancel the task of the call."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = self._task.cancelling()
        self._deadlines.watch(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.under_way.pop(self, None)
        if not self._expired or self._task is None:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


# Settings of the `openai` backend, checked before anything is sent.


_EXTRA = {"video", "max_tokens_field", "body"}


def endpoint(spec: BackendSpec) -> tuple[URL, str]:
    """The address of chat completions, and the base as it may be shown (no query)."""
    try:
        base = URL(spec.base_url or "")
    except ValueError:
        base = URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(
            "base_url is no http(s) address", hint="give the root of the API, e.g. http://localhost:8000/v1"
        )
    if base.user or base.password:
        raise ConfigError(
            "base_url holds a user or a password", hint="name the variable with the key in api_key_env"
        )
    shown = str(base.with_query(None).with_fragment(None))
    return base.with_path(base.path.rstrip("/") + "/chat/completions").with_query(base.query), shown


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
    return form, field, body


def read_key(spec: BackendSpec) -> str:
    """The key from the environment, "" when none is asked for."""
    if not spec.api_key_env:
        return ""
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"environment variable {spec.api_key_env} is not set",
            hint=f"export {spec.api_key_env}=<your key>, or change api_key_env in the recipe",
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {spec.api_key_env} holds characters that no key has")
    return key


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this address; looked up once, aiohttp would do it per call."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)


# aiohttp on the hot path, one session and one pool of connections per backend. Settings that only some
# servers need stand in the recipe under `extra`:
#
#     video: vllm | frames         how clips travel: vLLM's frame list with metadata (default), or as images
#     max_tokens_field: NAME       e.g. max_completion_tokens
#     body: {FIELD: VALUE}         further fields of every request, e.g. chat_template_kwargs
#
# A vLLM server takes the metadata of clips only when started with `--trust-request-mm-kwargs`. Without
# metadata frames would be misdated, so a server that refuses it ends the run with this advice.
#
# The key is read from the environment, put into the session's headers and nowhere else.


MAX_ANSWER_BYTES = 32 * 2**20
DIRECT_BODY_BYTES = 2**20
CONNECT_S = 10.0
_NO_ACCESS = frozenset({401, 403, 404, 405})
_HOPELESS = frozenset(
    {"insufficient_quota", "model_not_found", "invalid_api_key", "billing_hard_limit_reached"}
)


_JSON = "application/json"


class _Body(aiohttp.Payload):
    """A large body in pieces, so that one call cannot hold the loop or fill the socket's buffer."""

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type=_JSON)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        """Send the body in pieces."""
        view = memoryview(self._value)
        for start in range(0, len(view), 2**18):
            await writer.write(view[start : start + 2**18])


class OpenAIBackend:
    """One model on an OpenAI-compatible server.

    Args:
        spec: `base_url` ends with the API's root (`http://host:8000/v1`).

    Raises:
        ConfigError: an unknown or impossible setting.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self.model = spec.model
        self.on_rate_limits: Callable[[RateLimits], None] | None = None
        """Called with what the server's headers say; set it to `AdaptiveLimiter.observe`."""
        self._spec = spec
        self._url, self._shown = endpoint(spec)
        self._form, self._max_tokens_field, self._extra = read_settings(spec)
        self._cache = FrameCache()
        self._deadlines = Deadlines(spec.timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._key = ""

    def __repr__(self) -> str:
        return f"OpenAIBackend(model={self.model!r}, base_url={self._shown!r})"

    async def start(self) -> None:
        """Open the pool of connections; the first call connects.

        Raises:
            ConfigError: `api_key_env` names a variable that is not set.
        """
        if self._session is not None:
            return
        self._key = read_key(self._spec)
        headers = {
            "Content-Type": _JSON,
            "Accept": _JSON,
            "Accept-Encoding": "identity",
            "User-Agent": "videop2r-data",
        }
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._proxy = proxy_for(self._url)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._spec.concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try, within `spec.timeout_s` seconds.

        Raises:
            TransientError: timeout, lost connection, status 408, 409, 425, 429 or 5xx, no readable answer.
            RefusedError: the server refused this very request.
            AuthError: wrong key, no permission, no such model or path, no money left.
        """
        session = self._session
        if session is None:
            raise BackendError(f"{self!r} is not started")
        if request.media is not None and (frames is None or not frames.encoded):
            raise ValueError("the request has media, its encoded frames are missing")
        # `source`, the bytes of the file itself, may be of either type
        if frames is not None and request.media_encoding not in ("", "source"):
            promised = "image/png" if request.media_encoding == "png" else "image/jpeg"
            if frames.mime != promised:
                raise ValueError(f"frames are {frames.mime}, the request says {request.media_encoding}")
        raw = request_body(
            request,
            frames,
            cache=self._cache,
            form=self._form,
            max_tokens_field=self._max_tokens_field,
            extra=self._extra,
        )
        data = aiohttp.BytesPayload(raw, content_type=_JSON) if len(raw) < DIRECT_BODY_BYTES else _Body(raw)
        # one timer for all calls ends each; a second one would cost a tenth of a short call
        with self._errors(self._spec.timeout_s, paid=True), self._deadlines.call():
            async with session.post(
                self._url, data=data, proxy=self._proxy, allow_redirects=False
            ) as response:
                body = await _read(response)
        if self.on_rate_limits is not None:
            limits = rate_limits(response.headers)
            if limits is not None:
                self.on_rate_limits(limits)
        if response.status != 200:
            raise self._failure(response.status, body, response.headers)
        return parse_completion(body, asked=request.model, clean=self._clean)

    async def models(self) -> list[ServedModel] | None:
        """The models that `GET <base_url>/models` lists; None: this server keeps no list.

        Raises:
            TransientError: no connection, no answer within `LIST_S` seconds, status 429 or 5xx.
            AuthError: the key is not taken.
        """
        session = self._session
        if session is None:
            raise BackendError(f"{self!r} is not started")
        url = self._url.with_path(self._url.path.removesuffix("/chat/completions") + "/models")
        deadline_s = min(LIST_S, self._spec.timeout_s)
        with self._errors(deadline_s, paid=False):
            async with (
                asyncio.timeout(deadline_s),
                session.get(
                    url.with_query(self._url.query), proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                body = await _read(response)
        if response.status == 200:
            return parse_models(_decode(body))
        failure = self._failure(response.status, body, response.headers)
        if response.status in (401, 403) or isinstance(failure, TransientError):
            raise failure
        return None

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @contextmanager
    def _errors(self, deadline_s: float, *, paid: bool) -> Iterator[None]:
        """Turn what a connection raises into TransientError; `paid`: a lost answer may be charged."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError:  # a TimeoutError too, but nothing was sent
            raise TransientError(
                f"no connection to {self._shown} within {CONNECT_S:g} s", away=True
            ) from None
        except TimeoutError:
            raise TransientError(
                f"no answer from {self._shown} within {deadline_s:g} s", maybe_billed=paid, away=not paid
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            never = isinstance(error, aiohttp.ClientConnectorError)
            raise TransientError(
                f"connection to {self._shown} failed: {self._clean(f'{type(error).__name__}: {error}')}",
                maybe_billed=paid and not never,
                away=never,
            ) from None

    def _failure(self, status: int, body: bytes, headers: Any) -> BackendError:
        """The error for an answer with a status other than 200."""
        data = _decode(body)
        text = f"status {status}: {self._clean(server_message(data))}"
        if status == 400 and TRUST_FLAG in text:
            return AuthError(text, hint=what_to_change(text))
        if status in _NO_ACCESS or text_at(data, "error", "code") in _HOPELESS:
            return AuthError(text, hint=self._hint(status))
        failure = transient(status, text, retry_after_s(headers))
        if failure is not None:
            return failure
        if 300 <= status < 400:
            hint = "set base_url to the address that it redirects to"
            return AuthError(f"{text} ({self._shown} redirects)", hint=hint)
        if 200 <= status < 300:
            return TransientError(f"{text} (200 was expected)", maybe_billed=True)
        return RefusedError(text)

    def _hint(self, status: int) -> str:
        if status in (404, 405):
            return f"check model {self.model!r} and base_url {self._shown} (it usually ends in /v1)"
        variable = self._spec.api_key_env
        return f"check the key in ${variable}" if variable else "set api_key_env to the variable with the key"

    def _clean(self, text: str) -> str:
        """Text without the key, which a server or a library may echo."""
        return text.replace(self._key, "***") if self._key else text


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole body, within the size limit."""
    length = response.content_length
    if length is not None and length <= MAX_ANSWER_BYTES:
        return await response.read()
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            response.close()
            raise TransientError(f"the server's answer passes {MAX_ANSWER_BYTES} bytes", maybe_billed=True)
        parts.append(part)
    return b"".join(parts)


def _decode(body: bytes) -> Any:
    try:
        return orjson.loads(body[: 2**20])
    except orjson.JSONDecodeError:
        return body[:2000].decode("utf-8", errors="replace")
