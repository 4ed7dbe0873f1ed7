"""Files of the Hub read by HTTP ranges: lost connections go on where they broke, old links are renewed."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any

from videop2r_data.cards.hub_client import Hub, first_line
from videop2r_data.errors import HubError

TRIES = 5
"""In a row without a single new byte."""
_TIMEOUT_S = 30.0
_EXPIRED = (401, 403, 404)
"""What storage hosts answer when a signed link is too old."""
_PASSING = (408, 429, 500, 502, 503, 504)


class RangeFile:
    """One file of one commit.

    The Hub answers with a link to where the bytes lie; the link is asked for once and used for every range.
    The token goes to the Hub only, never to that other host.

    Args:
        hub: where.
        repo, path, revision: which file; the revision is a commit.
        size: bytes, as the Hub lists them.
    """

    def __init__(self, hub: Hub, repo: str, path: str, *, revision: str, size: int) -> None:
        self.where = path
        self.size = size
        self.starts: Sequence[int] = (0,)
        self.fetched = 0
        """Bytes that came over the wire."""
        self._hub = hub
        self._url = hub.url(repo, path, kind="dataset", revision=revision)
        self._home = f"{hub.api.endpoint}/"
        self._link = ""
        self._lock = Lock()

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, not included.

        Raises:
            HubError: they cannot be had.
        """
        return b"".join(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """The same in pieces.

        Raises:
            HubError: they cannot be had, whatever is tried.
        """
        at, tries, link = start, 0, ""
        while at < end:
            try:
                link = self._resolve(unless=link if tries else "")
                for piece in self._once(link, at, end):
                    at, tries = at + len(piece), 0
                    yield piece
                if at < end:
                    raise _PassingError("the answer ended early")
            except _PassingError as trouble:
                tries += 1
                if tries >= TRIES:
                    where = f"{self.where}, bytes {at:,} to {end:,}"
                    hint = "what arrived is kept: run the same command again"
                    raise HubError(
                        f"gave up after {tries} tries: {trouble}", where=where, hint=hint
                    ) from None
                time.sleep(trouble.wait_s or min(8.0, 0.25 * 2**tries))

    def _resolve(self, unless: str) -> str:
        """The link to the bytes; a new one if the known one is `unless`, which has just failed."""
        from huggingface_hub import get_hf_file_metadata

        with self._lock:
            if not self._link or self._link == unless:
                with self._hub.errors(self.where), _passing():
                    found = get_hf_file_metadata(
                        self._url,
                        token=self._hub.token or False,
                        endpoint=self._hub.endpoint,
                        retry_on_errors=True,
                    )
                if found.size is not None and found.size != self.size:
                    what = f"{found.size:,} bytes, the list says {self.size:,}"
                    raise HubError(what, where=self.where, hint="run the command again")
                self._link = found.location
            return self._link

    def _once(self, link: str, start: int, end: int) -> Iterator[bytes]:
        """One request; ends early without an error if the connection does."""
        from huggingface_hub import get_session

        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        if self._hub.token is not None and link.startswith(self._home):
            headers["Authorization"] = f"Bearer {self._hub.token}"
        with _passing(), get_session().stream("GET", link, headers=headers, timeout=_TIMEOUT_S) as answer:
            self._check(answer, start)
            for piece in answer.iter_raw():  # a chunk size would hold back what came before a break
                self.fetched += len(piece)
                yield piece

    def _check(self, answer: Any, start: int) -> None:
        status = answer.status_code
        if status in _EXPIRED or status in _PASSING:
            raise _PassingError(f"status {status}", wait_s=_retry_after(answer))
        said = answer.headers.get("Content-Range", "")
        if status != 206 or not said.startswith(f"bytes {start}-"):
            raise HubError(
                f"asked for a range from byte {start:,}, got status {status} and {said or 'no range'}",
                where=self.where,
                hint="a proxy in between may not let ranges through",
            )


class JoinedFile:
    """Parts of one file, end to end; see `zip_members.Ranged`."""

    def __init__(self, where: str, parts: Sequence[RangeFile]) -> None:
        self.where = where
        self.parts = tuple(parts)
        starts, at = [], 0
        for part in parts:
            starts.append(at)
            at += part.size
        self.starts: Sequence[int] = tuple(starts)
        self.size = at

    @property
    def fetched(self) -> int:
        """Bytes that came over the wire."""
        return sum(part.fetched for part in self.parts)

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, not included."""
        return b"".join(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """The same in pieces; a range may reach over the joints."""
        at = start
        while at < end:
            number = bisect_right(self.starts, at) - 1
            part, base = self.parts[number], self.starts[number]
            stop = min(end, base + part.size)
            yield from part.stream(at - base, stop - base)
            at = stop


class _PassingError(Exception):
    """Worth another try."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@contextmanager
def _passing() -> Iterator[None]:
    """Turn what the transport raises into `_PassingError`."""
    import httpx2

    try:
        yield
    except httpx2.TransportError as error:
        raise _PassingError(f"{type(error).__name__}: {first_line(error)}") from None


def _retry_after(answer: Any) -> float | None:
    said = answer.headers.get("Retry-After", "")
    return min(60.0, float(said)) if said.isdecimal() else None
