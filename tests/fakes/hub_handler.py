"""How the stand-in Hub takes a request: routes, who may do what, ranges, breakage on purpose."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.hub_repo import Entry, Refused, Repo, Store

TOKEN, READ_TOKEN = "hf_goodGoodGoodGood", "hf_readReadReadRead"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []


def route(method: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Name the path of an endpoint; `D` stands for `/api/datasets/owner/name` and its like."""
    text = pattern.replace("D", r"/api/(?P<kind>dataset|model)s/(?P<name>[^/]+/[^/]+)", 1)
    return lambda made: ROUTES.append((method, re.compile(text + r"\Z"), made)) or made  # type: ignore[func-returns-value]


@dataclass
class Fault:
    """`status` 0 cuts the connection; the first `after` matching requests pass; `late`: carried out before."""

    method: str
    path: str
    status: int
    after: int
    times: int
    late: bool = False

    def hits(self, method: str, path: str) -> bool:
        if self.times <= 0 or method != self.method or not re.search(self.path, path):
            return False
        self.after -= 1
        if self.after >= 0:
            return False
        self.times -= 1
        return True


class HubState(Protocol):
    """What a handler sees of its server."""

    url: str
    cdn: str
    store: Store
    seen: list[tuple[str, str]]
    served: Counter[str]
    received: int
    links: int
    faults: list[Fault]
    cut_after: list[int]
    hold: str
    ignored: str
    released: threading.Event


class Handler(BaseHTTPRequestHandler):
    hub: HubState
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one segment: two would wait for each other
    token = ""
    mute = False

    def answer(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.body = self._body()
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.seen.append((self.command, path))
        try:
            if self.hub.hold and re.search(self.hub.hold, path):
                self.hub.released.wait(60)
                self.close_connection = True
                return
            for fault in self.hub.faults:
                if fault.hits(self.command, path):
                    if fault.late:
                        self.mute = True
                        break
                    if not fault.status:
                        self.close_connection = True
                        self.connection.close()
                        return
                    raise Refused(fault.status, message="broken on purpose")
            for method, pattern, call in ROUTES:
                found = pattern.match(path)
                if found and method == ("GET" if self.command == "HEAD" else self.command):
                    with self.hub.store.lock:
                        call(self, **found.groupdict())
                    return
            raise Refused(404, message=f"no such endpoint: {self.command} {path}")
        except Refused as no:
            headers = {"X-Error-Message": no.message} | ({"X-Error-Code": no.code} if no.code else {})
            self.send({"error": no.message}, status=no.status, headers=headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def send(
        self,
        answer: Any = None,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        data: bytes = b"",
    ) -> None:
        if answer is not None:
            data = json.dumps(answer).encode()
        if self.mute:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def repo(self, kind: str, name: str, *, write: bool = False) -> Repo:
        """The repository, if this token may see it, and change it if it wants to."""
        if self.token and self.token not in (TOKEN, READ_TOKEN):
            raise Refused(401, message="Invalid credentials in Authorization header")
        if not self.token and (write or self.hub.store.repo(kind, name).private):
            raise Refused(401, "RepoNotFound", "Repository not found")
        if write and self.token != TOKEN:
            raise Refused(403, message="Forbidden: this token has no write access")
        return self.hub.store.repo(kind, name)

    def range(self, size: int) -> tuple[int, int, bool]:
        """Start and end (not included) that were asked for, and whether it was a range."""
        found = re.match(r"bytes=(\d*)-(\d*)\Z", self.headers.get("Range", ""))
        if not found:
            return 0, size, False
        first, last = found.groups()
        if not first:
            return max(0, size - int(last)), size, True
        if int(first) >= size:
            raise Refused(416, message="range not satisfiable")
        return int(first), min(size, int(last) + 1) if last else size, True

    def send_file(self, entry: Entry, headers: dict[str, str]) -> int:
        start, end, partial = self.range(entry.size)
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        if partial:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry.size}"
        data = b"" if self.command == "HEAD" else self.hub.store.read(entry, start, end)
        if self.hub.cut_after and len(data) > self.hub.cut_after[0]:
            data = data[: self.hub.cut_after.pop(0)]
            self.close_connection = True
        self.send(status=206 if partial else 200, headers=headers, data=data)
        return len(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""
