"""The data set is written by as many processes as there are cores, in the bytes of one."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import Silent, digests, question, recipe, run, write_pool
from videop2r_data.builders import export, writing
from videop2r_data.builders.run import Result, Tally
from videop2r_data.builders.steps import Steps
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.schemas import BuildLock, Recipe, Sample

pytestmark = pytest.mark.integration
ROWS = 40
JUDGES = [
    {"name": "blind", "decides": "blind", "does": "record", "prompt": "blind-v1"},
    {"name": "enough", "decides": "sufficiency", "does": "filter", "prompt": "judge-v1"},
]


def script(call: Call) -> Reply | None:
    """Question 7 is refused, 9 gets no answer."""
    if "shape 7?" in call.prompt:
        return Reply(status=400)
    return Reply(status=500) if "shape 9?" in call.prompt else None


def answer(call: Call) -> str:
    """Some traces are malformed."""
    return "no trace" if "shape 11?" in call.prompt or "shape 31?" in call.prompt else default_answer(call)


class Built:
    """A finished build, and what writes its data set again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        rows = [question(i) for i in range(ROWS)]
        rows[20], rows[30] = question(20, problem_id=3), rows[2]
        rows[25] = question(25, problem_type="?")
        write_pool(folder, rows)
        self.folder = folder
        self.recipe: Recipe

        def make(server: FakeServer) -> Recipe:
            backend = {"kind": "openai", "base_url": server.url, "model": "j"}
            if judges := settings.pop("judges", None):
                made = recipe(server).model_dump(mode="json") | {"judge": None}
                made["judges"] = [one | {"backend": backend} for one in judges]
                self.recipe = Recipe.model_validate(made)
            else:
                self.recipe = recipe(server, **settings)
            return self.recipe

        run(folder, make, script=script, answer=answer)

    async def write(self, name: str, observer: Any = None) -> BuildLock:
        place = Workspace.at(self.folder / "set", base=self.folder)
        out, watch = self.folder / name, observer or Silent()
        return await export.write_dataset(
            self.recipe, place, card=write_dataset_card, observer=watch, out=out
        )

    def same(self, name: str = "here") -> bool:
        """Whether what was written is what the build wrote, row by row in its own process."""
        return digests(self.folder / name) == digests(self.folder / "set")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on a few questions are worth processes; two of them, on any machine."""

    def begin() -> None:
        monkeypatch.setattr(export, "ALONE", 1)
        monkeypatch.setattr(export, "CHUNK", 4)
        monkeypatch.setattr(writing, "default_workers", lambda: 2)

    return begin


@pytest.mark.parametrize("settings", [{}, {"judges": JUDGES}, {"target": 17}, {"target": 1}], ids=str)
def test_the_bytes_are_those_of_one_process(
    tmp_path: Path, small: Callable[[], None], settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(tmp_path, **settings)
    small()
    tallies: list[tuple[int, ...]] = []
    here, run_here = 0, Steps.run

    async def counted(self: Steps, sample: Sample) -> Result:
        nonlocal here
        here += 1
        return await run_here(self, sample)

    monkeypatch.setattr(Steps, "run", counted)

    class Watch(Silent):
        def step(self, tally: Tally, parts: object) -> None:
            tallies.append((tally.rows, tally.kept, tally.rejected, tally.failed))

    lock = asyncio.run(built.write("here", Watch()))
    assert built.same()
    ledger = lock.ledger
    assert tallies[-1] == (ledger.rows_in, ledger.kept, ledger.rejected, ledger.failed)
    assert ledger.rows_in + ledger.surplus == ROWS
    assert here <= (export.CHUNK if settings.get("target") else 0), "the others were replayed by processes"


def children() -> set[int]:
    """Processes of this one that are alive."""
    found = {
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in told(task / "children").split()
    }
    return {pid for pid in found if "spawn_main" in told(Path(f"/proc/{pid}/cmdline"))}


def told(file: Path) -> str:
    """What `/proc` says; nothing of a thread or a process that ended since it was listed."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_process_that_dies_costs_nothing_but_time_and_is_told(
    tmp_path: Path, small: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, killed = Built(tmp_path), list[int]()
    small()
    monkeypatch.setattr(export, "CHUNK", 1)  # most chunks are still to be made when the process dies

    class Watch(Silent):
        def step(self, tally: Tally, parts: object) -> None:
            if not killed:
                killed.append(children().pop())
                os.kill(killed[0], signal.SIGKILL)

    watch = Watch()
    asyncio.run(built.write("here", watch))
    assert built.same() and not children()
    (words,) = watch.waits
    assert words.startswith("a process that makes rows failed, the others are made by this one")


@pytest.mark.parametrize("python", ["/bin/false", "/bin/echo", "/no/python"])
def test_where_no_process_starts_the_rows_are_made_here(
    tmp_path: Path, small: Callable[[], None], python: str
) -> None:
    built, watch = Built(tmp_path), Silent()
    small()
    multiprocessing.set_executable(python)
    try:
        asyncio.run(built.write("here", watch))
    finally:
        multiprocessing.set_executable(sys.executable)
    assert built.same() and not children() and len(watch.waits) == 1


@pytest.mark.parametrize("place", [0, 1])
def test_a_process_whose_pipes_are_closed_while_it_starts_costs_no_row(
    tmp_path: Path, small: Callable[[], None], monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """As it happens where the one before dies at once: the pool closes what it shares with the next."""
    built, started = Built(tmp_path), list[str]()
    small()
    spawn = multiprocessing.util.spawnv_passfds

    def spawned(path: bytes, args: list[str], passfds: list[int]) -> int:
        if "--multiprocessing-fork" in map(str, args):
            started.append("one")
            if len(started) == place + 1:
                passfds = [*passfds, passfds[0]]  # twice the same, as the closed one is given out again
        return int(spawn(path, args, passfds))

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", spawned)
    asyncio.run(built.write("here", Silent()))
    assert len(started) > place and built.same() and not children()


def test_processes_do_not_run_the_script_that_began_the_build(
    tmp_path: Path, small: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(tmp_path)
    small()
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('this script has no guard')")
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    watch = Silent()
    asyncio.run(built.write("here", watch))
    assert built.same() and not watch.waits


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = """
import multiprocessing, os, signal, threading
from concurrent.futures import ProcessPoolExecutor
from videop2r_data.builders import writing

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), writing.end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    stat = Path("/proc") / str(int(done.stdout)) / "stat"
    deadline = time.monotonic() + 120
    while (state := told(stat)) and state.rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "it outlives its parent"
        time.sleep(0.05)


def test_a_write_that_is_stopped_leaves_no_process_and_no_folder(
    tmp_path: Path, small: Callable[[], None]
) -> None:
    built = Built(tmp_path)
    small()

    async def stopped() -> None:
        seen = asyncio.Event()

        class Watch(Silent):
            def step(self, tally: Tally, parts: object) -> None:
                seen.set()

        writes = asyncio.ensure_future(built.write("here", Watch()))
        await seen.wait()
        assert len(children()) == 2
        writes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writes

    asyncio.run(stopped())
    assert not children() and not (tmp_path / "here").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_journal_of_the_processes_is_the_one_that_is_read_here(
    tmp_path: Path, small: Callable[[], None]
) -> None:
    """An answer that is damaged is missing in every process alike."""
    built = Built(tmp_path)
    small()
    segment = next((tmp_path / "set.build/journal").glob("segment-*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b"Based on the question", b"Based on a questioN", 5))
    lock = asyncio.run(built.write("here"))
    missing = sum(n for reason, n in lock.ledger.reasons.items() if reason.endswith("call_failed"))
    assert missing >= 5
