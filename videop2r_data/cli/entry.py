"""Start `p2r-data` or `p2r-train`; Ctrl-C ends them without a traceback from the first moment.

A KeyboardInterrupt raised inside an import may be swallowed, or come out as an ImportError of the library
being loaded. So Ctrl-C during an import, or before a command has begun its work, ends the process at once.
Nothing is lost: the journal survives a power cut. At any other time Ctrl-C is a KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
from importlib import import_module
from types import FrameType

STOPPED = 3
"""Exit code: the same command may be run again."""
_WORDS = b"error: stopped\n  what was finished is kept: the same command goes on\n"


class _State:
    begun = False


def data() -> None:
    """`p2r-data`."""
    _open("main")


def train() -> None:
    """`p2r-train`."""
    _open("train")


def begun() -> None:
    """Say that the command begins its work: from here on Ctrl-C is a KeyboardInterrupt."""
    _State.begun = True


def _open(program: str) -> None:
    # a program that was started with Ctrl-C switched off (nohup, a shell's background job) keeps it so
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _heard)
    import_module(f"videop2r_data.cli.{program}").run()


def _heard(_number: int, frame: FrameType | None) -> None:
    if _State.begun and not _importing(frame):
        raise KeyboardInterrupt
    os.write(2, _WORDS)
    os._exit(STOPPED)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
