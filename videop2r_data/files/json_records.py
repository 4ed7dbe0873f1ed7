"""Each record of a JSON file, lines or one list, plain or gzip, in constant memory."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import orjson

from videop2r_data.errors import SourceError

MAX_RECORD_BYTES = 64 * 2**20
"""One record above it is refused: a stream that never closes its first object must not fill the memory."""
_CHUNK = 1 << 20
_TOKEN = re.compile(rb'[\[\]{}"]')
# Steps of one match are bounded: the engine remembers each. Python 3.11.2 errs on possessive groups.
_IN_STRING = re.compile(rb'(?:[^"\\]+|\\.){0,1000}', re.DOTALL)
_SPACE = re.compile(rb"[ \t\r\n,]*")
_BETWEEN = re.compile(rb"\}(?=[ \t\r\n]*,[ \t\r\n]*\{)")
_STEP = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}


def raw_records(path: Path) -> Iterator[dict[str, Any] | bytes]:
    """Each record, parsed or as bytes; lines and lists are told apart by the first character."""
    try:
        with _open(path) as stream:
            head = _skip_space(stream)
            if head.startswith(b"["):
                yield from split_list(stream, head[1:])
            else:
                yield from _lines(stream, head)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot be read to its end: {error}", where=path.name) from None
    except ValueError as error:
        raise SourceError(str(error), where=path.name) from None


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _skip_space(stream: IO[bytes]) -> bytes:
    """The first chunk from its first character on; a byte order mark is skipped too."""
    head = b""
    while not head:
        chunk = stream.read(_CHUNK)
        if not chunk:
            return b""
        head = chunk.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head


def _lines(stream: IO[bytes], head: bytes) -> Iterator[bytes]:
    rest = head
    while True:
        *lines, rest = rest.split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > MAX_RECORD_BYTES:
            raise ValueError(f"a line of more than {MAX_RECORD_BYTES:,} bytes")
        chunk = stream.read(_CHUNK)
        if not chunk:
            break
        rest += chunk
    if rest.strip():
        yield rest


def split_list(stream: IO[bytes], head: bytes = b"") -> Iterator[dict[str, Any] | bytes]:
    """Cut a JSON list into its elements, in linear time and constant memory.

    Yields:
        Objects, parsed; or the bytes of any other element, not looked at.

    Args:
        stream: behind the opening bracket of the list.
        head: what was already read behind it.

    Raises:
        ValueError: the list ends early, text stands behind it, or an element is above `MAX_RECORD_BYTES`.
    """
    cut = _Cut(head)
    while not cut.closed:
        yield from cut.elements()
        if not cut.closed:
            chunk = stream.read(_CHUNK)
            if not chunk:
                raise ValueError("the JSON list ends early: the file is cut")
            cut.feed(chunk)
    _only_space(cut.buffer[cut.scan :], stream)


def _string_end(buffer: bytes, at: int) -> int:
    """Offset behind the string that `at` stands in, 0 if it is still open: brackets inside do not count."""
    while (match := _IN_STRING.match(buffer, at)) and match.group():
        at = match.end()
    return at + 1 if buffer.startswith(b'"', at) else 0


class _Cut:
    """The bytes that are not yet cut, and how deep the cut stands in brackets."""

    def __init__(self, buffer: bytes) -> None:
        self.buffer = buffer
        self.scan = 0  # offset up to which tokens were read
        self.depth = 0
        self.begin = 0  # offset of the element that is open
        self.closed = False

    def elements(self) -> Iterator[dict[str, Any] | bytes]:
        """Elements that end in the buffer."""
        element: bytes | None = b""
        while element is not None:
            while self.depth == 0 and (record := self._guess()) is not None:
                yield record
            element = self._next()
            if element:
                yield element

    def _guess(self) -> dict[str, Any] | None:
        """The next element if it is an object that ends at the first `} , {`, several times faster.

        Sound: an object cut short, inside of a string or of another object, is no JSON.
        """
        start = _SPACE.match(self.buffer, self.scan).end()  # type: ignore[union-attr]
        if not self.buffer.startswith(b"{", start) or not (end := _BETWEEN.search(self.buffer, start)):
            return None
        try:
            record: dict[str, Any] = orjson.loads(self.buffer[start : end.end()])
        except orjson.JSONDecodeError:
            return None
        self.scan = end.end()
        return record

    def _next(self) -> bytes | None:
        """The next element, token by token; None: the buffer or the list ends before it does."""
        while token := _TOKEN.search(self.buffer, self.scan):
            mark, end = token.group(), token.end()
            if mark == b'"' and not (end := _string_end(self.buffer, end)):
                return None  # it goes on in the next chunk
            if self.depth == 0:
                between = self.buffer[self.scan : token.start()].strip(b" \t\r\n,")
                if between:
                    self.scan = token.start()
                    return between  # a bare number or word: no record, and said so
                self.begin = token.start()
            self.scan = end
            self.depth += _STEP.get(mark, 0)
            if self.depth < 0:
                self.closed = True
                return None
            if self.depth == 0:
                return self.buffer[self.begin : self.scan]
        return None

    def feed(self, chunk: bytes) -> None:
        """Drop what was cut and append the next bytes."""
        keep = self.begin if self.depth else self.scan
        if len(self.buffer) - keep > MAX_RECORD_BYTES:
            raise ValueError(f"a record of more than {MAX_RECORD_BYTES:,} bytes")
        self.buffer = self.buffer[keep:] + chunk
        self.scan, self.begin = self.scan - keep, 0


def _only_space(rest: bytes, stream: IO[bytes]) -> None:
    """Read to the end, so that a gzip check sum is compared; nothing may stand behind the list."""
    while rest or (rest := stream.read(_CHUNK)):
        if rest.strip():
            raise ValueError(f"text behind the JSON list: {rest.strip()[:40]!r}")
        rest = b""
