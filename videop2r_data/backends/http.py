"""One model behind a server over HTTP: deadlines, key, proxy, a pool of connections, what errors mean."""

from __future__ import annotations

import asyncio
import io
import os
import re
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self

import aiohttp
from yarl import URL

from videop2r_data.backends.answers import json_of, retry_after_s, scrubbed, text_at, transient
from videop2r_data.backends.breaker import TRUST_FLAG, what_to_change
from videop2r_data.backends.limiter import RateLimits
from videop2r_data.backends.openai.wire import (
    ID_HEADER,
    Owners,
    parse_models,
    rate_limits,
    request_id,
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
        seconds: what each call may take; it ends at most a twentieth of that, or a second, later. Time
            in which this process was stopped (SIGSTOP, Ctrl-Z) does not count: answers may lie there.

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
        asleep_s = now - self._timer.when() if self._timer is not None else 0.0
        if asleep_s > self._tick_s:
            self.under_way = {call: due + asleep_s for call, due in self.under_way.items()}
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


# Where the server is, and the key to it.


def endpoint(address: str) -> tuple[URL, str]:
    """The root of the API, and the same as it may be shown (no query)."""
    try:
        base = URL(address)
    except ValueError:
        base = URL()
    if base.scheme not in ("http", "https") or not base.host:
        seen = "" if set("@?") & set(address) else f": {address[:200]}"  # there may be a key in it
        raise ConfigError(
            f"base_url is no http(s) address{seen}",
            hint="give the root of the API, e.g. http://localhost:8000/v1",
        )
    if base.user or base.password:
        raise ConfigError(
            "base_url holds a user or a password", hint="name the variable with the key in api_key_env"
        )
    return base, str(base.with_query(None).with_fragment(None))


def read_key(spec: BackendSpec, usual: str = "") -> str:
    """The key from the environment, "" when none is asked for.

    Without `api_key_env` it is that of the variable `usual`; only a server of one's own, named by `base_url`,
    may do without it.
    """
    name = spec.api_key_env or usual
    key = os.environ.get(name, "").strip() if name else ""
    if not name or (not key and not spec.api_key_env and spec.base_url):
        return ""
    if not key:
        raise ConfigError(
            f"environment variable {name} is not set",
            hint=f"export {name}=<your key>, or change api_key_env in the recipe",
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {name} holds characters that no key has")
    return key


def refuse_unbounded(spec: BackendSpec, fields: Iterable[str]) -> None:
    """Refuse further fields of a request that let a call cost more than is written ahead for it.

    Raises:
        ConfigError: there are such fields, and calls have a price.
    """
    if spec.price is not None and (found := ", ".join(sorted(fields))):
        named = "; extra.max_tokens_field says under which name it is sent" if spec.kind == "openai" else ""
        raise ConfigError(
            f"{found} in extra.body: a call could cost more than a limit of money counts with",
            hint=f"say in max_tokens of the step how long an answer may be{named}; or leave out the price",
        )


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this address; looked up once, aiohttp would do it per call."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)


# aiohttp on the hot path, one session and one pool of connections per backend. The key is read from the
# environment, put into the session's headers and nowhere else.


MAX_ANSWER_BYTES = 32 * 2**20
DIRECT_BODY_BYTES = 2**20
CONNECT_S = 10.0
LIST_S = 15.0
"""Seconds for a server's list of models: one that serves answers it at once."""
_NO_ACCESS = frozenset({401, 402, 403, 404, 405})
_CONTENT = re.compile(r"input was flagged|violates usage guidelines|content.polic", re.I)
"""In an answer of status 403 of OpenRouter and xAI: what is refused is this one request."""
_HOPELESS = frozenset(
    {"insufficient_quota", "model_not_found", "invalid_api_key", "billing_hard_limit_reached"}
)


_JSON = "application/json"


class _Connector(aiohttp.TCPConnector):
    """Gives out only connections on which nothing is left to read.

    aiohttp would hand what came unasked, such as an answer that a proxy repeats, to the next request.
    """

    async def connect(self, *settings: Any, **named: Any) -> Any:
        """A connection for a request."""
        while True:
            found = await super().connect(*settings, **named)
            await asyncio.sleep(0)  # who read the last answer on it has a turn to say that it was wrong
            if found.protocol is not None and not found.protocol.should_close:
                return found
            found.close()


class _Response(aiohttp.ClientResponse):
    """Keeps hold of its connection, which goes back to the pool with the last byte."""

    async def start(self, connection: Any) -> Any:
        """Read the head."""
        self.drop: Callable[[], None] = connection.protocol.force_close
        return await super().start(connection)


def payload(raw: bytes, content_type: str = _JSON) -> aiohttp.Payload:
    """A body as it is sent best: a large one in pieces, so that one call cannot hold the loop."""
    if len(raw) < DIRECT_BODY_BYTES:
        return aiohttp.BytesPayload(raw, content_type=content_type)
    return aiohttp.BytesIOPayload(io.BytesIO(raw), content_type=content_type)


class HttpBackend(ABC):
    """One model on a server: one call, one try. A protocol says how requests and answers look.

    Args:
        spec: `model`, `base_url`, `api_key_env`, `timeout_s`, `concurrency` are read.
        path: of a call, below the root of the API.
        public: root of the API where the recipe names none.
        usual_key: variable with the key where the recipe names none.

    Raises:
        ConfigError: an impossible setting.
    """

    keep_alive: ClassVar[bool] = True
    """A connection serves several calls, one after the other; if not, what a proxy repeats costs no call."""

    def __init__(self, spec: BackendSpec, path: str, public: str = "", usual_key: str = "") -> None:
        self.model = spec.model
        self.on_rate_limits: Callable[[RateLimits], None] | None = None
        """Called with what the server's headers say; set it to `AdaptiveLimiter.observe`."""
        self._spec = spec
        self._root, self._shown = endpoint(spec.base_url or public)
        self._url = self._at(path)
        self._usual_key, self._key = usual_key, ""
        self._owners = Owners()
        self._deadlines = Deadlines(spec.timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r}, base_url={self._shown!r})"

    @abstractmethod
    def _body(self, request: Request, frames: Frames | None) -> bytes:
        """The JSON of one call."""

    @abstractmethod
    def _parse(self, raw: bytes, asked: str, sent: str = "") -> Completion:
        """What an answer says; `asked`: the model, where the server reports none; `sent`: the call's id."""

    def _own(self, name: object, sent: str) -> bool:
        """Whether an answer of this id is one to the call that was sent with that id, as far as ids tell."""
        return not sent or self._owners.own(name, sent)

    def _credentials(self) -> dict[str, str]:
        """Headers that carry the key."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def _at(self, path: str) -> URL:
        """The address of a path below the root."""
        return self._root.with_path(self._root.path.rstrip("/") + path).with_query(self._root.query)

    async def start(self) -> None:
        """Open the pool of connections; the first call connects.

        Raises:
            ConfigError: no key in the environment.
        """
        if self._session is not None:
            return
        self._key = read_key(self._spec, self._usual_key)
        headers = {
            "Content-Type": _JSON,
            "Accept": _JSON,
            "Accept-Encoding": "identity",
            "User-Agent": "videop2r-data",
            **self._credentials(),
        }
        self._proxy = proxy_for(self._root)
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._spec.concurrency, ttl_dns_cache=300),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            headers=headers,
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try, within `spec.timeout_s` seconds.

        Raises:
            TransientError: timeout, lost connection, status 408, 409, 425, 429 or 5xx, no readable answer.
            RefusedError: the server refused this very request, or its protocol cannot carry it.
            AuthError: wrong key, no permission, no such model or path, no money left.
        """
        if self._session is None:
            raise BackendError(f"{self!r} is not started")
        data, sent = payload(self._body(request, frames)), request_id(request)
        response, body = await self._send("POST", self._url, paid=True, data=data, headers={ID_HEADER: sent})
        if self.on_rate_limits is not None:
            limits = rate_limits(response.headers)
            if limits is not None:
                self.on_rate_limits(limits)
        if response.status != 200:
            raise self._failure(response.status, body, response.headers)
        try:
            return self._parse(body, request.model, sent)
        except TransientError:
            response.drop()  # where an answer went wrong, the next one may come for the wrong question
            raise

    async def models(self) -> list[ServedModel] | None:
        """The models that the server lists; None: this server keeps no list.

        Raises:
            TransientError: no connection, no answer within `LIST_S` seconds, status 429 or 5xx.
            AuthError: the key is not taken.
        """
        with self._errors(LIST_S, paid=False):
            async with asyncio.timeout(LIST_S):
                response, body = await self._send("GET", self._models_url())
        if response.status == 200:
            return parse_models(decode(body))
        failure = self._failure(response.status, body, response.headers)
        no_access = response.status in (400, 401, 403) and isinstance(failure, AuthError)
        if no_access or isinstance(failure, TransientError):
            raise failure
        return None

    def _models_url(self) -> URL:
        return self._at("/models")

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _send(
        self, method: str, url: URL, *, paid: bool = False, **parts: Any
    ) -> tuple[_Response, bytes]:
        """The answer to one call, one try, and its body; `paid`: a lost answer may be charged."""
        await self.start()
        assert self._session is not None
        # one timer for all calls ends each; a second one would cost a tenth of a short call
        with self._errors(self._spec.timeout_s, paid=paid), self._deadlines.call():
            async with self._session.request(
                method, url, proxy=self._proxy, allow_redirects=False, **parts
            ) as response:
                assert isinstance(response, _Response)
                if not self.keep_alive:
                    response.drop()
                return response, scrubbed(await _read(response), self._key)

    async def _json(self, method: str, url: URL, *, paid: bool = False, **parts: Any) -> dict[str, Any]:
        """The JSON object that a call is answered with.

        Raises:
            TransientError, RefusedError, AuthError: see `errors`.
        """
        response, body = await self._send(method, url, paid=paid, **parts)
        if response.status != 200:
            raise self._failure(response.status, body, response.headers)
        told = decode(body)
        if not isinstance(told, dict):
            said = self._clean(server_message(told))
            raise TransientError(f"the answer is no JSON object: {said}", maybe_billed=paid)
        return told

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
        data = decode(body)
        text = f"status {status}: {self._clean(server_message(data))}"
        if status == 400 and TRUST_FLAG in text:
            return AuthError(text, hint=what_to_change(text))
        if status == 403 and _CONTENT.search(text):
            return RefusedError(text)
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
        if status == 402:
            return "add credit to the account, then run the same command"
        variable = self._spec.api_key_env or (self._usual_key if self._key else "")
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


def decode(body: bytes) -> Any:
    """JSON of a body, or the beginning of what is none."""
    try:
        return json_of(body)
    except ValueError:
        return body[:2000].decode("utf-8", errors="replace")
