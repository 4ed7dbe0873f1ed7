"""The batch APIs of OpenAI, Anthropic and Google: half the price, an answer within a day, under a durable id.

Entries go out as JSON lines in a file, or in the call itself, and come back as JSON lines in any order; each
carries the key of its request, so that answers find their requests on any machine. OpenAI and Google keep a
name that a batch is given: the digest of its keys, by which one whose submission was cut off is known again
while it runs (`batch_log.Settler`).
"""

from __future__ import annotations

import asyncio
import io
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import aiohttp
import orjson
from yarl import URL

from videop2r_data.backends.answers import scrubbed, text_at
from videop2r_data.backends.anthropic.client import AnthropicBackend
from videop2r_data.backends.anthropic.wire import result_error
from videop2r_data.backends.batch_log import (
    BatchGoneError,
    NotAcceptedError,
    NotRunError,
    ShortResultsError,
    label_of,
)
from videop2r_data.backends.gemini.client import GeminiBackend
from videop2r_data.backends.http import MAX_ANSWER_BYTES, HttpBackend, decode, payload, read_key
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.errors import AuthError, BackendError, RefusedError, TransientError
from videop2r_data.schemas import BackendSpec, BatchInfo, BatchResult, Completion, Request

_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_NAME = re.compile(r"((files|batches)/)?[A-Za-z0-9_-]{1,128}")


