"""A vLLM server as far as its routes go: it keeps what it was asked, and answers as it was told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


@dataclass
class FakeVllm:
    """What it answers and what it saw.

    Attributes:
        answers: route without query -> what makes (status, body) from the request's body; missing: 404.
        seen: (route, body, headers), in the order of arrival.
        url: its root.
    """

    answers: dict[str, Callable[[Any], Answer]]
    seen: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def asked(self, path: str) -> list[Any]:
        """Bodies of the requests to one route."""
        return [body for route, body, _ in self.seen if route == path]


@contextmanager
def fake_vllm(answers: dict[str, Callable[[Any], Answer]]) -> Iterator[FakeVllm]:
    """Serve on the loopback interface until the block ends."""
    fake = FakeVllm(answers)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw else None
            route = self.path.partition("?")[0]
            with lock:
                fake.seen.append((route, body, dict(self.headers)))
                make = fake.answers.get(route)
                status, told = make(body) if make else (404, {"detail": "Not Found"})
            data = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
