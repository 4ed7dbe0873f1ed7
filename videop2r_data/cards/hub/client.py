"""One connection to the Hub: its token, its errors in our words, and files read by byte ranges."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from videop2r_data.errors import HubAuthError, HubError, P2RError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi


Kind = Literal["dataset", "model"]
S = TypeVar("S")
T = TypeVar("T")
Watch = Callable[[str, int, int], object]
"""Called with progress: (name of the current file, bytes done, bytes in all)."""
WORKERS = 4
"""Transfers at a time."""
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further try after a busy server or a broken connection."""
_PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses worth another try: timeouts, rate limits, errors of the server."""
_LONGEST_S = 60.0
"""Longest wait that `Retry-After` may ask for."""
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN (https://huggingface.co/settings/tokens)"
AGAIN = "run the same command again"
_TOKEN_CHARS = 8
"""A token shorter than this is not searched for in messages: it would match anything."""


@dataclass(frozen=True)
class Hub:
    """One Hub and the account that talks to it.

    Attributes:
        endpoint: URL of the Hub; None: HF_ENDPOINT or huggingface.co.
        token: left out of `repr` and cut out of every error; None: anonymous.
        tell: called with a sentence before every wait.
    """

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    tell: Callable[[str], object] = field(default=lambda _: None, repr=False, compare=False)

    @classmethod
    def connect(cls, *, endpoint: str | None = None, tell: Callable[[str], object] = lambda _: None) -> Self:
        """Take the token from HF_TOKEN, its file, or the cached login."""
        from huggingface_hub import get_token

        return cls(endpoint, get_token(), tell)

    @property
    def api(self) -> HfApi:
        """`HfApi`; without a token it stays anonymous, even if the machine has a cached login."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token or False, library_name="videop2r-data")

    def url(self, repo: str, path: str, *, kind: Kind, revision: str) -> str:
        """Address of one file at one revision."""
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(repo, path, repo_type=kind, revision=revision, endpoint=self.endpoint))

    def page(self, repo: str, kind: Kind) -> str:
        """Address of a repository's page."""
        return f"{self.api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    def who(self) -> str:
        """Name of the account behind the token.

        Raises:
            HubAuthError: no token, or one that the Hub does not take.
        """
        if self.token is None:
            raise HubAuthError("there is no token to write to the Hub with", hint=_LOGIN)
        return str(self.call(lambda: self.api.whoami()["name"], self.api.endpoint))

    def call(self, ask: Callable[[], T], where: str) -> T:
        """Make one idempotent call, again after errors that pass (`stumbled`).

        Raises:
            HubError: the call failed for another reason, or too often; it names `where`.
        """
        with self.errors(where):
            for pause in PAUSES_S:
                try:
                    return ask()
                except Exception as error:
                    if not stumbled(error):
                        raise
                    self.wait(error, pause, where)
            return ask()

    def wait(self, error: BaseException, pause: float, where: str) -> None:
        """Wait before another try, `Retry-After` seconds if the server gave them, and tell it."""
        seconds = pause_asked(getattr(error, "response", None)) or pause
        status = status_of(error)
        what = f"the Hub answered {status}" if status else f"the connection broke: {first_line(error)}"
        self.tell(self.scrub(f"{where}: {what}; asked again in {seconds:g} s"))
        time.sleep(seconds)

    @contextmanager
    def errors(self, where: str) -> Iterator[None]:
        """Turn errors of the client into a `HubError` that names the repository or file and what to do."""
        try:
            yield
        except (P2RError, KeyboardInterrupt):
            raise
        except Exception as error:
            told = translate(error, where)
            if told is None:
                raise
            told.message = self.scrub(told.message)
            raise told from None

    def scrub(self, text: str) -> str:
        """The text without the token."""
        if self.token and len(self.token) >= _TOKEN_CHARS:
            return text.replace(self.token, "<token>")
        return text