def checked(name: object) -> str:
    """The id of a batch or a file as part of an address: it comes from a journal or a server.

    Raises:
        RefusedError: it is no such id.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RefusedError(f"{str(name)[:80]!r} is no batch id")
    return name


class Told(NamedTuple):
    """What a server says of a batch.

    Attributes:
        info: id, state, size, age and name.
        files: addresses of its results.
        lines: requests that must have a line in them.
        rest: why the others were not run; None: every request must have a line.
    """

    info: BatchInfo
    files: Sequence[URL] = ()
    lines: int = 0
    rest: NotRunError | None = None


class HttpBatches(HttpBackend):
    """The batches of one account. `timeout_s` is the deadline of each call, so of handing a batch over.

    Raises:
        ConfigError: as single calls of the same kind, or no key in the environment: before anything is noted.
    """

    keep_alive = False  # no id tells the answer to an upload from that to the one before
    folder: ClassVar[str] = "/batches"
    """Of the batches, below the root of the API."""
    key_field: ClassVar[str] = "custom_id"
    """Of a line, with the key of its request."""
    limit: ClassVar[str] = "limit"
    after: ClassVar[str] = "after"
    """Parameters of a listing: batches on a page, and where it begins."""

    def __init__(self, spec: BackendSpec, path: str, public: str = "", usual_key: str = "") -> None:
        super().__init__(spec, path, public, usual_key)
        self._key = read_key(spec, usual_key)

    def _hint(self, status: int) -> str:
        if status in (404, 405):
            return "this server may have no batch API: set batch: false, or name a base_url that has one"
        return super()._hint(status)

    # what a provider says

    @abstractmethod
    def _entry(self, key: str, body: bytes) -> dict[str, Any]:
        """One request of a batch; `body` is that of a single call."""

    @abstractmethod
    async def _prepare(self, entries: Sequence[bytes], label: str) -> tuple[URL, bytes]:
        """Address and body of the call that makes the batch; what fails before it was not accepted."""

    def _page(self, told: dict[str, Any]) -> Any:
        """The batches of a page of the listing, about the newest first."""
        return told.get("data")

    @abstractmethod
    def _told(self, batch: dict[str, Any]) -> Told:
        """What an object says of its batch; it may raise what a wrong form raises in Python."""

    @abstractmethod
    def _answer(self, line: dict[str, Any]) -> Completion:
        """The answer in one line of the results, or its error, raised."""

    # the life of a batch

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand one batch over, one try; returns its id.

        Raises:
            NotAcceptedError: the server certainly did not take it.
            TransientError: the server may or may not have taken it.
            RefusedError: the batch as such is refused: too large, twice the same key.
            AuthError: no request can succeed.
        """
        entries = [orjson.dumps(self._entry(one.key, self._body(one, one.frames))) for one in requests]
        try:
            url, body = await self._prepare(entries, label_of(one.key for one in requests))
        except TransientError as error:
            raise _not_accepted(error) from None
        try:
            made = await self._json("POST", url, paid=True, data=payload(body))
        except TransientError as error:
            # nobody was there, or it said "too many"
            if error.away or error.message.startswith("status 429"):
                raise _not_accepted(error) from None
            raise
        return self._read(made).info.batch_id

    def _read(self, batch: dict[str, Any]) -> Told:
        try:
            told = self._told(batch)
            checked(told.info.batch_id)
        except (KeyError, TypeError, ValueError, AttributeError, RefusedError):
            raise TransientError(f"the answer describes no batch: {str(batch)[:200]}") from None
        return told

    async def _look(self, batch_id: str) -> Told:
        url = self._at(f"{self.folder}/{checked(batch_id).removeprefix('batches/')}")
        try:
            return self._read(await self._json("GET", url))
        except AuthError as error:
            if error.message.startswith("status 404"):
                why = "deleted, or made with another account, project or workspace"
                raise BatchGoneError(f"batch {batch_id} is not on the server: {why}") from None
            raise

    async def poll(self, batch_id: str) -> BatchInfo:
        """State and size of a batch.

        Raises:
            BatchGoneError: the server has no such batch.
            TransientError, AuthError: see `errors`.
        """
        return (await self._look(batch_id)).info

    async def listing(self, *, created_after_s: float) -> list[BatchInfo]:
        """The batches of this account made since then.

        Raises:
            TransientError, AuthError: see `errors`.
        """
        found: dict[str, BatchInfo] = {}
        query: dict[str, Any] = {self.limit: 100}
        while True:
            told = await self._json("GET", self._at(self.folder).update_query(query))
            page = self._page(told)
            if not isinstance(page, list):
                raise TransientError("the answer lists no batches")
            infos = [self._read(one).info for one in page]
            new = {info.batch_id: info for info in infos if info.created_at_s >= created_after_s}
            found |= new
            after = told.get("nextPageToken") or (infos and told.get("has_more") and infos[-1].batch_id)
            # Google does not say in which order it lists; a server that knows no pages repeats its first one
            rises = bool(infos) and infos[0].created_at_s < infos[-1].created_at_s < created_after_s
            if not after or after == query.get(self.after) or not (new or rises):
                return list(found.values())
            query[self.after] = after

    async def collect(self, batch_id: str) -> AsyncGenerator[BatchResult, None]:
        """The answers of an ended batch as they stream in, in any order, one at a time in memory.

        Raises:
            TransientError: it has not ended, or the stream broke: collect it again.
            ShortResultsError: the results ended and some requests have none; told when all others were given.
            NotRunError: the same, where the server says that it ran no more.
            BatchGoneError, AuthError: as for `poll`.
        """
        told = await self._look(batch_id)
        if told.info.state != "ended":
            raise TransientError(f"batch {batch_id} has not ended yet")
        if told.lines and not told.files:
            raise BatchGoneError(f"batch {batch_id}: its results are no longer on the server")
        seen = set[str]()
        for file in told.files:
            async with aclosing(self._lines(file, batch_id)) as lines:
                async for line in lines:
                    result = self._result(line)
                    if result is not None:
                        seen.add(result.key)
                        yield result
        if len(seen) < told.lines:
            short = f"batch {batch_id}: the results ended after {len(seen)} of {told.lines}"
            raise ShortResultsError(short, maybe_billed=True)
        if told.rest is not None:
            raise told.rest

    async def _lines(self, url: URL, batch_id: str) -> AsyncGenerator[bytes, None]:
        """Lines of a file of results, the last one whether or not it was ended."""
        await self.start()
        assert self._session is not None
        deadline_s, rest = self._spec.timeout_s, b""
        with self._errors(deadline_s, paid=True):
            async with asyncio.timeout(deadline_s):
                response = await self._session.get(url, proxy=self._proxy, allow_redirects=False)
        try:
            chunks = response.content.iter_any()
            while True:
                with self._errors(deadline_s, paid=True):
                    async with asyncio.timeout(deadline_s):
                        chunk = await anext(chunks, b"")
                if response.status == 404:
                    raise BatchGoneError(f"batch {batch_id}: its results are no longer on the server")
                if response.status != 200:
                    raise self._failure(response.status, chunk, response.headers)
                if not chunk:
                    break
                *whole, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
                if len(rest) > MAX_ANSWER_BYTES:
                    said = f"batch {batch_id}: a line of its results passes {MAX_ANSWER_BYTES} bytes"
                    raise TransientError(said, maybe_billed=True)
                for line in whole:
                    yield line
            yield rest
        finally:
            response.close()

    def _result(self, line: bytes) -> BatchResult | None:
        """One line of the results; None if it is none, say one that was cut in the middle."""
        data = decode(scrubbed(line, self._key))
        key = data.get(self.key_field) if isinstance(data, dict) else None
        if not isinstance(key, str):
            return None
        try:
            answer = self._answer(data)
        except (KeyError, TypeError, AttributeError):
            return None
        except AuthError as error:  # a fault of the account must not be held against the row for ever
            return BatchResult(key, None, TransientError(error.message))
        except BackendError as error:
            return BatchResult(key, None, error)
        return BatchResult(key, answer.model_copy(update={"batched": True}), None)


