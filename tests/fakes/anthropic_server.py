"""A server on loopback that speaks Messages and Message Batches to the real client, and fails on demand.

It is strict where the real one is (credentials, version header, ids, sizes, image blocks, sampling parameters
of newer models), counts what it was asked and what that would have cost, and simulates the prompt cache.

    async with FakeAnthropic() as server:
        server.fail("create", Cut(after=True))      # the next create is accepted, its answer is lost
        ...
        assert len(server.batches) == 1

`python -m tests.fakes.anthropic_server --port 8787` runs it by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import itertools
import json
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web

Route = Literal["models", "messages", "create", "retrieve", "list", "results", "cancel", "delete"]
Outcome = str
"""`succeeded`, `expired`, `canceled` or `errored:<error type>`."""

PRICES = {"input": 3.0, "output": 15.0, "cache_read": 0.3, "cache_write": 3.75}
"""US dollars per million tokens; a batch costs half."""


@dataclass(frozen=True)
class Status:
    """Answer with an error status, without doing anything."""

    code: int
    kind: str = "api_error"
    message: str = "scripted failure"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Close the connection: before the work, or after it and before the answer."""

    after: bool = False


@dataclass(frozen=True)
class CutStream:
    """End the results after `lines` lines; `clean`: as if that were all; `torn`: inside the next line."""

    lines: int
    clean: bool = False
    torn: bool = False


@dataclass(frozen=True)
class Slow:
    """Wait, then work as usual; or work, and let the answer wait."""

    seconds: float
    after: bool = False


@dataclass(frozen=True)
class Garbage:
    """Status 200 with a body that is no JSON of this protocol."""

    body: str = "<html>captive portal</html>"
    content_type: str = "text/html"


Fault = Status | Cut | CutStream | Slow | Garbage


