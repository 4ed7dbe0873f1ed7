"""Settings of the whole suite."""

from __future__ import annotations

import signal

collect_ignore = ["trainer/new_objective.py"]
"""A program that a test starts: it changes the table of objectives for good, and doctest imports what it collects."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background with SIGINT ignored, and children would inherit that: the tests of
    # Ctrl-C then test nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
