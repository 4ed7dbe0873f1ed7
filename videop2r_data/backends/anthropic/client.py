"""Claude through the Messages API and the Message Batches API, by its own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from videop2r_data.backends.anthropic.wire import message_params, result_error, status_error, to_completion
from videop2r_data.backends.batch_log import BatchGoneError, NotAcceptedError, ShortResultsError
from videop2r_data.backends.caller import LIST_S
from videop2r_data.errors import AuthError, ConfigError, RefusedError, TransientError
from videop2r_data.schemas import (
    BackendSpec,
    BatchInfo,
    BatchResult,
    Completion,
    Frames,
    Request,
    ServedModel,
)

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic


# The client's own retries are off: `backends.caller` retries, within the limits of rate and money and with
# each try in the journal.


DEFAULT_KEY_ENV = "ANTHROPIC_API_KEY"
NO_KEY = "none"
"""Sent to a server of one's own that asks for no key."""


class _Account:
    """The client of one account, with its errors turned into ours.

    Args:
        spec: `model`, `base_url`, `api_key_env`, `timeout_s`, `concurrency`, `cache_prompt` are read. Without
            `base_url` the client's own default holds (`ANTHROPIC_BASE_URL`, else the public API).

    Raises:
        ConfigError: the key's environment variable is not set. Only a server of one's own, named by
            `base_url`, may do without a key, and then none is sent but a placeholder.
    """

    def __init__(self, spec: BackendSpec) -> None:
        self.model = spec.model
        self._spec = spec
        self._client: AsyncAnthropic | None = None
        name = spec.api_key_env or DEFAULT_KEY_ENV
        self._key = os.environ.get(name, "").strip()
        if self._key:
            return
        if spec.api_key_env or not spec.base_url:
            hint = f"export {name}=..."
            raise ConfigError(
                f"environment variable {name} is not set", where="backend.api_key_env", hint=hint
            )
        self._key = NO_KEY

    @property
    def client(self) -> AsyncAnthropic:
        """The client, made on first use (in the running loop)."""
        import httpx2
        from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

        if self._client is None:
            room = self._spec.concurrency
            limits = httpx2.Limits(max_connections=room, max_keepalive_connections=room)
            self._client = AsyncAnthropic(
                api_key=self._key,
                base_url=self._spec.base_url,
                max_retries=0,
                timeout=self._spec.timeout_s,
                http_client=DefaultAsyncHttpxClient(limits=limits),
            )
        return self._client

    @asynccontextmanager
    async def _errors(self, deadline_s: float | None) -> AsyncIterator[None]:
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


