"""The page as one HTML document, and a server for one reader."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

import orjson

from videop2r_data.cards.gallery.media import Clip, beside
from videop2r_data.errors import ConfigError

# Rows and model texts enter the document as JSON only, in script elements of a type that no browser runs,
# with every `<`, `>` and `&` escaped; the script shows them with `textContent`. A Content-Security-Policy
# allows this style and this script, by their digests, and nothing to be loaded but pictures and clips.

SCRIPTS = (
    "base.js",
    "data.js",
    "filter.js",
    "marks.js",
    "list.js",
    "facets.js",
    "frames.js",
    "player.js",
    "sample.js",
    "compare.js",
    "keys.js",
    "wire.js",
    "main.js",
)
"""Parts of the page's one script, in order."""
FILE_MEDIA = "'self' file: data: blob:"
SERVED_MEDIA = "'self' data: blob:"
_ESCAPES = ((b"&", b"\\u0026"), (b"<", b"\\u003c"), (b">", b"\\u003e"))


def inert_json(value: Any) -> str:
    r"""JSON that is safe anywhere in HTML: no tag, comment or entity can begin in it.

    >>> inert_json({"a": "</script>"})
    '{"a":"\\u003c/script\\u003e"}'
    """
    text = orjson.dumps(value)
    for found, written in _ESCAPES:
        text = text.replace(found, written)  # outside of strings JSON has none of these characters
    return text.decode("utf-8")


def policy(style: str, script: str, media: str, *, forms: str = "'none'") -> str:
    """The Content-Security-Policy of the page.

    Args:
        style: text of the one style element.
        script: text of the one script; empty: the page has none, and none may run.
        media: sources allowed for pictures and clips.
        forms: where the page's forms may be sent.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_digest(script)}'" if script else "script-src 'none'",
            f"style-src '{_digest(style)}'",
            f"img-src {media}",
            f"media-src {media}",
            "base-uri 'none'",
            f"form-action {forms}",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def render_page(title: str, head: dict[str, Any], chunks: Sequence[Any], *, served: bool = False) -> str:
    """The whole document; the same text for the same arguments.

    Args:
        title: of the window.
        head: `Payload.head`.
        chunks: `Payload.chunks`.
        served: for `GalleryServer`, not for a file.
    """
    style = colours() + _asset("style.css")
    script = '"use strict";\n(() => {\n' + "".join(_asset(name) for name in SCRIPTS) + "})();\n"
    blocks = [_block(f"rows-{i}", chunk) for i, chunk in enumerate(chunks)]
    # the script comes before most rows: the list is shown while the browser still reads them
    return fill_fields(
        _asset("page.html"),
        {
            "policy": html.escape(policy(style, script, SERVED_MEDIA if served else FILE_MEDIA)),
            "title": html.escape(title),
            "style": style,
            "head": _block("head", head),
            "first": "".join(blocks[:1]),
            "script": script,
            "rest": "".join(blocks[1:]),
        },
    )


def colours() -> str:
    """Style sheet of the colours that roles of segments and outcomes have, light and dark."""
    return _asset("colours.css")


def fill_fields(template: str, fields: dict[str, str]) -> str:
    """Fill `@@name@@` fields in one pass: such a text inside of a value stays as it is."""
    parts = template.split("@@")
    for i in range(1, len(parts), 2):
        parts[i] = fields[parts[i]]
    return "".join(parts)


def _block(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{inert_json(value)}</script>\n'


def _asset(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


# The server finds clips in a table of what the page shows, so no path is ever made from a request. The first
# part of every address is a secret of this run: other users of the machine and pages of other sites cannot
# guess it.

HOST = "127.0.0.1"
_BLOCK = 1 << 18
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})\Z")
_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # browsers play most of them, but only under this name
    ".webm": "video/webm",
    ".mkv": "video/webm",
    ".ogv": "video/ogg",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
}
_CLOSED = "default-src 'none'; sandbox"
"""Policy of every answer but the page: an SVG or HTML file opened by itself runs nothing."""


class LoopbackServer(ThreadingHTTPServer, ABC):
    """Serves one page and files to this machine until `shutdown`; a subclass says which.

    Args:
        port: 0: any free one.

    Raises:
        ConfigError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, *, port: int = 0) -> None:
        self.secret = secrets.token_urlsafe(16)
        try:
            super().__init__((HOST, port), self.handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}", hint="choose another --port"
            ) from None

    @property
    def handler(self) -> type[LoopbackHandler]:
        """What answers a request."""
        return LoopbackHandler

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{HOST}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """Address of the page, with the secret."""
        return f"{self.origin}/{self.secret}/"

    @abstractmethod
    def document(self) -> bytes:
        """The page."""

    @abstractmethod
    def file(self, address: str) -> Path | None:
        """The file of an address below the secret, no symbolic link left in it; None: there is none."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a browser that closes the connection in the middle of a clip."""


