"""The rows of a large pool on all cores: processes replay chunks of it, each over the journal for itself."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from videop2r_data.backends import Journal
from videop2r_data.builders.run import Portion, Replay, Tally
from videop2r_data.builders.steps import Parts
from videop2r_data.builders.verify.run import default_workers
from videop2r_data.builders.workspace import Workspace
from videop2r_data.schemas import BadRow, Recipe, Sample

AHEAD = 3
"""Chunks for each process that are read before the first of them is written."""
MOST = 16
"""Processes at most: more would wait for the one that reads and writes."""
_FAILED = (BrokenProcessPool, MemoryError, OSError, ValueError)
"""ValueError: where one process dies while the next starts, the pool closes the pipes of that one."""

Items = list[Sample | BadRow]


async def made_in_processes(
    parts: Parts, chunks: Iterable[Items], tally: Tally
) -> AsyncIterator[tuple[Items, Portion | None]]:
    """Each chunk of a pool, in order, and what it came to; None: its process failed, or enough are accepted.

    Args:
        parts: of the build; `parts.tell` is told when a process has failed.
        tally: what was written of the pool until now.
    """
    place, count = parts.place, min(MOST, default_workers())
    folders = place.out, place.work, place.base.resolve()
    # spawned, never forked: Arrow has threads, and a fork of a threaded process can hang
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(count, context, _begin, (parts.recipe.model_dump_json(), folders))
    tell = parts.tell
    under_way: deque[tuple[Items, asyncio.Task[Portion | None]]] = deque()

    async def make(items: Items) -> Portion | None:
        """What a chunk came to in a process; None: that failed (told once), or enough are accepted."""
        nonlocal tell
        if parts.recipe.target is not None and tally.kept >= parts.recipe.target:
            return None
        try:
            return await asyncio.wrap_future(executor.submit(_make, items))
        except _FAILED as error:
            if tell is not None:
                tell(f"a process that makes rows failed, the others are made by this one: {error}")
            tell = None
            return None

    try:
        with _apart(), suppress(*_FAILED):
            for _ in range(count):
                executor.submit(os.getpid)
        for items in chunks:
            under_way.append((items, asyncio.create_task(make(items))))
            if len(under_way) > AHEAD * count:
                yield under_way[0][0], await under_way[0][1]
                under_way.popleft()
        for items, task in under_way:
            yield items, await task
    finally:
        for _, task in under_way:
            task.cancel()
        executor.shutdown(cancel_futures=True)


@contextmanager
def _apart() -> Iterator[None]:
    """Processes that start meanwhile hear no Ctrl-C, and do not import the script, which may begin one."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sys.modules["__main__"] = main


# The process.


_state: tuple[asyncio.Runner, Replay] | None = None


def _begin(recipe: str, folders: tuple[Path, Path, Path]) -> None:
    global _state  # noqa: PLW0603 - one per process, set once at its start
    end_with_parent()
    place = Workspace(*folders)
    journal = Journal(place.journal, readonly=True)
    parts = Parts(Recipe.model_validate_json(recipe), place, journal, live=False)
    _state = asyncio.Runner(), Replay(parts)


def end_with_parent() -> None:
    """A parent that is killed closes no queue: its processes would wait for ever."""

    def end() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _make(items: Items) -> Portion:
    assert _state is not None
    runner, replay = _state
    return runner.run(replay.make(items))
