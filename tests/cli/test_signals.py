"""The first signal drains, the second stops at once, whatever else has asked the run to end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from videop2r_data.builders.run import Stop
from videop2r_data.cli.common import run_draining
from videop2r_data.errors import BudgetError


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_asks_and_the_second_cancels() -> None:
    stop, told = Stop(), list[str]()

    async def main() -> None:
        interrupt()
        await asyncio.sleep(0.02)
        assert stop.asked and len(told) == 1
        interrupt()
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        run_draining(main(), stop, told.append)


def test_a_run_that_is_ending_for_another_reason_is_not_cut_by_the_first_signal() -> None:
    stop = Stop()
    stop.ask(BudgetError("used up"))

    async def main() -> str:
        interrupt()
        await asyncio.sleep(0.02)
        return "the calls under way came back"

    assert run_draining(main(), stop, lambda _: None) == "the calls under way came back"
    assert isinstance(stop.why, BudgetError)
