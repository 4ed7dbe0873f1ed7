"""JSON over HTTP to a vLLM server, from code that is not asynchronous: many requests at once, tried again."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import orjson

from videop2r_data.backends.caller import backoff_s
from videop2r_data.errors import AuthError, ConfigError, RefusedError, TransientError
from videop2r_data.trainer.rollout.vllm_specs import VllmSpec

T = TypeVar("T")
_AGAIN = frozenset({408, 409, 425, 429})
_RNG = random.Random()  # noqa: S311 jitter is no secret


class Http:
    """One server.

    Args:
        spec: `url`, `api_key_env`, `concurrency`, `timeout_s`, `retries`.

    Raises:
        ConfigError: no address, or the variable with the key is not set.
    """

    def __init__(self, spec: VllmSpec) -> None:
        if not spec.url:
            raise ConfigError(
                "rollout backend 'vllm-server' has no address", hint="set vllm.url: http://HOST:PORT"
            )
        self.url = spec.url.rstrip("/")
        self._spec = spec
        self._headers = {"Content-Type": "application/json"}
        if spec.api_key_env:
            key = os.environ.get(spec.api_key_env, "").strip()
            if not key:
                raise ConfigError(
                    f"environment variable {spec.api_key_env} is not set",
                    hint=f"export {spec.api_key_env}=<the server's key>, or leave vllm.api_key_env empty",
                )
            self._headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str) -> Any:
        """The answer to one GET."""
        return self._run(self._one("GET", path, None, self._spec.retries))

    def post(self, path: str, body: Any = None) -> Any:
        """The answer to one POST; only for what may be done twice."""
        data = b"" if body is None else orjson.dumps(body)
        return self._run(self._one("POST", path, lambda: data, self._spec.retries))

    def post_all(self, path: str, bodies: Sequence[Callable[[], bytes]]) -> list[Any]:
        """The answers to many POSTs, in order; the first failure ends them all.

        Args:
            path: same for all.
            bodies: what makes each body; called when its turn comes, so that few are in memory at once.

        Raises:
            TransientError: the server did not answer, the last try included.
            RefusedError: it refused a request.
            AuthError: it refused the key.
            ConfigError: it has no such route.
        """
        return self._run(self._all(path, bodies))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    async def _one(self, method: str, path: str, body: Callable[[], bytes] | None, retries: int) -> Any:
        async with self._session() as session:
            return await self._tries(session, method, path, body, retries)

    async def _all(self, path: str, bodies: Sequence[Callable[[], bytes]]) -> list[Any]:
        gate = asyncio.Semaphore(self._spec.concurrency)

        async def one(session: Any, body: Callable[[], bytes]) -> Any:
            async with gate:
                return await self._tries(session, "POST", path, body, self._spec.retries)

        async with self._session() as session:
            tasks = [asyncio.create_task(one(session, body)) for body in bodies]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _session(self) -> Any:
        import aiohttp

        return aiohttp.ClientSession(
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=self._spec.timeout_s, sock_connect=30.0),
            connector=aiohttp.TCPConnector(limit=self._spec.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def _tries(
        self, session: Any, method: str, path: str, body: Callable[[], bytes] | None, retries: int
    ) -> Any:
        data = None if body is None else await asyncio.to_thread(body)
        for attempt in range(1, retries + 2):
            try:
                return await self._try(session, method, path, data)
            except TransientError as error:
                if attempt > retries:
                    raise TransientError(f"{error.message} (try {attempt}, the last)") from error
                await asyncio.sleep(backoff_s(attempt, rng=_RNG))
        raise AssertionError("unreachable")

    async def _try(self, session: Any, method: str, path: str, data: bytes | None) -> Any:
        import aiohttp

        try:
            async with session.request(method, self.url + path, data=data, allow_redirects=False) as answer:
                raw = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise TransientError(f"no answer from {self.url}{path}: {said}") from error
        if status == 200:
            return _loads(raw, path) if raw.strip() else None
        raise _failure(status, path, raw)


def _loads(raw: bytes, path: str) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise TransientError(f"the server answered {path} with something that is no JSON") from None


def _failure(status: int, path: str, raw: bytes) -> Exception:
    """What a status says about another try."""
    said = f"{path}: status {status}: {_message(raw)}"
    if status in _AGAIN or status >= 500:
        return TransientError(said)
    if status in (401, 403):
        return AuthError(said, hint="check vllm.api_key_env against the server's --api-key")
    if status in (404, 405):
        return ConfigError(f"the server has no route {path} (status {status})")
    return RefusedError(said, hint="was the server started with the command that serve_command gives?")


def _message(raw: bytes) -> str:
    """What the server says, on one line and shortened."""
    text = raw.decode("utf-8", "replace")
    try:
        data = orjson.loads(raw)
        error = data.get("error", data)
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (orjson.JSONDecodeError, AttributeError):
        pass
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"
