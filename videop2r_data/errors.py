"""Every error that this package raises on purpose, in one tree.

    P2RError                     what is wrong, where, and what to do about it
    ├── ConfigError              a recipe, a flag or an environment variable
    ├── MissingExtraError        an optional dependency is not installed
    ├── TraceError               a completion that is no process-aware trace
    ├── SourceError              a pool, a release or a row of one
    ├── MediaError               a clip or an image (carries a `RejectReason`)
    ├── JournalError             the journal is damaged, locked or of another version
    ├── ExportError              the data set cannot be written as asked
    ├── HubError                 the Hub, or what it holds, is not as it has to be
    │   └── HubAuthError         no token, a wrong one, or one without the right to do this
    └── BackendError             a model call
        ├── TransientError       worth another try (carries `retry_after_s`)
        ├── RefusedError         the server refused this very request for good: it costs its row
        ├── AuthError            no request can succeed: the run stops
        └── BudgetError          the next call could pass `--max-cost`: the run drains and stops

Only `P2RError` reaches the command line as a message; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class P2RError(Exception):
    """What is wrong, where it is, and what to do.

    Args:
        message: what was got and what is allowed.
        where: file, row and field, as far as they are known (`pool.json, row 17, field "options"`).
        hint: the next thing to do, an imperative sentence.
    """

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.hint}" if self.hint else head


class ConfigError(P2RError):
    """A recipe, a flag or an environment variable is missing or wrong."""


class MissingExtraError(P2RError):
    """An optional dependency is needed; the hint holds the exact `pip install` line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", hint=f'run: pip install "videop2r-data[{extra}]"')


class TraceError(P2RError):
    """A completion is no process-aware trace.

    Args:
        fault: a `TraceFault` value, as text.
        at: character offset of the place.
    """

    def __init__(self, message: str, *, fault: str, at: int) -> None:
        super().__init__(message, where=f"character {at}")
        self.fault = fault
        self.at = at


class SourceError(P2RError):
    """A pool or a release, or one row of it, cannot be used."""


class MediaError(P2RError):
    """A clip or an image cannot be used; `reason` is a `RejectReason` value."""

    def __init__(self, message: str, *, reason: str, where: str | None = None) -> None:
        super().__init__(message, where=where)
        self.reason = reason


class JournalError(P2RError):
    """The journal is damaged, locked or written by another version."""


class ExportError(P2RError):
    """The data set cannot be written, or the ledger does not add up."""


class HubError(P2RError):
    """The Hub refused, cannot be reached, or holds something else than was expected."""


class HubAuthError(HubError):
    """No token, a wrong one, or one without the right to do this."""


class BackendError(P2RError):
    """A model call went wrong."""


class TransientError(BackendError):
    """Worth another try: a timeout, a lost connection, status 408, 409, 429 or 5xx.

    Args:
        retry_after_s: seconds that the server asked for, if it did.
        rate_limited: the server said "too many": lower the concurrency.
        maybe_billed: the request may have been served (a timeout, a connection lost while waiting): its money
            counts as possibly spent.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        rate_limited: bool = False,
        maybe_billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited
        self.maybe_billed = maybe_billed


class RefusedError(BackendError):
    """The server refused this very request for good (status 400, 413, 422 ...)."""


class AuthError(BackendError):
    """No request can succeed: wrong key, no such model, no permission."""


class BudgetError(BackendError):
    """The next call could pass the money limit."""
