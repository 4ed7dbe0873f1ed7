"""A chat completions server on loopback: the one seam where tests replace a model.

It is a real HTTP/1.1 server on a raw asyncio protocol, so that the real client, its pool, its timeouts and
its retries are what is tested. In a test:

    async with FakeServer(latency=0.01, script=[Reply(status=429, headers={"retry-after": "1"})]) as server:
        ... server.url ... server.stats()

In a process of its own, `python -m tests.fakes.openai_server --port 0 --latency 0.05` prints its base URL as
the first line. `GET /stats` counts, `POST /script` takes a list of replies, `POST /reset` clears.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import orjson

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    raw: bytes
    digest: str
    headers: bytes
    number: int

    @cached_property
    def body(self) -> dict[str, Any]:
        found = orjson.loads(self.raw)
        assert isinstance(found, dict)
        return found

    @property
    def prompt(self) -> str:
        """All text of the request."""
        texts = []
        for message in self.body["messages"]:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts += [part["text"] for part in parts if part["type"] == "text"]
        return "\n".join(texts)


@dataclass(frozen=True)
class Reply:
    """How to treat one request; the defaults answer it.

    `cut`: close the connection before a byte, after the headers, or in the middle of the body.
    `body`: replaces the answer; with `status` 200 any bytes, so also garbage or something huge.
    `slow_s`: the body is sent in two halves so many seconds apart.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    latency: float | None = None
    cut: Literal["", "start", "headers", "body"] = ""
    slow_s: float = 0.0

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reply:
        body = data.pop("body", None)
        return cls(**data, body=body.encode() if body is not None else None)


Answer = Callable[[Call], str]
Script = Callable[[Call], "Reply | None"]


def default_answer(call: Call) -> str:
    """A valid trace for a generate prompt, a verdict for a judge prompt; depends on the content only."""
    if b"<judgement>" in call.raw:
        verdict = "No" if call.digest[0] == "0" else "Yes"
        return f"The observation names what is needed ({call.digest[:8]}). <judgement>{verdict}</judgement>"
    mark = call.digest[:12]
    return (
        f"<observation>Based on the question, I need to notice shape {mark}.</observation> "
        f"<think>Based on the observations, shape {mark} settles it, so the answer is A.</think>"
        "<answer>A</answer>"
    )