class AnthropicBackend(_Account):
    """One Claude model behind the Messages API: one call, one try."""

    async def start(self) -> None:
        """Load the client; the first call opens the connection."""
        _ = self.client

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One message.

        Args:
            request: text and parameters; see `wire.message_params` for what is sent of them.
            frames: encoded pictures if a message is marked `media`.

        Raises:
            TransientError: timeout, lost connection, status 408, 409, 429, 5xx (529: overloaded).
            RefusedError: status 400, 413, 422, or a request that this protocol cannot carry.
            AuthError: status 401, 402, 403, 404, or no credit left.
        """
        body = message_params(request, frames, cache_prompt=self._spec.cache_prompt)
        # The client's signature dropped the sampling parameters; the API still takes them for older models.
        sampling = {name: body.pop(name) for name in ("temperature", "top_p") if name in body}
        async with self._errors(self._spec.timeout_s):
            answer: Any = await self.client.messages.create(
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

        found = []
        async with self._errors(min(LIST_S, self._spec.timeout_s)):
            try:
                async for model in self.client.models.list(limit=1000):
                    lifecycle = getattr(model, "lifecycle", None) or "active"
                    note = "" if lifecycle == "active" else str(lifecycle)
                    prompt = getattr(model, "max_input_tokens", None)
                    found.append(ServedModel(str(model.id), prompt=prompt or None, note=note))
            except (anthropic.NotFoundError, AttributeError):  # AttributeError: an answer of another form
                return None
        return found


# Claude through the Message Batches API: half the price, an answer within a day, under a durable id.
#
# Limits of the API: 100,000 requests or 256 MB in one batch, results kept for 29 days. The custom id of an
# entry is the key of its request, so that answers find their requests on any machine.


API_MAX_REQUESTS = 100_000
_BATCH_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PAGE = 100


class AnthropicBatches(_Account):
    """One account's batches; text only, since a batch carries no frames.

    `timeout_s` is the deadline of handing a batch over.
    """

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand one batch over, one try; returns its id.

        Raises:
            NotAcceptedError: the server certainly did not take it (status 429, no connection made).
            TransientError: the server may or may not have taken it.
            RefusedError: the batch as such is refused, here or there: too large, media, twice the same key.
            AuthError: no request can succeed.
        """
        entries = self._entries(requests)
        try:
            async with self._errors(self._spec.timeout_s):
                batch: Any = await self.client.messages.batches.create(requests=entries)
        except TransientError as error:
            if _never_arrived(error.__context__):
                raise NotAcceptedError(
                    error.message, retry_after_s=error.retry_after_s, rate_limited=error.rate_limited
                ) from None
            raise
        return _info(batch).batch_id

    def _entries(self, requests: Sequence[Request]) -> list[Any]:
        if not 1 <= len(requests) <= API_MAX_REQUESTS:
            raise RefusedError(f"{len(requests)} requests in a batch: 1 to {API_MAX_REQUESTS} are allowed")
        if len({r.key for r in requests}) != len(requests):
            raise RefusedError("a batch holds the same request twice")
        if any(r.media is not None for r in requests):
            raise RefusedError("batches carry text only: use `batch: false` for a step that looks at media")
        cache = self._spec.cache_prompt
        return [{"custom_id": r.key, "params": message_params(r, cache_prompt=cache)} for r in requests]

    @asynccontextmanager
    async def _about(self, batch_id: str) -> AsyncIterator[None]:
        """As `_errors`, and BatchGoneError where the server does not know the batch."""
        import anthropic

        try:
            async with self._errors(self._spec.timeout_s):
                yield
        except AuthError as error:
            if isinstance(error.__context__, anthropic.NotFoundError):
                why = "deleted, or made with another account or workspace"
                raise BatchGoneError(f"batch {batch_id} is not on the server: {why}") from None
            raise

    async def poll(self, batch_id: str) -> BatchInfo:
        """State and size of a batch.

        Raises:
            BatchGoneError: the server has no such batch, or no longer its results.
            TransientError, AuthError: see `errors`.
        """
        checked = _checked(batch_id)
        async with self._about(checked):
            batch: Any = await self.client.messages.batches.retrieve(checked)
        if getattr(batch, "archived_at", None) is not None:
            raise BatchGoneError(f"batch {checked}: the server has archived it, its results are gone")
        return _info(batch)

    async def listing(self, *, created_after_s: float) -> list[BatchInfo]:
        """The batches of this account (of the key's workspace) made since then, newest first.

        Raises:
            TransientError, AuthError: see `errors`.
        """
        found: list[BatchInfo] = []
        async with self._errors(None):
            # The server lists the newest first, so that everything behind the first older one is older too.
            async for batch in self.client.messages.batches.list(limit=_PAGE):
                info = _info(batch)
                if info.created_at_s < created_after_s:
                    break
                found.append(info)
        return found

    async def collect(self, batch_id: str) -> AsyncIterator[BatchResult]:
        """The answers of an ended batch as they stream in, in any order, one at a time in memory.

        Raises:
            TransientError: it has not ended, or the stream broke: collect it again.
            ShortResultsError: the results ended and some requests have none; told when all others were given.
            BatchGoneError, AuthError: as for `poll`.
        """
        info = await self.poll(batch_id)
        if info.state != "ended":
            raise TransientError(f"batch {batch_id} has not ended yet")
        seen = set[str]()
        async with self._about(batch_id):
            response = await self._open_results(batch_id)
        try:
            async with aclosing(_lines(response.aiter_bytes())) as lines:
                while True:
                    async with self._errors(self._spec.timeout_s):
                        line = await anext(lines, None)
                    if line is None:
                        break
                    result = _result(line)
                    if result is not None:
                        seen.add(result.key)
                        yield result
        finally:
            await response.aclose()
        if len(seen) < info.total:
            raise ShortResultsError(
                f"batch {batch_id}: the results ended after {len(seen)} of {info.total}", maybe_billed=True
            )

    async def _open_results(self, batch_id: str) -> httpx2.Response:
        """Ask for the results at the address of this server.

        The client's own `results` follows the address in the server's answer; behind a gateway that is
        another host, which the gateway's key must not reach. And it gives up at the first line that is no
        JSON, although the lines behind it were paid for.
        """
        import httpx2

        return await self.client.get(
            f"/v1/messages/batches/{batch_id}/results",
            cast_to=httpx2.Response,
            options={"headers": {"Accept": "application/binary"}},
            stream=True,
            stream_cls=None,
        )


def _never_arrived(cause: BaseException | None) -> bool:
    """Whether a failed call proves that the server took nothing: it said "too many", or was never reached."""
    import anthropic
    import httpx2

    if isinstance(cause, anthropic.RateLimitError):
        return True
    deeper = cause.__cause__ if isinstance(cause, anthropic.APIConnectionError) else None
    return isinstance(deeper, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _checked(batch_id: str) -> str:
    """A batch id becomes part of an address; it comes from a journal or a server, so it is not trusted."""
    if not isinstance(batch_id, str) or not _BATCH_ID.fullmatch(batch_id):
        raise RefusedError(f"{str(batch_id)[:80]!r} is no batch id")
    return batch_id


def _info(batch: Any) -> BatchInfo:
    counts = getattr(batch, "request_counts", None)
    created = getattr(batch, "created_at", None)
    identity = getattr(batch, "id", None)
    if counts is None or not isinstance(created, datetime) or not isinstance(identity, str):
        raise TransientError(f"the answer describes no batch: {str(batch)[:200]}")
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    return BatchInfo(
        batch_id=_checked(identity),
        state="ended" if getattr(batch, "processing_status", None) == "ended" else "in_progress",
        total=sum(int(getattr(counts, name, None) or 0) for name in names),
        created_at_s=created.timestamp(),
    )


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Lines of a stream, the last one whether or not it was ended."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        for line in whole:
            yield line
    yield rest


def _result(line: bytes) -> BatchResult | None:
    """One line of the results; None if it is none, say one that was cut in the middle."""
    from anthropic.types.messages import MessageBatchIndividualResponse

    try:
        parsed: Any = MessageBatchIndividualResponse.construct(**json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    key, result = getattr(parsed, "custom_id", None), getattr(parsed, "result", None)
    kind = getattr(result, "type", None)
    if not isinstance(key, str) or not isinstance(kind, str):
        return None
    if kind == "succeeded":
        try:
            return BatchResult(key, to_completion(getattr(result, "message", None), batched=True), None)
        except TransientError as error:
            return BatchResult(key, None, error)
    if kind == "errored":
        response = getattr(result, "error", None)
        return BatchResult(key, None, result_error(getattr(response, "error", None)))
    # expired or canceled: nothing was run and nothing is charged
    return BatchResult(key, None, TransientError(f"the batch entry is {kind[:40]}"))
