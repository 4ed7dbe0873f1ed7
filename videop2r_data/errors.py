"""Every error that this package raises on purpose, in one tree.

    P2RError                     what is wrong, where, and what to do about it
    ├── ConfigError              a recipe, a flag or an environment variable
    ├── MissingExtraError        an optional dependency is not installed
    ├── TraceError               a completion that is no process-aware trace
    ├── SourceError              a pool, a release or a row of one
    ├── MediaError               a clip or an image (carries a `RejectReason`)
    ├── MemoryFullError          a device or the host has too little memory (carries the `part` of the work)
    ├── BusyError                another process works in the same folder
    ├── JournalError             the journal is damaged, locked or of another version
    ├── ExportError              the data set cannot be written as asked
    ├── HubError                 the Hub, or what it holds, is not as it has to be
    │   └── HubAuthError         no token, a wrong one, or one without the right to do this
    └── BackendError             a model call
        ├── TransientError       worth another try (carries `retry_after_s`)
        ├── RefusedError         the server refused this very request for good: it costs its row
        ├── AuthError            no request can succeed: the run stops
        ├── AwayError            the server answers nobody: the run stops, and the same command goes on later
        ├── StoppedError         the run was asked to stop while this call waited: it was not made
        └── BudgetError          the next call could pass `--max-cost`: the run drains and stops

Only `P2RError` reaches the command line as a message; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import urllib.parse
from importlib import metadata
from pathlib import Path


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

    def __reduce__(self) -> tuple[object, ...]:
        # the usual way would call the class with its message alone, which not every class can be made of
        return type(self).__new__, (type(self), *self.args), self.__dict__

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        return f"{head}\n  {self.hint}" if self.hint else head


def first_line(error: BaseException, most: int = 300) -> str:
    """What a library's error says, for a message of ours: its first line, or its type if it says nothing.

    >>> first_line(ValueError("no such thing\\nand a page of details"))
    'no such thing'
    """
    lines = str(error).strip().splitlines()
    return lines[0][:most] if lines else type(error).__name__


class ConfigError(P2RError):
    """A recipe, a flag or an environment variable is missing or wrong."""


class MissingExtraError(P2RError):
    """An optional dependency is needed; the hint holds the `pip install` line that fits this installation."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed", hint=f"run: {install_line(extra)}")


def install_line(extra: str) -> str:
    """The command that adds an extra to the running installation, in its own environment.

    A clone is not on the package index under any name: its extras are installed from its folder, or from the
    address that pip was given.
    """
    folder = Path(__file__).resolve().parents[1]
    source = _source(folder)
    what = f"{source}[{extra}]" if source else f"videop2r-data[{extra}]"
    if source.startswith("git+"):
        what = f"videop2r-data[{extra}] @ {source}"
    editable = "-e " if source == "." or source == str(folder) else ""
    pip = shutil.which("pip")
    own = pip is not None and Path(pip).parent == Path(sys.executable).parent
    program = "pip" if own else f"{shlex.quote(sys.executable)} -m pip"
    quoted = shlex.quote(what) if set(what) & set('"$`\\!') else f'"{what}"'
    return f"{program} install {editable}{quoted}"


def _source(folder: Path) -> str:
    """Where this package was installed from: a folder, a repository's address, or empty for an index.

    Args:
        folder: the parent of the package's folder.
    """
    if (folder / "pyproject.toml").is_file():  # run from the clone, installed or not
        return "." if folder == Path.cwd() else str(folder)
    try:
        told = json.loads(metadata.distribution("videop2r-data").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError, OSError):
        return ""
    url = str(told.get("url", ""))
    if "vcs_info" in told:
        revision = told["vcs_info"].get("commit_id", "")
        return f"git+{url}@{revision}" if revision else f"git+{url}"
    if "dir_info" in told and url.startswith("file://"):
        return urllib.parse.unquote(url.removeprefix("file://"))
    return ""


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


class MemoryFullError(P2RError):
    """A device or the host has too little memory; `part` is a key of `trainer.memory.PARTS`, or `host`."""

    def __init__(self, message: str, *, part: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, where=where, hint=hint)
        self.part = part


class BusyError(P2RError):
    """Another process works in the same folder: nothing is wrong, and the same command works later."""


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
        away: no connection could be made: every other request would fail alike.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        rate_limited: bool = False,
        maybe_billed: bool = False,
        away: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited
        self.maybe_billed = maybe_billed
        self.away = away


class RefusedError(BackendError):
    """The server refused this very request for good (status 400, 413, 422 ...)."""


class AuthError(BackendError):
    """No request can succeed: wrong key, no such model, no permission."""


class AwayError(BackendError):
    """The server answers nobody, and was waited for: nothing is lost, the same command goes on later."""


class StoppedError(BackendError):
    """The run was asked to stop while this call waited for its turn: it was not made."""


class BudgetError(BackendError):
    """The next call could pass the money limit."""