class FakeServer:
    """The server; `async with` starts and stops it.

    Args:
        latency: seconds before each answer.
        answer: makes the text of an answer.
        script: replies for the first requests, or a function that may return one for any request.
        capacity: requests in flight above which 429 is answered; None: no limit.
        model: model id to report; None: the one asked for.
        key: bearer key to insist on.
        models: ids that it lists; None: `model`; empty: it keeps no list (404).
        max_model_len: context length that the list names, as vLLM does.
        names_calls: the id of an answer holds the `X-Request-Id` of its request, as vLLM's does.
    """

    def __init__(
        self,
        *,
        latency: float = 0.0,
        answer: Answer = default_answer,
        script: Iterable[Reply] | Script = (),
        capacity: int | None = None,
        model: str | None = None,
        key: str | None = None,
        port: int = 0,
        models: list[str] | None = None,
        max_model_len: int | None = None,
        names_calls: bool = False,
    ) -> None:
        self.latency = latency
        self.answer = answer
        self.capacity = capacity
        self.model = model
        self.key = key
        self.port = port
        self.models = models
        self.max_model_len = max_model_len
        self.names_calls = names_calls
        self.queue: deque[Reply] = deque()
        self.rule: Script | None = script if callable(script) else None
        if not callable(script):
            self.queue.extend(script)
        self.counts: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.tokens: Counter[str] = Counter()
        self.requests = self.in_flight = self.max_in_flight = 0
        self.connections: set[_Connection] = set()
        self.opened = 0
        self.first_at = self.last_at = 0.0
        self.last: Call | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Root of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FakeServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await self._server.wait_closed()

    def stats(self) -> dict[str, Any]:
        """Counts since the start or the last reset.

        `repeats`: requests whose content came before; `repeats_answered`: answers with status 200 to content
        that had one before, which is what a journal must prevent. `tokens`: what the answers say was used,
        by which a bill would be made.
        """
        return {
            "requests": self.requests,
            "distinct": len(self.counts),
            "repeats": self.requests - len(self.counts),
            "answered": sum(self.answered.values()),
            "repeats_answered": sum(self.answered.values()) - len(self.answered),
            "tokens": dict(self.tokens),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "connections_open": len(self.connections),
            "connections_opened": self.opened,
            "span_s": self.last_at - self.first_at,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
        }

    def reset(self) -> None:
        """Forget all counts and the script."""
        self.counts.clear()
        self.answered.clear()
        self.statuses.clear()
        self.tokens.clear()
        self.queue.clear()
        self.requests = self.max_in_flight = self.opened = 0
        self.first_at = self.last_at = 0.0

    def reply_to(self, call: Call) -> Reply:
        """What the script, the capacity and the key say about this request."""
        if self.queue:
            return self.queue.popleft()
        made = self.rule(call) if self.rule is not None else None
        if made is not None:
            return made
        if self.key is not None and f"bearer {self.key}".encode().lower() not in call.headers.lower():
            return Reply(status=401)
        if self.capacity is not None and self.in_flight > self.capacity:
            return Reply(status=429, headers={"retry-after-ms": "20"}, latency=0.0)
        return _PLAIN

    def completion(self, call: Call) -> bytes:
        """The body of a chat completion."""
        text = self.answer(call)
        usage = _usage(len(call.raw) // 4, len(text) // 4)
        self.tokens.update(usage)
        return orjson.dumps(
            {
                "id": "chatcmpl-" + (_named(call.headers) if self.names_calls else call.digest[:16]),
                "object": "chat.completion",
                "created": 0,
                "model": self.model or _model_of(call.raw),
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                ],
                "usage": usage,
            }
        )


_PLAIN = Reply()


def _named(head: bytes) -> str:
    """The id that a request brings."""
    names = (
        line for line in head.decode("latin-1").split("\r\n") if line.lower().startswith("x-request-id:")
    )
    return next(names).partition(":")[2].strip()


