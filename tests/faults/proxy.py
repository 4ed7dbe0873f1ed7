"""A proxy between the client of a build and its server that does to some exchanges what bad networks do.

It is a real HTTP/1.1 server on loopback. Each request goes on to the real (fake) server over a connection of its own,
so that what the server did and what the client got can differ. Which request meets which fault is drawn from a seed
and the request's content alone: the order in which requests come changes nothing, and a fault that was met is not
met again when the same request is sent once more (`times` says how often).

    async with FakeServer() as server, Proxy(server.port, Plan(seed=1, faults=("cut_body", "repeat"))) as proxy:
        ... proxy.url ... proxy.met ... proxy.given
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

HTML = b"<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad Gateway</h1>nginx</body></html>"
_EXPECTS = re.compile(rb"expect: *100-continue\r\n", re.IGNORECASE)
HELD_OPEN_S = 60.0
"""Longer than any client in the tests waits."""


@dataclass(frozen=True)
class Plan:
    """Which requests meet which faults.

    Attributes:
        faults: names of `FAULTS`; none: the proxy hands everything on as it is.
        share: part of the requests (by content) that meets one.
        times: how often in a row such a request meets it.
        after: requests that pass first.
    """

    seed: int = 0
    faults: tuple[str, ...] = ()
    share: float = 0.5
    times: int = 1
    after: int = 0

    def fault(self, digest: str, before: int, number: int) -> str:
        """The fault of a request; `before`: how often it was sent before; `number`: of all requests."""
        draw = random.Random(f"{self.seed}:{digest}")
        if not self.faults or number <= self.after or before >= self.times or draw.random() >= self.share:
            return ""
        return draw.choice(self.faults)


@dataclass
class Exchange:
    """One request on its way, and the connection that waits for its answer."""

    proxy: Proxy
    writer: asyncio.StreamWriter
    raw: bytes
    body: bytes
    digest: str

    async def ask(self) -> tuple[int, dict[str, str], bytes]:
        """Hand the request to the server: status, headers, body."""
        return await ask(self.proxy.upstream, self.raw)

    async def send(self, data: bytes) -> None:
        """Bytes to the client."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """End the connection behind what was sent."""
        self.writer.close()

    def reset(self) -> None:
        """End the connection with RST, as a box does that forgot about it."""
        end = self.writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def answer(
    status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None
) -> bytes:
    """Bytes of an answer; `length`: what its head says, if that is not the truth."""
    named = {"content-type": "application/json"} | (headers or {})
    named["content-length"] = str(len(body) if length is None else length)
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in named.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def ask(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """One exchange with the server behind the proxy, over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:-2])
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body
    finally:
        writer.close()


Fault = Callable[[Exchange], Awaitable[bool]]
"""Gives the answer, or what becomes of it; returns whether the client got the server's answer whole and unchanged."""
FAULTS: dict[str, Fault] = {}


def fault(does: Fault) -> Fault:
    """List a function under its name."""
    FAULTS[does.__name__] = does
    return does


async def _whole(exchange: Exchange, **headers: str) -> bool:
    status, named, body = await exchange.ask()
    if status != 200:
        named.pop("content-length", None)
        await exchange.send(answer(status, body, named))
        return False
    exchange.proxy.last[exchange.digest] = body
    await exchange.send(answer(200, body, {k.replace("_", "-"): v for k, v in headers.items()}))
    return not exchange.writer.is_closing()


@fault
async def delay(exchange: Exchange) -> bool:
    """The answer comes late."""
    await asyncio.sleep(0.3)
    return await _whole(exchange)


@fault
async def cut_before(exchange: Exchange) -> bool:
    """The connection ends before the server heard of the request."""
    exchange.close()
    return False


@fault
async def cut_unanswered(exchange: Exchange) -> bool:
    """The server has answered, and the connection ends before the first byte of it."""
    await exchange.ask()
    exchange.reset()
    return False


@fault
async def cut_request(exchange: Exchange) -> bool:
    """The connection ends within the request, of which the server has half.

    The server is done with its half before the client may ask again: moto keeps half an object, which no real
    store does, and must not put that over the whole one that comes next.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", exchange.proxy.upstream)
    writer.write(exchange.raw[: len(exchange.raw) // 2])
    writer.write_eof()
    with suppress(OSError, TimeoutError):
        await asyncio.wait_for(reader.read(), 30)
    writer.close()
    exchange.reset()
    return False


@fault
async def cut_head(exchange: Exchange) -> bool:
    """The connection ends within the headers."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body)[:40])
    exchange.close()
    return False


