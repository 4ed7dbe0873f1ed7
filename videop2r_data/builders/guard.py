"""A good data set is not replaced by one that has lost its rows to a server or a disk."""

from __future__ import annotations

from pathlib import Path

import orjson
from pydantic import ValidationError

from videop2r_data.builders.export import LOCK_NAME
from videop2r_data.errors import ExportError
from videop2r_data.schemas.lock import BuildLock, Ledger


class PoorSetError(ExportError):
    """The data set that stands there is not replaced; `ledger` is that of the new one."""

    def __init__(self, message: str, ledger: Ledger, *, where: Path) -> None:
        super().__init__(
            message, where=str(where), hint="mend what the reasons say, then run the same command"
        )
        self.ledger = ledger


def admit(ledger: Ledger, out: Path, *, replace: bool = False) -> None:
    """Refuse to replace a data set by a much poorer one.

    A set without an accepted row replaces none that has some. Nor does one that keeps less than half of the
    rows, where rows that could not be looked at (refused, unanswered, unreadable) make up half of the loss.

    Args:
        ledger: of the new set.
        out: where it goes.
        replace: a set that lost most of its rows may go there (one without rows never).

    Raises:
        PoorSetError: it may not go there.
    """
    old = _kept(out)
    if old == 0:
        return
    stands = "a data set" if old is None else f"the data set of {old:,} accepted rows"
    if ledger.kept == 0:
        raise PoorSetError(f"no row was accepted: {stands} stays as it was", ledger, where=out)
    if old is None or replace:
        return
    lost = old - ledger.kept
    if ledger.kept * 2 < old and ledger.failed * 2 >= lost:
        raise PoorSetError(
            f"only {ledger.kept:,} rows were accepted and {ledger.failed:,} could not be looked at: {stands} "
            "stays as it was (--replace puts the new one in its place)",
            ledger,
            where=out,
        )


def _kept(out: Path) -> int | None:
    """Accepted rows of the data set that stands there: 0 if there is none, None if it does not say."""
    path = out / LOCK_NAME
    if not path.is_file():
        return 0
    try:
        return BuildLock.model_validate(orjson.loads(path.read_bytes())).ledger.kept
    except (OSError, orjson.JSONDecodeError, ValidationError):
        return None
