"""The exit code says whether the same command goes on by itself, needs money, or needs a person."""

from __future__ import annotations

import pytest
import typer

from videop2r_data.cli.common import errors_as_messages
from videop2r_data.errors import (
    AuthError,
    AwayError,
    BackendError,
    BudgetError,
    BusyError,
    ConfigError,
    P2RError,
    TransientError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AwayError("gone"), 3),
        (TransientError("the batch was not taken"), 3),
        (BusyError("another build"), 3),
        (BudgetError("used up"), 4),
        (BackendError("32 calls in a row were refused"), 1),
        (AuthError("wrong key"), 1),
        (ConfigError("no such recipe"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_code_of_an_error(error: P2RError, code: int) -> None:
    for raised in (error, ExceptionGroup("together", [error])):
        with pytest.raises(typer.Exit) as caught, errors_as_messages():
            raise raised
        assert caught.value.exit_code == code