def _not_accepted(error: TransientError) -> NotAcceptedError:
    return NotAcceptedError(error.message, retry_after_s=error.retry_after_s, rate_limited=error.rate_limited)


def _count(counts: object, *names: str) -> int:
    """The sum of some counts of a batch; 64-bit numbers come as text."""
    found = counts if isinstance(counts, dict) else {}
    return sum(int(found.get(name) or 0) for name in names)


class OpenAIBatches(OpenAIBackend, HttpBatches):
    """OpenAI: 50,000 requests or 200 MB in a file, which is kept for 30 days. Or a server with its API."""

    def _entry(self, key: str, body: bytes) -> dict[str, Any]:
        call = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions"}
        return {**call, "body": orjson.Fragment(body)}

    async def _prepare(self, entries: Sequence[bytes], label: str) -> tuple[URL, bytes]:
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", io.BytesIO(b"\n".join(entries)), filename=f"{label[:16]}.jsonl")
        parts = form()  # its own content type, with the boundary, in place of the session's
        headers = {"Content-Type": parts.headers["Content-Type"]}
        file = await self._json("POST", self._at("/files"), data=parts, headers=headers)
        body = {
            "input_file_id": file.get("id"),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"videop2r_keys": label},
        }
        return self._at(self.folder), orjson.dumps(body)

    def _told(self, batch: dict[str, Any]) -> Told:
        status, counts = batch["status"], batch.get("request_counts")
        ended = status in ("completed", "failed", "expired", "cancelled")
        info = BatchInfo(
            batch_id=batch["id"],
            state="ended" if ended else "in_progress",
            total=_count(counts, "total"),
            created_at_s=float(batch["created_at"]),
            label=text_at(batch, "metadata", "videop2r_keys"),
        )
        # the id of a file that there is not is null, or empty
        ids = [batch[name] for name in ("output_file_id", "error_file_id") if batch.get(name)]
        files = [self._at(f"/files/{checked(file)}/content") for file in ids]
        if status == "completed":
            return Told(info, files, info.total)
        first = ((batch.get("errors") or {}).get("data") or [{}])[0]
        code, said = text_at(first, "code"), self._clean(text_at(first, "message"))[:300]
        why = f"batch {info.batch_id} {status}: {code} {said}".rstrip(": ")
        rest = NotRunError(why, rate_limited=code == "token_limit_exceeded")
        return Told(info, files, _count(counts, "completed", "failed"), rest)

    def _answer(self, line: dict[str, Any]) -> Completion:
        status = (line.get("response") or {}).get("status_code")
        if type(status) is not int:  # expired or cancelled: it was not run, and nothing is charged
            code, said = text_at(line, "error", "code"), text_at(line, "error", "message")
            raise TransientError(self._clean(f"{code or 'no response'}: {said[:300]}"))
        body = orjson.dumps(line["response"].get("body"))
        if status != 200:
            raise self._failure(status, body, {})
        return self._parse(body, self.model)