@dataclass
class Batch:
    """One accepted batch."""

    batch_id: str
    created_s: float
    requests: list[dict[str, Any]]
    polls_left: int
    hidden_lists: int = 0
    canceled: bool = False
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By custom id, made once: a second download costs nothing."""

    @property
    def ended(self) -> bool:
        return self.canceled or self.polls_left <= 0


class ThirdsExpire:
    """Outcomes of a batch: every third request expires the first time, and succeeds when it is asked again."""

    def __init__(self) -> None:
        self.expired: set[str] = set()

    def __call__(self, key: str, index: int) -> Outcome:
        if index % 3 == 0 and key not in self.expired:
            self.expired.add(key)
            return "expired"
        return "succeeded"


def default_answer(params: dict[str, Any]) -> str:
    """Says what was asked last, so that a test can tell answers apart."""
    texts = [b["text"] for b in params["messages"][-1]["content"] if b["type"] == "text"]
    return f"you said: {texts[-1] if texts else ''}"


class ProtocolError(Exception):
    def __init__(self, message: str, status: int = 400, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class FakeAnthropic:
    """The server; every attribute may be changed while it runs.

    Attributes:
        answer: what the model says.
        polls: looks at a batch (retrieved or listed) before it is found ended.
        outcome: what becomes of a batched request, by custom id and its position.
        hidden_lists: how many listings a new batch is missing from (a listing that lags behind).
        reverse: results in reverse order.
        mangle: what becomes of the lines of the results on their way.
        skew_s: seconds that its clock is ahead.
        calls: requests by route, failed ones included.
        accepted_ids: how often each custom id was accepted, over all batches.
    """

    def __init__(
        self,
        *,
        answer: Callable[[dict[str, Any]], str] = default_answer,
        polls: int = 0,
        outcome: Callable[[str, int], Outcome] = lambda _key, _index: "succeeded",
        api_key: str | None = None,
    ) -> None:
        self.answer, self.polls, self.outcome, self.api_key = answer, polls, outcome, api_key
        self._ids = itertools.count(1)
        self.hidden_lists, self.reverse, self.skew_s, self.latency_s = 0, True, 0.0, 0.0
        self.stop_reason = "end_turn"
        self.mangle: Callable[[list[bytes]], list[bytes]] = lambda lines: lines
        self.models = ["claude-sonnet-4-5-20250929", "claude-3-7-sonnet-20250219"]
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.calls: Counter[str] = Counter()
        self.accepted_ids: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.batches: dict[str, Batch] = {}
        self.input_chars, self.cost_usd, self.in_flight, self.peak_in_flight = 0, 0.0, 0, 0
        self.cached_prompts: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.url = ""

    def fail(self, route: Route, *faults: Fault) -> None:
        """The next calls of this route fail so, one fault each; a `Slow` and its successor are one call."""
        self.faults[route].extend(faults)

    # ---- life

    async def start(self, port: int = 0) -> FakeAnthropic:
        app = web.Application(client_max_size=300 * 2**20)
        prefix = "/v1/messages"
        app.router.add_get("/v1/models", self._guard("models", self._models))
        app.router.add_post(prefix, self._guard("messages", self._message))
        app.router.add_post(f"{prefix}/batches", self._guard("create", self._create))
        app.router.add_get(f"{prefix}/batches", self._guard("list", self._list))
        app.router.add_get(f"{prefix}/batches/{{id}}", self._guard("retrieve", self._retrieve))
        app.router.add_get(f"{prefix}/batches/{{id}}/results", self._guard("results", self._results))
        app.router.add_post(f"{prefix}/batches/{{id}}/cancel", self._guard("cancel", self._cancel))
        app.router.add_delete(f"{prefix}/batches/{{id}}", self._guard("delete", self._delete))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> FakeAnthropic:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ---- the door: credentials, faults, errors

    def _guard(self, route: str, work: Callable[[web.Request], Any]) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.calls[route] += 1
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            try:
                return await self._faulty(route, work, request)
            except ProtocolError as error:
                return _error(error.status, error.kind, str(error))
            finally:
                self.in_flight -= 1

        return handler

    async def _faulty(
        self, route: str, work: Callable[[web.Request], Any], request: web.Request
    ) -> web.StreamResponse:
        self._check_headers(request)
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        fault = self._next_fault(route)
        if isinstance(fault, Slow) and fault.after:
            late: web.StreamResponse = await work(request)
            await asyncio.sleep(fault.seconds)
            return late
        if isinstance(fault, Slow):
            await request.read()
            await asyncio.sleep(fault.seconds)
            fault = self._next_fault(route)
        if isinstance(fault, Status):
            await request.read()
            return _error(fault.code, fault.kind, fault.message, fault.headers)
        if isinstance(fault, Garbage):
            return web.Response(text=fault.body, content_type=fault.content_type)
        if isinstance(fault, Cut):
            if fault.after:
                await work(request)
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(fault, CutStream):
            request["cut"] = fault
        answer: web.StreamResponse = await work(request)
        return answer

    def _next_fault(self, route: str) -> Fault | None:
        queue = self.faults[route]
        return queue.popleft() if queue else None

    def _check_headers(self, request: web.Request) -> None:
        self.headers.append(dict(request.headers))
        sent = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix(
            "Bearer "
        )
        if not sent or (self.api_key is not None and sent != self.api_key):
            raise ProtocolError(f"invalid x-api-key {sent}", 401, "authentication_error")
        if "anthropic-version" not in request.headers:
            raise ProtocolError("anthropic-version: header is required")

    # ---- models

    async def _models(self, request: web.Request) -> web.Response:
        listed = [
            {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": "2025-01-01T00:00:00Z",
                "max_input_tokens": 200_000,
                "lifecycle": "active",
            }
            for name in self.models
        ]
        answer = {"data": listed, "has_more": False, "first_id": self.models[0], "last_id": self.models[-1]}
        return web.json_response(answer)

    # ---- messages

    async def _message(self, request: web.Request) -> web.Response:
        params = await _json(request)
        self.bodies.append(params)
        message = self._run(params, share=1.0)
        return web.json_response(message, headers={"request-id": f"req_{self.calls['messages']}"})

    def _run(self, params: dict[str, Any], *, share: float) -> dict[str, Any]:
        check_params(params)
        text = self.answer(params)
        usage = self._usage(params, text)
        tokens = {
            "input": usage["input_tokens"],
            "output": usage["output_tokens"],
            "cache_read": usage["cache_read_input_tokens"],
            "cache_write": usage["cache_creation_input_tokens"],
        }
        self.cost_usd += share * sum(PRICES[name] * count for name, count in tokens.items()) / 1e6
        return {
            "id": f"msg_{next(self._ids):024d}",
            "type": "message",
            "role": "assistant",
            "model": params["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }

    def _usage(self, params: dict[str, Any], text: str) -> dict[str, int]:
        chars = sum(_chars(b) for m in params["messages"] for b in m["content"])
        system, marked = params.get("system", []), False
        if isinstance(system, str):
            system = [{"type": "text", "text": system}]
        prompt = "".join(b["text"] for b in system)
        marked = any("cache_control" in b for b in system)
        self.input_chars += chars + len(prompt)
        prompt_tokens, read, write = len(prompt) // 4, 0, 0
        if marked:
            if prompt in self.cached_prompts:
                read, prompt_tokens = prompt_tokens, 0
            else:
                self.cached_prompts.add(prompt)
                write, prompt_tokens = prompt_tokens, 0
        return {
            "input_tokens": chars // 4 + prompt_tokens,
            "output_tokens": max(1, len(text) // 4),
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": write,
        }

    # ---- batches

    async def _create(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > 256 * 2**20:
            raise ProtocolError("batch too large", 413, "request_too_large")
        body = await _json(request)
        requests = body.get("requests")
        if not isinstance(requests, list) or not 1 <= len(requests) <= 100_000:
            raise ProtocolError("requests: 1 to 100000 entries")
        ids = [r.get("custom_id", "") for r in requests]
        if len(set(ids)) != len(ids):
            raise ProtocolError("requests: custom_id must be unique")
        if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", i) for i in ids):
            raise ProtocolError("requests: custom_id must match ^[a-zA-Z0-9_-]{1,64}$")
        batch = Batch(
            batch_id=f"msgbatch_{len(self.batches) + 1:04d}",
            created_s=time.time() + self.skew_s,
            requests=requests,
            polls_left=self.polls,
            hidden_lists=self.hidden_lists,
            outcomes={key: self.outcome(key, index) for index, key in enumerate(ids)},
        )
        self.batches[batch.batch_id] = batch
        self.accepted_ids.update(ids)
        return web.json_response(self._describe(batch))

    def _describe(self, batch: Batch) -> dict[str, Any]:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if batch.ended:
            counts.update(Counter(o.partition(":")[0] for o in batch.outcomes.values()))
        else:
            counts["processing"] = len(batch.requests)
        results = f"{self.url}/v1/messages/batches/{batch.batch_id}/results"
        return {
            "id": batch.batch_id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "request_counts": counts,
            "created_at": _stamp(batch.created_s),
            "expires_at": _stamp(batch.created_s + 86400),
            "ended_at": _stamp(batch.created_s + 1) if batch.ended else None,
            "results_url": results if batch.ended else None,
        }

    def _find(self, request: web.Request) -> Batch:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            raise ProtocolError("batch not found", 404, "not_found_error")
        return batch

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        answer = self._describe(batch)
        batch.polls_left -= 1
        return web.json_response(answer)

    async def _list(self, request: web.Request) -> web.Response:
        limit, after = int(request.query.get("limit", "20")), request.query.get("after_id")
        newest = sorted(self.batches.values(), key=lambda b: (b.created_s, b.batch_id), reverse=True)
        for batch in newest:
            batch.hidden_lists -= 1
            batch.polls_left -= 1
        shown = [b for b in newest if b.hidden_lists < 0]
        if after is not None:
            ids = [b.batch_id for b in shown]
            shown = shown[ids.index(after) + 1 :] if after in ids else []
        page = shown[:limit]
        return web.json_response(
            {
                "data": [self._describe(b) for b in page],
                "has_more": len(shown) > limit,
                "first_id": page[0].batch_id if page else None,
                "last_id": page[-1].batch_id if page else None,
            }
        )

    async def _results(self, request: web.Request) -> web.StreamResponse:
        batch = self._find(request)
        if not batch.ended:
            raise ProtocolError("batch has not ended", 404, "not_found_error")
        order = reversed(batch.requests) if self.reverse else batch.requests
        lines = []
        for entry in order:
            key = entry["custom_id"]
            if key not in batch.results:
                batch.results[key] = self._result(batch, entry)
            lines.append(json.dumps(batch.results[key]).encode() + b"\n")
        return await stream_lines(request, self.mangle(lines), "application/x-jsonl")

    def _result(self, batch: Batch, entry: dict[str, Any]) -> dict[str, Any]:
        outcome, _, kind = batch.outcomes[entry["custom_id"]].partition(":")
        result: dict[str, Any] = {"type": outcome}
        if outcome == "succeeded":
            try:
                result["message"] = self._run(entry["params"], share=0.5)
            except ProtocolError as error:
                outcome, kind = "errored", error.kind
        if outcome == "errored":
            error_object = {"type": kind or "api_error", "message": "scripted error"}
            result = {"type": "errored", "error": {"type": "error", "error": error_object}}
        return {"custom_id": entry["custom_id"], "result": result}

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        if not batch.ended:
            batch.canceled = True
            batch.outcomes = dict.fromkeys(batch.outcomes, "canceled")
        return web.json_response(self._describe(batch))

    async def _delete(self, request: web.Request) -> web.Response:
        batch = self._find(request)
        del self.batches[batch.batch_id]
        return web.json_response({"id": batch.batch_id, "type": "message_batch_deleted"})


def check_params(params: dict[str, Any]) -> None:
    """What the real server refuses about a message, as far as this package could get it wrong."""
    if not isinstance(params.get("max_tokens"), int) or params["max_tokens"] < 1:
        raise ProtocolError("max_tokens: field required")
    model, messages = params.get("model"), params.get("messages")
    if not isinstance(model, str) or not model:
        raise ProtocolError("model: field required")
    if model.startswith("no-such"):
        raise ProtocolError(f"model: {model}", 404, "not_found_error")
    if not isinstance(messages, list) or not messages or messages[0].get("role") != "user":
        raise ProtocolError("messages: first message must use the user role")
    _check_sampling(model, params)
    for message in messages:
        for block in message["content"]:
            _check_block(block)


def _check_sampling(model: str, params: dict[str, Any]) -> None:
    unknown = set(params) - {"model", "max_tokens", "messages", "system", "temperature", "top_p", "stream"}
    if unknown:
        raise ProtocolError(f"{sorted(unknown)[0]}: Extra inputs are not permitted")
    sent = {name for name in ("temperature", "top_p") if name in params}
    if sent and re.search(r"opus-4-[78]|^claude-[a-z]+-5\b", model):
        raise ProtocolError(f"`{sorted(sent)[0]}` is deprecated for this model.")
    if len(sent) == 2 and re.search(r"4-[1-6]\b", model):
        raise ProtocolError("`temperature` and `top_p` cannot both be specified for this model.")
    if not 0 <= params.get("temperature", 1.0) <= 1:
        raise ProtocolError("temperature: range 0..1")


def _check_block(block: dict[str, Any]) -> None:
    if block["type"] == "text" and not block["text"]:
        raise ProtocolError("messages: text content blocks must be non-empty")
    if block["type"] == "image":
        source = block["source"]
        try:
            data = base64.b64decode(source["data"], validate=True)
        except binascii.Error:
            raise ProtocolError("image: invalid base64") from None
        magic = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89PNG"}[source["media_type"]]
        if not data.startswith(magic):
            raise ProtocolError("image: data does not match media type")


def _chars(block: dict[str, Any]) -> int:
    return len(block["text"]) if block["type"] == "text" else 4 * 1600


async def stream_lines(request: web.Request, lines: Iterable[bytes], content_type: str) -> web.StreamResponse:
    """Send results line by line, up to where the fault `CutStream` of this request ends them."""
    cut: CutStream | None = request.get("cut")
    response = web.StreamResponse(headers={"content-type": content_type})
    await response.prepare(request)
    for number, line in enumerate(lines):
        if cut is not None and number >= cut.lines:
            if cut.torn:
                await response.write(line[: len(line) // 2])
            if not cut.clean:
                await asyncio.sleep(0.01)
                assert request.transport is not None
                request.transport.close()
            return response
        await response.write(line)
    return response


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise ProtocolError("body is no JSON") from None
    if not isinstance(body, dict):
        raise ProtocolError("body is no object")
    return body


def _error(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(body, status=status, headers=headers)


async def _serve(port: int) -> None:
    server = await FakeAnthropic().start(port)
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(_serve(parser.parse_args().port))