def stumbled(error: BaseException) -> bool:
    """Whether an error may pass by itself: a busy server, a broken connection."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):  # a broken connection by its class; only a person can end it
        return False
    return status_of(error) in _PASSING or isinstance(error, httpx2.TransportError | ConnectionError)


def pause_asked(answer: Any) -> float | None:
    """Seconds of `Retry-After`, at most 60; None if there is no answer, or none with such a header."""
    said = getattr(answer, "headers", {}).get("Retry-After", "")
    return min(_LONGEST_S, float(said)) if said.isdecimal() else None


def check_repo_id(repo: str, *, owned: bool = False) -> str:
    """A repository's id if the Hub allows it; `owned`: with an owner, which some old data sets lack.

    Raises:
        HubError: the id is not valid.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        if owned and "/" not in repo:
            raise HFValidationError("no owner")
    except HFValidationError:
        raise HubError("not a repository of the Hub", where=repo, hint="write owner/name") from None
    return repo


def status_of(error: BaseException) -> int | None:
    """HTTP status of an error of the client, or None."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def translate(error: Exception, where: str) -> HubError | None:
    """A `HubError` for an error of the Hub's client; None for any other error, which is a bug of ours."""
    from huggingface_hub import errors as theirs

    status, text = status_of(error), first_line(error)
    # the first that holds: a gated or missing repository also answers with status 401 or 403
    told: list[tuple[bool, type[HubError], str, str]] = [
        (
            isinstance(error, theirs.GatedRepoError),
            HubAuthError,
            "access must be asked for",
            "ask for it on its page, then log in",
        ),
        (
            isinstance(error, theirs.RepositoryNotFoundError),
            HubError,
            "no such repository, or it is private and this token cannot see it",
            f"check the name; for a private one, {_LOGIN}",
        ),
        (status == 401, HubAuthError, "the Hub does not take this token", _LOGIN),
        (status == 403, HubAuthError, "this token may not do that", "make one that may write there"),
        (
            isinstance(error, theirs.RevisionNotFoundError),
            HubError,
            "no such revision",
            "name a commit, a tag or a branch that exists",
        ),
        (isinstance(error, theirs.EntryNotFoundError), HubError, f"no such file there: {text}", ""),
        (status == 412, HubError, "somebody else changed it meanwhile", AGAIN),
        (isinstance(error, theirs.HFValidationError), HubError, text, "write owner/name"),
        (text.startswith("Invalid metadata"), HubError, f"the Hub refuses the card: {error}", ""),
        (isinstance(error, theirs.HfHubHTTPError), HubError, f"the Hub answered {status}: {text}", AGAIN),
    ]
    for holds, kind, message, hint in told:
        if holds:
            return kind(message, where=where, hint=hint or None)
    return _unreachable(error, where)


def _unreachable(error: Exception, where: str) -> HubError | None:
    """Errors of the HTTP transport, which the client lets through, and of Xet's uploads and downloads."""
    import httpx2
    from huggingface_hub import errors as theirs

    if isinstance(error, theirs.OfflineModeIsEnabled):
        return HubError("HF_HUB_OFFLINE is set", where=where, hint="unset it to talk to the Hub")
    if isinstance(error, RuntimeError) and first_line(error).startswith("Error while uploading"):
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        told = translate(cause, where) if cause is not error else None
        what = f"{first_line(error)} {type(cause).__name__}: {first_line(cause)}"
        return told or HubError(what, where=where, hint=AGAIN)
    ours = (httpx2.HTTPError, ConnectionError, theirs.XetDownloadError, theirs.LocalEntryNotFoundError)
    if isinstance(error, ours) or _of_xet(error):
        hint = f"check the connection, then {AGAIN}: what arrived is kept"
        return HubError(f"the connection broke: {first_line(error)}", where=where, hint=hint)
    return None


def _of_xet(error: Exception) -> bool:
    """Whether Xet's binary part raised an error: a plain `RuntimeError` out of a call of the Hub's client."""
    if type(error).__module__.startswith("hf_xet"):
        return True
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    name = at.tb_frame.f_globals.get("__name__", "") if at is not None else ""
    return isinstance(error, RuntimeError) and name.startswith(("huggingface_hub", "hf_xet"))