class AnthropicBatches(AnthropicBackend, HttpBatches):
    """Claude: 100,000 requests or 256 MB in a batch, which has no name; results are kept for 29 days."""

    folder = "/v1/messages/batches"
    after = "after_id"

    def _entry(self, key: str, body: bytes) -> dict[str, Any]:
        return {"custom_id": key, "params": orjson.Fragment(body)}

    async def _prepare(self, entries: Sequence[bytes], label: str) -> tuple[URL, bytes]:
        return self._at(self.folder), b'{"requests":[' + b",".join(entries) + b"]}"

    def _told(self, batch: dict[str, Any]) -> Told:
        names = ("processing", "succeeded", "errored", "canceled", "expired")
        ended = batch["processing_status"] == "ended"
        info = BatchInfo(
            batch_id=batch["id"],
            state="ended" if ended else "in_progress",
            total=_count(batch["request_counts"], *names),
            created_at_s=datetime.fromisoformat(batch["created_at"]).timestamp(),
        )
        # at this server's address: the one in the answer may be another host, which the key must not reach
        results = self._at(f"{self.folder}/{checked(info.batch_id)}/results")
        return Told(info, () if batch.get("archived_at") else (results,), info.total)

    def _answer(self, line: dict[str, Any]) -> Completion:
        result = line["result"]
        if (kind := text_at(result, "type")) == "errored":
            raise result_error(result["error"].get("error"))
        if kind != "succeeded":  # expired or canceled: nothing was run and nothing is charged
            raise TransientError(f"the batch entry is {kind[:40]}")
        return self._parse(orjson.dumps(result.get("message")), self.model)


class GeminiBatches(GeminiBackend, HttpBatches):
    """Gemini: 2 GB in a file, 100 batches at once; a batch expires after 48 hours."""

    key_field, limit, after = "key", "pageSize", "pageToken"

    def _entry(self, key: str, body: bytes) -> dict[str, Any]:
        return {"key": key, "request": orjson.Fragment(body)}

    async def _prepare(self, entries: Sequence[bytes], label: str) -> tuple[URL, bytes]:
        file = await self._upload(b"\n".join(entries), "application/jsonl", f"videop2r-{label}")
        batch = {"displayName": f"videop2r-{label}", "inputConfig": {"fileName": file["name"]}}
        url = self._url.with_path(self._url.path.replace(":generateContent", ":batchGenerateContent"))
        return url, orjson.dumps({"batch": batch})

    def _page(self, told: dict[str, Any]) -> Any:
        return told.get("operations", [])

    def _told(self, batch: dict[str, Any]) -> Told:
        about = batch["metadata"]
        state, stats, name = about["state"], about.get("batchStats"), text_at(about, "displayName")
        info = BatchInfo(
            batch_id=batch["name"],
            state="ended" if state.endswith(_ENDED) else "in_progress",
            total=_count(stats, "requestCount"),
            created_at_s=datetime.fromisoformat(about["createTime"]).timestamp(),
            label=name.removeprefix("videop2r-") if name.startswith("videop2r-") else "",
        )
        file = text_at(about.get("output") or batch.get("response"), "responsesFile")
        files = [self._at(f"/{checked(file)}:download").update_query(alt="media")] if file else []
        if state.endswith("SUCCEEDED"):
            return Told(info, files, info.total)
        error = batch.get("error") or {}
        done = _count(stats, "successfulRequestCount")
        # what was answered is charged, whether or not there is a file with the answers
        rest = NotRunError(
            f"{info.batch_id}: {state} {self._clean(text_at(error, 'message'))[:300]}".rstrip(),
            rate_limited=error.get("code") == 8,
            maybe_billed=done > 0 and not files,
        )
        return Told(info, files, done + _count(stats, "failedRequestCount") if files else 0, rest)

    def _answer(self, line: dict[str, Any]) -> Completion:
        error = line.get("error")
        if isinstance(error, dict):  # `google.rpc.Status`; only a fault of the request itself is for good
            code = error.get("code")
            said = f"code {code}: {self._clean(text_at(error, 'message'))[:300]}"
            raise RefusedError(said) if code == 3 else TransientError(said, rate_limited=code == 8)
        return self._parse(orjson.dumps(line.get("response")), self.model)
