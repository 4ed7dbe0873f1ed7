"""Claude through the Messages API, by its own client.

The client's retries are off: ours stand outside (`backends.caller`), where they count for the limits, the
journal and the money.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from videop2r_data.backends.anthropic_wire import message_params, status_error, to_completion
from videop2r_data.backends.served import LIST_S, ServedModel
from videop2r_data.errors import ConfigError, TransientError
from videop2r_data.schemas.calls import Completion, Frames, Request
from videop2r_data.schemas.recipe import BackendSpec

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

DEFAULT_KEY_ENV = "ANTHROPIC_API_KEY"
NO_KEY = "none"
"""Sent to a server of one's own that asks for no key."""


class Connection:
    """The client of one account, with its errors turned into ours.

    Args:
        spec: `base_url`, `api_key_env`, `timeout_s`, `concurrency` are read. Without `base_url` the client's
            own default holds (`ANTHROPIC_BASE_URL`, else the public API).

    Raises:
        ConfigError: the key's environment variable is not set. Only a server of one's own, named by
            `base_url`, may do without a key, and then none is sent but a placeholder.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self._spec = spec
        self._key = _api_key(spec)
        self._client: AsyncAnthropic | None = None

    @property
    def client(self) -> AsyncAnthropic:
        """The client, made on first use (in the running loop)."""
        if self._client is None:
            self._client = self._open()
        return self._client

    def _open(self) -> AsyncAnthropic:
        import httpx2
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

        room = self._spec.concurrency
        limits = httpx2.Limits(max_connections=room, max_keepalive_connections=room)
        return AsyncAnthropic(
            api_key=self._key,
            base_url=self._spec.base_url,
            max_retries=0,
            timeout=self._spec.timeout_s,
            http_client=DefaultAsyncHttpxClient(limits=limits),
        )

    @asynccontextmanager
    async def errors(self, deadline_s: float | None = None) -> AsyncIterator[None]:
        """Run a call of the client under a deadline, its errors turned into ours (see `errors`).

        Args:
            deadline_s: seconds for the whole block, however slowly bytes drip; None: only the client's own
                limit between two bytes.

        A request that was sent and got no readable answer may have been served: it counts as possibly billed.
        """
        import anthropic
        import httpx2

        try:
            async with asyncio.timeout(deadline_s):
                yield
        except anthropic.APIStatusError as error:
            said = self._clean(error.message)
            raise status_error(error.status_code, error.body, error.response.headers, said=said) from None
        except TimeoutError:
            raise TransientError(f"no answer within {deadline_s} s", maybe_billed=True) from None
        except anthropic.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise TransientError("no connection to the server in time", away=True) from None
            sent = not isinstance(error.__cause__, httpx2.PoolTimeout)
            silent = f"the server was silent for {self._spec.timeout_s} s"
            raise TransientError(silent, maybe_billed=sent) from None
        except json.JSONDecodeError as error:
            raise TransientError(f"the answer is no JSON: {error}", maybe_billed=True) from None
        except (anthropic.APIError, httpx2.HTTPError, httpx2.StreamError) as error:
            cause = error.__cause__ or error
            never = isinstance(cause, httpx2.ConnectError)
            raise TransientError(
                self._clean(f"connection lost ({type(cause).__name__}: {cause})"),
                maybe_billed=not never,
                away=never,
            ) from None

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key != NO_KEY else text

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _api_key(spec: BackendSpec) -> str:
    name = spec.api_key_env or DEFAULT_KEY_ENV
    key = os.environ.get(name, "").strip()
    if key:
        return key
    if spec.base_url and not spec.api_key_env:
        return NO_KEY
    raise ConfigError(
        f"environment variable {name} is not set", where="backend.api_key_env", hint=f"export {name}=..."
    )


class AnthropicBackend:
    """One Claude model behind the Messages API: one call, one try.

    Args:
        spec: which model and how to reach it.
        encoding: how frames arrive, as in `Request.media_encoding` (`jpeg-95`, `png`).

    Raises:
        ConfigError: no key in the environment.
    """

    name = "anthropic"
    wants: Literal["none", "encoded", "array"] = "encoded"

    def __init__(self, spec: BackendSpec, *, encoding: str = "jpeg-95") -> None:
        self.model = spec.model
        self.encoding = encoding
        self._spec = spec
        self._connection = Connection(spec)

    async def start(self) -> None:
        """Load the client; the first call opens the connection."""
        _ = self._connection.client

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One message.

        Args:
            request: text and parameters; see `anthropic_wire.message_params` for what is sent of them.
            frames: encoded pictures if a message is marked `media`.

        Raises:
            TransientError: timeout, lost connection, status 408, 409, 429, 5xx (529: overloaded).
            RefusedError: status 400, 413, 422, or a request that this protocol cannot carry.
            AuthError: status 401, 402, 403, 404, or no credit left.
        """
        body = message_params(request, frames, cache_prompt=self._spec.cache_prompt)
        # The client's signature dropped the sampling parameters; the API still takes them for older models.
        sampling = {name: body.pop(name) for name in ("temperature", "top_p") if name in body}
        client = self._connection.client
        async with self._connection.errors(self._spec.timeout_s):
            answer: Any = await client.messages.create(
                **body, extra_body=sampling or None, timeout=self._spec.timeout_s
            )
        return to_completion(answer)

    async def models(self) -> list[ServedModel] | None:
        """The models that this account may use; None: a server of one's own that keeps no list.

        Raises:
            TransientError: no connection, no answer within `LIST_S` seconds, status 429 or 5xx.
            AuthError: the key is not taken.
        """
        import anthropic

        client, found = self._connection.client, []
        async with self._connection.errors(min(LIST_S, self._spec.timeout_s)):
            try:
                async for model in client.models.list(limit=1000):
                    lifecycle = getattr(model, "lifecycle", None) or "active"
                    note = "" if lifecycle == "active" else str(lifecycle)
                    prompt = getattr(model, "max_input_tokens", None)
                    found.append(ServedModel(str(model.id), prompt=prompt or None, note=note))
            except (anthropic.NotFoundError, AttributeError):  # AttributeError: an answer of another form
                return None
        return found

    async def close(self) -> None:
        """Close every connection; safe to call twice."""
        await self._connection.close()