def no_watch(name: str, done: int, total: int) -> None:
    """Tell nobody."""


def in_parallel(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """Results as they come; after an error, or when nobody asks for more, what has not begun is left out."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Place(NamedTuple):
    """One commit of a data set's repository."""

    hub: Hub
    repo: str
    commit: str

    @classmethod
    def find(cls, hub: Hub, repo: str, revision: str | None) -> Self:
        """The commit that a commit, tag or branch stands for; None: the main branch.

        Raises:
            HubError: no such repository or revision, or it cannot be read.
        """
        check_repo_id(repo)
        where = f"{repo}@{revision}" if revision else repo
        commit = hub.call(lambda: hub.api.dataset_info(repo, revision=revision).sha or "", where)
        return cls(hub, repo, commit)


# Files read by HTTP ranges: a lost connection is resumed at the next byte, an expired link is renewed.

TRIES = 5
"""Tries in a row without a new byte."""
_TIMEOUT_S = 30.0
_EXPIRED = (401, 403, 404)
"""Statuses of storage hosts for an expired link."""


class RangeFile:
    """One file of one commit, read by ranges.

    The Hub answers with a signed link to a storage host. It is asked for once and used for every range. The
    token is sent to the Hub only, never to the storage host.

    Args:
        place: where it is.
        path: in the repository.
        size: bytes, as the Hub lists them.
    """

    def __init__(self, place: Place, path: str, size: int) -> None:
        self.where = path
        self.size = size
        self.fetched = 0
        """Bytes that came over the wire."""
        self._hub = place.hub
        self._url = place.hub.url(place.repo, path, kind="dataset", revision=place.commit)
        self._home = f"{place.hub.api.endpoint}/"
        self._link = ""
        self._lock = Lock()

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, exclusive; errors as of `stream`."""
        return b"".join(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end`, exclusive, in pieces as they arrive.

        Raises:
            HubError: the file cannot be read, after `TRIES` tries without a new byte.
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
                    told = f"gave up after {tries} tries: {trouble}"
                    where = f"{self.where}, bytes {at:,} to {end:,}"
                    raise HubError(told, where=where, hint=f"what arrived is kept: {AGAIN}") from None
                time.sleep(trouble.wait_s or min(8.0, 0.25 * 2**tries))

    def _resolve(self, unless: str) -> str:
        """The link to the bytes; a new one if the known one is `unless`, which just failed."""
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
        """One request; ends without an error if the connection is cut."""
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
            raise _PassingError(f"status {status}", wait_s=pause_asked(answer))
        said = answer.headers.get("Content-Range", "")
        if status != 206 or not said.startswith(f"bytes {start}-"):
            raise HubError(
                f"asked for a range from byte {start:,}, got status {status} and {said or 'no range'}",
                where=self.where,
                hint="a proxy in between may not let ranges through",
            )


class JoinedFile:
    """A file that was cut into parts, read as one by ranges."""

    def __init__(self, where: str, parts: Sequence[RangeFile]) -> None:
        self.where = where
        self.parts = tuple(parts)
        *starts, self.size = accumulate((part.size for part in parts), initial=0)
        self.starts: Sequence[int] = tuple(starts)
        """Where each part begins."""

    @property
    def fetched(self) -> int:
        """Bytes that came over the wire."""
        return sum(part.fetched for part in self.parts)

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, exclusive."""
        return b"".join(self.stream(start, end))

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end`, exclusive, in pieces; one request per part."""
        at = start
        while at < end:
            number = bisect_right(self.starts, at) - 1
            part, base = self.parts[number], self.starts[number]
            stop = min(end, base + part.size)
            yield from part.stream(at - base, stop - base)
            at = stop


class _PassingError(Exception):
    """A failed request that is worth another try."""

    def __init__(self, message: str, *, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@contextmanager
def _passing() -> Iterator[None]:
    """Turn errors of the transport into `_PassingError`."""
    import httpx2

    try:
        yield
    except httpx2.TransportError as error:
        raise _PassingError(f"{type(error).__name__}: {first_line(error)}") from None
