"""Settings of the whole suite."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import s3  # noqa: F401 - a fixture of several tests

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # Threads of the workers beside each other only wait for each other: the models here are tiny.
    os.environ.setdefault(threads, "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what it puts in the background with SIGINT ignored, and children would inherit that: the tests of
    # Ctrl-C then test nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_process_unless_asked() -> Iterator[None]:
    """A build or a verification in a test's own process starts one helper, or none, where the test says no number.

    Each costs a second to start, and there is one per core by default. Commands in processes of their own have the
    default.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("videop2r_data.builders.verify.run.default_workers", lambda: 1)
        patch.setattr("videop2r_data.media.pool._cores", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def the_priority_stays() -> Iterator[None]:
    """A test that leaves its process another priority would slow or starve whatever runs after it."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    yield
    after = os.sched_getscheduler(0), os.sched_getparam(0)
    if after != before:
        os.sched_setscheduler(0, *before)
    assert after == before, "the test has changed the scheduling of its process: see clips.ordinary_priority"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctest would import every helper here, among them programs that change tables for good."""
    if collection_path.suffix == ".py" and not collection_path.name.startswith(("test_", "__init__")):
        return True
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()