@fault
async def cut_body(exchange: Exchange) -> bool:
    """The connection ends within the body."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body[: len(body) // 2], length=len(body)))
    exchange.close()
    return False


@fault
async def reset_body(exchange: Exchange) -> bool:
    """The connection is reset within the body."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body[: len(body) // 2], length=len(body)))
    await asyncio.sleep(0.02)
    exchange.reset()
    return False


@fault
async def short_length(exchange: Exchange) -> bool:
    """The head promises half of the body that follows: the rest stands in front of the next answer."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body[: len(body) // 2]))
    await asyncio.sleep(0.02)
    with suppress(ConnectionError):
        await exchange.send(body[len(body) // 2 :])
    return False


@fault
async def truncated(exchange: Exchange) -> bool:
    """Half a body under a length that fits it."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body[: len(body) // 2]))
    return False


@fault
async def long_length(exchange: Exchange) -> bool:
    """The head promises more than the whole body that follows, then the connection ends."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body, length=len(body) + 100))
    exchange.close()
    return False


@fault
async def never_ends(exchange: Exchange) -> bool:
    """The head promises more than the body that follows, and the connection stays open."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, body, length=len(body) + 100))
    await asyncio.sleep(HELD_OPEN_S)
    return False


@fault
async def no_length(exchange: Exchange) -> bool:
    """Half a body whose end is the end of the connection."""
    _, _, body = await exchange.ask()
    await exchange.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body[: len(body) // 2])
    exchange.close()
    return False


_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@fault
async def cut_chunks(exchange: Exchange) -> bool:
    """A chunked body without its last chunk."""
    _, _, body = await exchange.ask()
    await exchange.send(_CHUNKED + b"%x\r\n%s\r\n" % (len(body), body))
    exchange.close()
    return False


@fault
async def bad_chunks(exchange: Exchange) -> bool:
    """A chunked body with a chunk whose size is no number."""
    _, _, body = await exchange.ask()
    await exchange.send(_CHUNKED + b"%x\r\n%s\r\n" % (8, body[:8]))
    await asyncio.sleep(0.02)
    with suppress(ConnectionError):
        await exchange.send(b"zz\r\nzz\r\n")
    return False


@fault
async def no_http(exchange: Exchange) -> bool:
    """Bytes of another protocol."""
    await exchange.ask()
    await exchange.send(b"\x16\x03\x01\x00\x00SSH-2.0-OpenSSH_9.7\r\n")
    exchange.close()
    return False


@fault
async def endless_head(exchange: Exchange) -> bool:
    """A header line of 100 kB."""
    _, _, body = await exchange.ask()
    with suppress(ConnectionError):
        await exchange.send(answer(200, body, {"x-filler": "x" * 100_000}))
    return False


@fault
async def repeat(exchange: Exchange) -> bool:
    """The answer comes twice, in one piece."""
    status, named, body = await exchange.ask()
    await exchange.send(answer(status, body, named) * 2)
    return True


@fault
async def repeat_late(exchange: Exchange) -> bool:
    """The answer comes again, three times, on a connection on which nothing is asked any more.

    One of them may reach the next request, whose own answer then comes on a connection that was given up: one
    call is made once more, and no second one, since nobody takes that connection again.
    """
    status, named, body = await exchange.ask()
    await exchange.send(answer(status, body, named))
    with suppress(ConnectionError):
        for _ in range(3):
            await asyncio.sleep(0.005)
            await exchange.send(answer(status, body, named))
    return True


@fault
async def swap(exchange: Exchange) -> bool:
    """The answer to another question, whole."""
    _, _, own = await exchange.ask()
    others = [body for digest, body in exchange.proxy.last.items() if digest != exchange.digest]
    if not others:
        exchange.proxy.last[exchange.digest] = own
    await exchange.send(answer(200, others[-1] if others else own))
    return not others


@fault
async def wrong_type(exchange: Exchange) -> bool:
    """The right answer under a content type that it has not."""
    return await _whole(exchange, content_type="text/html; charset=koi8-r")


@fault
async def zipped(exchange: Exchange) -> bool:
    """A compressed body, which was not asked for."""
    _, _, body = await exchange.ask()
    await exchange.send(answer(200, gzip.compress(body), {"content-encoding": "gzip"}))
    return False


@fault
async def html(exchange: Exchange) -> bool:
    """The page of a gateway, under status 200."""
    await exchange.send(answer(200, HTML, {"content-type": "text/html"}))
    return False


@fault
async def html_502(exchange: Exchange) -> bool:
    """The page of a gateway, under its own status, though the server has answered."""
    await exchange.ask()
    await exchange.send(answer(502, HTML, {"content-type": "text/html"}))
    return False


def _bodies() -> dict[str, Any]:
    said = {"role": "assistant", "content": [1, 2]}
    return {
        "no_json": b'{"choices": [{"message": {"content": "<answer>B</answer>',
        "nan": b'{"choices": [{"message": {"content": NaN}}]}',
        "null": b"null",
        "a_list": b"[1, 2]",
        "no_choices": b'{"choices": []}',
        "choices_of_text": b'{"choices": "none"}',
        "no_message": b'{"choices": [{"index": 0}]}',
        "parts_of_numbers": orjson.dumps({"choices": [{"message": said}]}),
        "deep": b'{"choices":' * 20_000,
        "no_utf8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
        "an_error": b'{"error": {"message": "the engine is dead", "code": 500}}',
        "nothing": b"",
    }


def _saying(body: bytes) -> Fault:
    async def say(exchange: Exchange) -> bool:
        await exchange.ask()
        await exchange.send(answer(200, body))
        return False

    return say


MALFORMED = {f"json_{name}": _saying(body) for name, body in _bodies().items()}
FAULTS |= MALFORMED


def refusing(status: int, **headers: str) -> Fault:
    """A fault that answers with a status, and leaves the server alone."""

    async def refuse(exchange: Exchange) -> bool:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        await exchange.send(answer(status, b'{"error": {"message": "not now"}}', named))
        return False

    return refuse


FAULTS |= {f"status_{n}": refusing(n) for n in (408, 409, 425, 429, 500, 502, 503, 504, 529)}
CLEAN = ("delay", "repeat", "repeat_late", "wrong_type")
"""What costs no second call: the first answer is good."""
HANGING = ("never_ends", "bad_chunks")
"""What nobody notices before the deadline; of the second one aiohttp tells nobody who reads the body."""
BROKEN = tuple(name for name in FAULTS if name not in (*CLEAN, *HANGING, "swap"))
"""What costs a try, and no answer comes through."""


@dataclass
class Proxy:
    """The proxy; `async with` starts and stops it.

    Attributes:
        upstream: port of the server.
        plan: which requests meet which faults; may be replaced at any time.
        method: only requests of this method meet any.
        met: faults that were met.
        given: digest of a request -> how often the client got the server's answer whole.
        last: digest of a request -> the server's answer to it, in the order in which they came.
    """

    upstream: int
    plan: Plan = field(default_factory=Plan)
    port: int = 0
    method: str = "POST"
    met: Counter[str] = field(default_factory=Counter)
    given: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    last: dict[str, bytes] = field(default_factory=dict)
    extra: dict[str, Fault] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Root of the API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def reset(self, plan: Plan | None = None) -> None:
        """Forget every count, and follow another plan."""
        self.plan = plan or Plan()
        for counts in (self.met, self.given, self.asked, self.last):
            counts.clear()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=2**26, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            while not writer.is_closing():
                await self._exchange(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if _EXPECTS.search(head):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = _EXPECTS.sub(b"", head)
        lines = head.decode("latin-1").split("\r\n")
        lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0])) if lengths else b""
        if not lines[0].startswith(self.method):
            await self._relay(head.replace(b"\r\n", b"\r\nconnection: close\r\n", 1) + body, writer)
            return
        digest = hashlib.blake2b(lines[0].encode() + body, digest_size=16).hexdigest()
        before, number = self.asked[digest], self.asked.total() + 1
        self.asked[digest] += 1
        name = self.plan.fault(digest, before, number)
        does = _whole if not name else (self.extra | FAULTS)[name]
        if name:
            self.met[name] += 1
        if await does(Exchange(self, writer, head + body, body, digest)):
            self.given[digest] += 1

    async def _relay(self, raw: bytes, client: asyncio.StreamWriter) -> None:
        """Hand over whatever the server answers, and end the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        writer.write(raw)
        client.write(await reader.read())
        writer.close()
        client.close()