class GalleryServer(LoopbackServer):
    """Serves the gallery.

    Args:
        page: the HTML document.
        clips: the clips it shows.
        port: 0: any free one.

    Raises:
        ConfigError: the port is taken.

    Example::

        with GalleryServer(gallery.page(served=True), gallery.clips) as server:
            server.serve_forever()
    """

    def __init__(self, page: str, clips: Iterable[Clip], *, port: int = 0) -> None:
        self.page = page.encode("utf-8")
        clips = list(clips)
        bases = beside(clips)
        self.files = {
            unquote(bases[clip.source] + clip.address): clip.file for clip in clips if clip.file is not None
        }
        super().__init__(port=port)

    def document(self) -> bytes:
        """The page."""
        return self.page

    def file(self, address: str) -> Path | None:
        """The clip of an address."""
        return self.files.get(address)


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers requests that name this machine and know the secret; it prints nothing."""

    protocol_version = "HTTP/1.1"
    server_version = "p2r"
    sys_version = ""
    timeout = 60
    server: LoopbackServer
    referrers = "no-referrer"

    def do_GET(self) -> None:
        """A page or a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """The headers of a page or a file."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Print nothing: only the command line prints."""

    def _answer(self, *, body: bool) -> None:
        address = self.address()
        if address is None:
            self.refuse(404)
        elif address == "":
            self.send_page(self.server.document(), body=body)
        else:
            try:
                file = self.server.file(address)
                if file is None or file.resolve() != file:  # became a link meanwhile: to where?
                    self.refuse(404)
                else:
                    self._send_file(file, body)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                self.refuse(404)

    def address(self) -> str | None:
        """The requested address below the secret; None if host or secret are wrong."""
        port = self.server.server_address[1]
        if self.headers.get("Host", "") not in {f"{HOST}:{port}", f"localhost:{port}"}:
            return None  # DNS rebinding: a name of another site that was pointed at this machine
        path = self.path.partition("?")[0]
        secret, slash, rest = path.removeprefix("/").partition("/")
        if not slash or not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            return None
        return unquote(rest)

    def send_page(self, page: bytes, *, status: int = 200, body: bool = True) -> None:
        """Answer with an HTML document."""
        self.send_response(status)
        self._headers("text/html; charset=utf-8", len(page), "frame-ancestors 'none'")
        if body:
            self.wfile.write(page)

    def _send_file(self, path: Path, body: bool) -> None:
        with path.open("rb") as file:
            size = path.stat().st_size
            start, end = 0, size
            wanted = self.headers.get("Range")
            if wanted is not None:
                found = byte_range(wanted, size)
                if found is None:
                    self.refuse(416, ("Content-Range", f"bytes */{size}"))
                    return
                start, end = found
            self.send_response(200 if wanted is None else 206)
            if wanted is not None:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
            self._headers(kind, end - start, _CLOSED)
            if body:
                self._copy(file, start, end)

    def _copy(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        left = end - start
        while left:
            block = file.read(min(_BLOCK, left))
            if not block:
                self.close_connection = True  # the file shrank: fewer bytes than were promised
                return
            self.wfile.write(block)
            left -= len(block)

    def refuse(self, status: int, *headers: tuple[str, str]) -> None:
        """Answer with a status and nothing else."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self._headers("text/plain", 0, _CLOSED)

    def _headers(self, kind: str, length: int, policy: str) -> None:
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(length),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": self.referrers,
            "Cache-Control": "private, no-cache",
        }.items():
            self.send_header(name, value)
        self.end_headers()


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, end) of a Range header, `end` exclusive; None if it is not valid or beyond the file.

    >>> byte_range("bytes=2-4", 10), byte_range("bytes=-3", 10), byte_range("bytes=10-", 10)
    ((2, 5), (7, 10), None)
    """
    match = _RANGE.match(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    return (start, end) if start < end else None
