"""News of a run: what the file says, what several shares add up to, and who is alive."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.test_hostile_output import EVIL, STEERING
from videop2r_data.builders import Shard, Tally, add_up, in_words, read_news
from videop2r_data.builders import news as news_module
from videop2r_data.builders.news import OLD_S, Observer, Progress
from videop2r_data.builders.run import Done, Result
from videop2r_data.builders.workspace import take_lease_now
from videop2r_data.errors import BackendError
from videop2r_data.schemas import DataType, Outcome, ProblemType, Sample

RUN = Progress(
    at=time.time(),
    phase="calls",
    total=260_000,
    counts={"kept": 100_247, "rejected": 23_206, "failed": 3, "waiting": 0},
    spent_usd=3.25,
    limit_usd=50.0,
    per_min={"rows": 312.4, "generate": 300.0},
    left_s=26_000.0,
    made={"generate": 130_000, "judge": 120_000},
    reasons={"judge/insufficient": 20_000, "pool/bad_row": 3_206},
)


def write(work: Path, name: str, **known: Any) -> None:
    work.mkdir(parents=True, exist_ok=True)
    (work / name).write_text(Progress(**known).model_dump_json())


def test_a_run_in_one_line() -> None:
    words = "calls: 123,456/260,000, kept 81.2%, failed 3, 312/min, 7:13:20 left, $3.25 of $50.00"
    assert in_words(RUN) == words
    assert in_words(Progress()) == "starting: 0" and "answered 81.2%" in in_words(RUN, "answered")


def test_shares_are_added_up() -> None:
    one = RUN.model_copy(update={"lease": "share-1-of-2", "left_s": None})
    two = one.model_copy(
        update={"lease": "share-2-of-2", "left_s": 9.0, "spent_usd": 4.0, "reasons": {"a": 1}}
    )
    two.counts = {"kept": 1, "rejected": 0, "failed": 0, "waiting": 0}
    both = add_up([one, two])
    assert (both.total, both.left_s, both.state) == (520_000, 9.0, "running")
    assert both.counts == {"kept": 100_248, "rejected": 23_206, "failed": 3, "waiting": 0}
    assert both.reasons == one.reasons | {"a": 1} and both.per_min["rows"] == 624.8
    assert both.spent_usd == 4.0, "each knows the money of all, one of them best"
    assert add_up([one, two.model_copy(update={"state": "killed"})]).state == "killed, running"
    assert add_up([RUN]) == RUN


def test_old_news_of_a_process_without_its_lock_is_that_of_a_killed_one(tmp_path: Path) -> None:
    def states() -> list[str]:
        return [one.state for one in read_news(tmp_path)]

    now = time.time()
    write(tmp_path, "progress-build.json", at=now + 600, left_s=3.0)  # fresh however long this test takes
    assert states() == ["running"], "fresh news needs no look at a lock"
    write(tmp_path, "progress-build.json", at=now - 2 * OLD_S, left_s=3.0)
    assert states() == ["killed"] and read_news(tmp_path)[0].left_s is None
    with take_lease_now(tmp_path, "a build"):
        assert states() == ["stopped or busy"]
    write(tmp_path, "progress-build.json", at=now - 1e6, state="complete")
    assert states() == ["complete"]


def test_only_shares_of_the_last_way_to_share_count(tmp_path: Path) -> None:
    for at, lease in enumerate(["build", "share-1-of-12", "share-1-of-2", "share-2-of-2"]):
        write(tmp_path, f"progress-{lease}.json", at=at, lease=lease, state="complete")
    assert [one.lease for one in read_news(tmp_path)] == ["share-1-of-2", "share-2-of-2"]
    write(tmp_path, "progress-build.json", at=9, state="complete")
    assert [one.lease for one in read_news(tmp_path)] == ["build"]


HOSTILE = [
    "",
    "[]",
    "{",
    '{"version": 2}',
    '{"total": "many"}',
    '{"spent_usd": NaN}',
    '{"at": 1e300}',
    "\x00",
]
HOSTILE += ['{"lease": "../../x"}', '{"counts": {"kept": -1}}', '{"left_s": 1e300}', "[" * 100_000]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_news_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "progress-build.json").write_text(text)
    assert read_news(tmp_path) == [] and read_news(tmp_path / "none") == []


@given(st.text(), st.text())
def test_words_that_were_read_steer_nothing(one: str, two: str) -> None:
    words = {"phase": one + EVIL, "waits_for": two + EVIL, "reasons": {one + EVIL: 3}, "state": EVIL + two}
    found = Progress.model_validate_json(RUN.model_copy(update=words).model_dump_json())
    said = [found.phase, found.waits_for, found.state, *found.reasons, in_words(found)]
    assert all(STEERING.search(text) is None and len(text.splitlines()) <= 1 for text in said)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (BackendError("no \x1b[2J\nkey \ud800", where="pool.json, row 3"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_how_a_run_ended_is_its_last_news(tmp_path: Path, error: BaseException, state: str) -> None:
    async def run() -> None:
        observer = Observer()
        with observer.in_file(tmp_path, Shard(2, 8)):
            observer.wait("the judge server cannot be reached")
            raise error

    with pytest.raises(type(error)):
        asyncio.run(run())
    (last,) = read_news(tmp_path)
    assert (last.state, last.lease, last.waits_for) == (state, "share-2-of-8", ""), "it waits no more"
    assert "\x1b" not in last.last_error and "\n" not in last.last_error
    assert last.last_error.startswith("pool.json, row 3: no" if state == "failed" else "KeyboardInterrupt")
    assert [path.name for path in tmp_path.iterdir()] == ["progress-share-2-of-8.json"]


def test_a_full_disk_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one write of its news succeeds; the run goes on between them, and to its end."""
    monkeypatch.setattr(news_module, "EVERY_S", 0.0)
    tries, went_on, write_text = list[str](), set[int](), Path.write_text

    def full(path: Path, *_: Any, **__: Any) -> int:
        tries.append(path.name)
        write_text(path, "")  # a name has room where its content has none
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    async def run() -> str:
        with Observer().in_file(tmp_path, None):
            async with asyncio.timeout(60):
                while len(tries) < 3:
                    went_on.add(len(tries))
                    await asyncio.sleep(0)
        return "done"

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        assert asyncio.run(run()) == "done"
    assert went_on == {0, 1, 2} and tries == ["progress-build.part"] * 4
    assert read_news(tmp_path) == [], "nothing that was cut off is taken for news"