def _usage(prompt: int, completion: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _model_of(raw: bytes) -> str:
    """The model id, without decoding megabytes of pictures when it stands in front."""
    if raw.startswith(b'{"model":"'):
        end = raw.index(b'"', 10)
        if b"\\" not in raw[10:end]:
            return raw[10:end].decode()
    return str(orjson.loads(raw).get("model"))


class _Connection(asyncio.Protocol):
    """One client connection; pipelined requests are answered one after the other."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.need = -1
        self.head = b""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.connections.add(self)
        self.server.opened += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self.transport = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self._next()

    def _next(self) -> None:
        if self.need < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self.head = bytes(self.buffer[:end])
            del self.buffer[: end + 4]
            self.need = _content_length(self.head)
            if b"100-continue" in self.head and self.transport is not None:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self.buffer) < self.need:
            return
        raw = bytes(self.buffer[: self.need])
        del self.buffer[: self.need]
        self.need = -1
        self._handle(raw)

    def _handle(self, raw: bytes) -> None:
        method, path, _ = self.head.split(b" ", 2)
        server = self.server
        path = path.split(b"?")[0]
        if method == b"POST" and path.endswith(b"/chat/completions"):
            self._chat(raw)
        elif path.endswith(b"/stats"):
            self._send(200, orjson.dumps(server.stats()))
        elif path.endswith(b"/reset"):
            server.reset()
            self._send(200, b"{}")
        elif method == b"POST" and path.endswith(b"/script"):
            server.queue.extend(Reply.from_json(item) for item in json.loads(raw))
            self._send(200, b"{}")
        elif path.endswith(b"/models"):
            self._list()
        elif path == b"/health":
            self._send(200, b"")
        else:
            self._send(404, b'{"error":{"message":"no such path"}}')

    def _list(self) -> None:
        server = self.server
        names = [server.model or "fake"] if server.models is None else server.models
        if server.key is not None and f"bearer {server.key}".encode().lower() not in self.head.lower():
            self._send(401, b'{"error":{"message":"wrong key"}}')
        elif not names:
            self._send(404, b'{"error":{"message":"no such path"}}')
        else:
            more = {} if server.max_model_len is None else {"max_model_len": server.max_model_len}
            listed = [{"id": name, "object": "model", **more} for name in names]
            self._send(200, orjson.dumps({"object": "list", "data": listed}))

    def _chat(self, raw: bytes) -> None:
        server = self.server
        if server.requests == 0:
            server.first_at = server.last_at = time.perf_counter()
        server.requests += 1
        server.in_flight += 1
        server.max_in_flight = max(server.max_in_flight, server.in_flight)
        digest = hashlib.blake2b(raw, digest_size=16).hexdigest()
        server.counts[digest] += 1
        call = Call(raw, digest, self.head, server.requests)
        server.last = call
        reply = server.reply_to(call)
        self.busy = True
        latency = server.latency if reply.latency is None else reply.latency
        loop = asyncio.get_running_loop()
        if latency > 0:
            loop.call_later(latency, self._answer, call, reply)
        else:
            loop.call_soon(self._answer, call, reply)

    def _answer(self, call: Call, reply: Reply) -> None:
        server = self.server
        server.in_flight -= 1
        server.statuses[reply.status] += 1
        self.busy = False
        if self.transport is None or self.transport.is_closing() or reply.cut == "start":
            self.abort()  # who is cut off in this very turn of the loop is not counted as answered
            return
        if reply.body is not None:
            body = reply.body
        elif reply.status == 200:
            body = server.completion(call)
        else:
            body = orjson.dumps({"error": {"message": f"scripted {reply.status}", "code": None}})
        if reply.status == 200 and not reply.cut:
            server.answered[call.digest] += 1
        server.last_at = time.perf_counter()  # before it is sent: who asked measures from without
        self._send(reply.status, body, reply)
        if self.buffer:
            self._next()

    def _send(self, status: int, body: bytes, reply: Reply = _PLAIN) -> None:
        if self.transport is None:
            return
        last = _wants_close(self.head)
        lines = [
            f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
            *(["connection: close"] if last else []),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        if reply.cut == "headers":
            self.transport.write(head)
            self.transport.close()
        elif reply.cut == "body":
            self.transport.write(head + body[: len(body) // 2])
            self.transport.close()
        elif reply.slow_s > 0:
            self.transport.write(head + body[: len(body) // 2])
            asyncio.get_running_loop().call_later(reply.slow_s, self._rest, body[len(body) // 2 :], last)
        else:
            self._rest(head + body, last)

    def _rest(self, body: bytes, last: bool) -> None:
        if self.transport is None:
            return
        self.transport.write(body)
        if last:
            # A client that asked for it waits for the end of the connection, not for `content-length` bytes.
            self.buffer.clear()
            self.transport.close()


def _wants_close(head: bytes) -> bool:
    return b"\r\nconnection: close" in head.lower()


def _content_length(head: bytes) -> int:
    lower = head.lower()
    start = lower.find(b"\r\ncontent-length:")
    if start < 0:
        return 0
    end = lower.find(b"\r\n", start + 2)
    return int(lower[start + 17 : end if end > 0 else len(lower)])


def load_answer(name: str) -> Answer:
    """`package.module:function`."""
    module, _, function = name.partition(":")
    found = getattr(importlib.import_module(module), function)
    assert callable(found)
    return found  # type: ignore[no-any-return]


async def _serve(server: FakeServer) -> None:
    async with server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A chat completions server for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--answer", help="package.module:function that makes the text from a Call")
    parser.add_argument("--capacity", type=int, help="requests in flight above which 429 is answered")
    parser.add_argument("--model", help="model id to report")
    options = parser.parse_args(argv)
    server = FakeServer(
        port=options.port,
        latency=options.latency,
        answer=load_answer(options.answer) if options.answer else default_answer,
        capacity=options.capacity,
        model=options.model,
    )
    try:
        import uvloop

        uvloop.run(_serve(server))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
