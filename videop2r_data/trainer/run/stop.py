"""Ctrl-C and SIGTERM: the step under way is finished and saved, then the run ends; twice stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether someone asked the run to end. Loops look at it between steps.

    >>> stop = Stop()
    >>> stop.asked
    False
    >>> stop.ask()
    >>> stop.asked
    True
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        """Begin no new step."""
        self.asked = True


@contextmanager
def on_signals(stop: Stop, tell: Callable[[str], None]) -> Iterator[None]:
    """SIGINT and SIGTERM ask `stop`; a second one raises KeyboardInterrupt where the program is.

    Args:
        stop: asked by the first signal.
        tell: gets one line for people.

    Only the main thread of a process may use it; the handlers that were there come back at the end.
    """

    def heard(_number: int, _frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.ask()
        tell(
            "finishing this step, then saving; again to stop at once (work since the last checkpoint is lost)"
        )

    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