def test_rows_that_earlier_runs_finished_take_no_place_on_the_page_of_this_one() -> None:
    sample = Sample(
        sample_id="s",
        problem_id="p",
        problem="What?",
        solution="A",
        data_type=DataType.TEXT,
        problem_type=ProblemType.OCR,
        source="pool",
        row=0,
    )
    tally = Tally()
    for outcome in (Outcome.KEPT, Outcome.REJECTED):
        for item in [Done(outcome, None, None)] * 60 + [Result(sample, outcome)] * 60:
            tally.add(item)
    assert (tally.kept, tally.rejected) == (120, 120)
    assert [one.outcome for one in tally.first] == [Outcome.KEPT] * 50 + [Outcome.REJECTED] * 50


def test_a_rate_is_of_the_last_minute_and_a_pass_starts_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("videop2r_data.builders.news.time.monotonic", lambda: clock[0])

    class Parts:
        class journal:
            readonly = True

    news, parts = Observer(), Parts()
    parts_: Any = parts
    news.begin("calls", 100)
    clock[0] += 60
    news.step(Tally(rows=30, kept=15), parts_)
    assert (found := news.now()).per_min["rows"] == 30 and found.left_s == pytest.approx(140)
    clock[0] += 60
    news.step(Tally(rows=90, kept=45), parts_)
    assert news.now().per_min["rows"] == 60, "of the last minute, not of the whole pass"
    news.begin("calls", 100)
    clock[0] += 30
    news.step(Tally(rows=10), parts_)
    assert news.now().per_min["rows"] == 20
