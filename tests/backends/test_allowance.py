"""Several writers of one journal keep one limit, whatever order they work in and whoever is killed."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from videop2r_data.backends import money
from videop2r_data.backends import spending as allowance
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.money import Money
from videop2r_data.backends.segments import FileLock
from videop2r_data.backends.spending import FILE
from videop2r_data.errors import BudgetError, JournalError
from videop2r_data.schemas import digest

STEPS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from("sssscvxko"), st.integers(1, 40)), max_size=60)


def kill(journal: Journal) -> None:
    """End a writer as SIGKILL does: its locks are gone, and it has said nothing."""
    journal.allowance._allowed = None
    journal.close()


COLLECTED = [(0, "s", n) for n in (1, 1, 1, 34)] + [(1, "s", 38), (0, "s", 40), (0, "s", 36)]
"""Process 1 then answers a call that, as far as it has read, was never sent, and takes more money."""


@given(STEPS)
@example([*COLLECTED, (1, "x", 1), (1, "s", 29), (1, "s", 39)])
@settings(deadline=None, max_examples=150)
def test_no_order_of_events_passes_the_limit(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str, int]]
) -> None:
    """Three processes send, answer, void, end, are killed, and collect what another has sent (`x`)."""
    folder, limit = tmp_path_factory.mktemp("j"), 200
    live: dict[int, tuple[Journal, Money]] = {}
    sent: list[tuple[int, str, int]] = []
    for number, (who, what, nusd) in enumerate(steps):
        if who not in live:
            journal = Journal(folder)
            live[who] = journal, Money(journal, limit / 1e9)
        journal, purse = live[who]
        mine = [call for call in sent if call[0] == who or what == "x"]
        if what == "s":
            try:
                purse.send(digest(number), nusd)
            except BudgetError:
                pass
            else:
                sent.append((who, digest(number), nusd))
        elif what in "cvx" and mine:
            call = mine[-1]
            sent.remove(call)
            if what == "v":
                purse.void(call[1], call[2])
            else:
                journal.put_call(call[1], {"text": ""}, nusd=call[2] // 2)
        elif what in "ko":
            (kill if what == "k" else Journal.close)(journal)
            del live[who]
        with Journal(folder, readonly=True) as seen:
            assert seen.spending.total_nusd <= limit
    for journal, _ in live.values():
        journal.close()
    with Journal(folder) as journal:
        left = limit - journal.spending.total_nusd
        if left:
            Money(journal, limit / 1e9).send(digest("last"), left)  # all that was not spent can be
        with pytest.raises(BudgetError):
            Money(journal, limit / 1e9).send(digest("more"), 1)


SPENDER = """
import asyncio, random, sys
from pathlib import Path
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.money import Money
from videop2r_data.errors import BudgetError
from videop2r_data.schemas import digest

async def main(folder, name):
    rng = random.Random(name)
    with Journal(Path(folder)) as journal:
        purse = Money(journal, 4e-5)  # 40,000
        async def worker(number):
            for i in range(10_000):
                key = digest([name, number, i])
                try:
                    async with purse.call(key, 10):
                        await asyncio.sleep(0.001)
                except BudgetError:
                    return
                journal.put_call(key, {"text": ""}, nusd=rng.choice([1, 2, 10]))
                purse.rest()
        print("ready", flush=True)
        await asyncio.gather(*(worker(i) for i in range(4)))
        if name.startswith("first"):  # on a busy machine the money may be gone before it is killed
            await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.timeout(900)
def test_processes_that_run_and_are_killed_together_spend_the_limit_and_no_more(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SPENDER, str(tmp_path), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    rng = random.Random(5)
    running = [start(f"first-{i}") for i in range(3)]
    for number in range(3):
        time.sleep(rng.uniform(0.01, 0.1))
        running[number].send_signal(signal.SIGKILL)
        running.append(start(f"again-{number}"))
    for process in running:
        process.communicate()
    assert [process.returncode for process in running] == [-signal.SIGKILL] * 3 + [0] * 3
    with Journal(tmp_path, readonly=True) as journal:
        # what is left is less than the next call may cost, although the killed had taken money ahead
        assert 39_990 < journal.spending.total_nusd <= 40_000
        assert journal.spending.open_nusd <= 3 * 4 * 10


def test_money_of_another_process_is_waited_for_and_then_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(money, "LOOK_AGAIN_S", 0.01)

    async def main() -> None:
        with Journal(tmp_path) as one, Journal(tmp_path) as two:
            first, second = Money(one, 1e-7), Money(two, 1e-7)  # 100
            async with first.call(digest("a"), 80):

                async def waits() -> None:
                    async with second.call(digest("b"), 60):
                        one_more.append(True)

                one_more: list[bool] = []
                waiting = asyncio.create_task(waits())
                await asyncio.sleep(0.05)
                assert not one_more and not waiting.done()
            one.put_call(digest("a"), {"text": ""}, nusd=10)
            first.rest()
            await waiting
            two.put_call(digest("b"), {"text": ""}, nusd=10)
            second.rest()
            monkeypatch.setattr(money, "PATIENCE_S", 0.03)
            async with first.call(digest("c"), 30):
                with pytest.raises(BudgetError, match="held by other processes"):
                    async with second.call(digest("d"), 60):
                        pass

    asyncio.run(main())


def test_who_has_no_limit_is_seen_by_who_has_one(tmp_path: Path) -> None:
    with Journal(tmp_path) as free, Journal(tmp_path) as limited:
        Money(free, None).send(digest("a"), 50)
        with pytest.raises(BudgetError, match="held by other processes"):
            Money(limited, 1e-7).send(digest("b"), 60)
        free.allowance.give_back()
        Money(limited, 1e-7).send(digest("b"), 50)


def test_a_torn_file_of_allowances_counts_as_before_it_was_torn(tmp_path: Path) -> None:
    with Journal(tmp_path) as one, Journal(tmp_path) as two:
        Money(one, None).send(digest("a"), 1)
        Money(two, None).send(digest("b"), 2)
        before = (tmp_path / FILE).read_bytes()
        Money(one, None).send(digest("c"), 1000)
        after = bytearray((tmp_path / FILE).read_bytes())
        (place,) = {
            0 if i < 1 << 20 else 1 << 20
            for i, (x, y) in enumerate(zip(before, after, strict=False))
            if x != y
        }
        after[place + 60 :] = before[place + 60 :]
        (tmp_path / FILE).write_bytes(after)
        with one.allowance._open() as held:
            assert held.keys() == {one.segment, two.segment}
            assert held[one.segment].allowed < 1000
    (tmp_path / FILE).write_bytes(b"rubbish " * 1000)
    with Journal(tmp_path) as one:
        Money(one, None).send(digest("d"), 1)


def test_a_process_that_is_stopped_with_the_file_in_its_hands_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowance, "LOCK_S", 0.02)
    with Journal(tmp_path) as journal:
        held = FileLock.take(tmp_path / FILE)
        assert held is not None
        with pytest.raises(JournalError, match="cannot agree with other processes about money"):
            Money(journal, 1.0).send(digest("a"), 1)
        held.release()
        Money(journal, 1.0).send(digest("a"), 1)
