"""The journal keeps what was finished, whatever happens to its writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends import segments
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.segments import try_lock
from videop2r_data.errors import JournalError
from videop2r_data.schemas import digest

A, B, C = (digest(x) for x in "abc")


def test_finished_calls_come_back(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put_call(A, {"text": "é\n<x>"}, nusd=5)
        journal.put_refused(B, "too long")
        journal.put_media(C, {"n": 1})
        journal.put_media(C, {"n": 2})
        assert journal.call(A) == {"text": "é\n<x>"}
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.call(A) == {"text": "é\n<x>"}
        assert journal.call(B) == {"refused": "too long"}
        assert journal.media(C) == {"n": 2}, "the newest record of a file counts"
        assert journal.call(C) is None
        assert journal.spending.finished_nusd == 5
        assert len(journal) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dead_writers_segment_is_continued_and_its_torn_tail_cut(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put_call(A, {"text": "a"}, nusd=0)
    segment = next(tmp_path.iterdir())
    whole = segment.read_bytes()
    for cut in range(1, len(whole)):
        segment.write_bytes(whole + whole[:cut])
        with Journal(tmp_path) as journal:
            journal.put_call(B, {"text": "b"}, nusd=0)
        with Journal(tmp_path, readonly=True) as journal:
            assert journal.call(A) == {"text": "a"}
            assert journal.call(B) == {"text": "b"}
            assert not journal.damaged
    assert list(tmp_path.iterdir()) == [segment]


@given(st.binary(min_size=1, max_size=60), st.data())
@settings(deadline=None, max_examples=60)
def test_damage_costs_only_the_damaged_lines(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("j")
    keys = [digest(i) for i in range(8)]
    with Journal(folder) as journal:
        for key in keys:
            journal.put_call(key, {"text": key}, nusd=1)
    segment = next(folder.iterdir())
    lines = segment.read_bytes().splitlines(keepends=True)
    hit = data.draw(st.integers(0, 7))
    at = data.draw(st.integers(0, len(lines[hit]) - 2))
    spoilt = lines[hit][:at] + junk.replace(b"\n", b"") + b"\x00" + lines[hit][at + 1 :]
    segment.write_bytes(b"".join([*lines[:hit], spoilt, *lines[hit + 1 :]]))
    with Journal(folder, readonly=True) as journal:
        assert [journal.call(k) is None for k in keys] == [i == hit for i in range(8)]
        assert [d.segment for d in journal.damaged] == [segment.name]


def test_two_writers_get_a_segment_each_and_the_first_answer_counts(tmp_path: Path) -> None:
    with Journal(tmp_path) as one, Journal(tmp_path) as two:
        two.put_call(A, {"text": "two"}, nusd=3)
        one.put_call(A, {"text": "one"}, nusd=2)
    for _ in range(2):
        with Journal(tmp_path, readonly=True) as journal:
            assert journal.call(A) == {"text": "one"}
            assert journal.repeats == 1
            assert journal.spending.finished_nusd == 5, "both were paid"
    assert len(list(tmp_path.iterdir())) == 2


def test_journals_merge_by_copying_segments(tmp_path: Path) -> None:
    for name, key in (("one", A), ("two", B)):
        with Journal(tmp_path / name) as journal:
            journal.put_call(key, {"text": name}, nusd=1)
    for path in (tmp_path / "two").iterdir():
        path.rename(tmp_path / "one" / path.name)
    with Journal(tmp_path / "one") as journal:
        assert journal.call(A) == {"text": "one"} and journal.call(B) == {"text": "two"}
        journal.put_call(C, {"text": "three"}, nusd=1)
        assert journal.call(C) == {"text": "three"}


def test_the_writer_may_own_a_segment_that_is_not_the_last(tmp_path: Path) -> None:
    with Journal(tmp_path) as first:
        first.put_call(A, {"text": "a"}, nusd=0)
        second = Journal(tmp_path)
        second.put_call(B, {"text": "b"}, nusd=0)
    third = Journal(tmp_path)  # takes the first segment over: the second is still held
    third.put_call(C, {"text": "c"}, nusd=0)
    assert third.call(C) == {"text": "c"} and third.call(B) == {"text": "b"}
    third.close()
    second.close()


def test_money_of_lost_calls_is_an_upper_bound(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put_sent(A, nusd=100)
        journal.put_call(A, {}, nusd=60)
        journal.put_sent(B, nusd=100)  # in flight when the process died
        journal.put_sent(C, nusd=100)
        journal.put_void(C, nusd=100)  # the server said 429
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.finished_nusd == 60
        assert journal.spending.open_nusd == 100


_WRITE_FOREVER = """
import sys
from pathlib import Path
from videop2r_data.backends.journal import Journal
from videop2r_data.schemas import digest
journal = Journal(Path(sys.argv[1]))
i = 0
while True:
    journal.put_call(digest(i), {"text": "x" * (i % 5000)}, nusd=1)
    print(i, flush=True)
    i += 1
"""


@pytest.mark.integration
def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged = -1
            for line in process.stdout:
                acknowledged = int(line)
                if acknowledged == 300:
                    os.kill(process.pid, signal.SIGKILL)
        with Journal(tmp_path, readonly=True) as journal:
            assert all(journal.has_call(digest(i)) for i in range(acknowledged + 1))
            assert not journal.damaged


def test_readonly_refuses_to_write_and_a_bad_folder_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path / "none", readonly=True) as journal:
        assert journal.call(A) is None
        with pytest.raises(JournalError, match="reading only"):
            journal.put_call(A, {}, nusd=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="file"):
        Journal(tmp_path / "file")


def test_a_full_disk_stops_with_a_clear_error_and_leaves_no_half_line(tmp_path: Path) -> None:
    import resource

    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from videop2r_data.backends.journal import Journal\nfrom videop2r_data.schemas import digest\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "j = Journal(Path(sys.argv[1]))\n"
        "for i in range(100): j.put_call(digest(i), {'text': 'x' * 300}, nusd=0)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "cannot write" in done.stderr and done.returncode == 1
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == 3 and not journal.damaged


@pytest.mark.parametrize("field", ["key", "kind", "nusd", "data"])
def test_a_changed_digit_anywhere_is_damage(tmp_path: Path, field: str) -> None:
    with Journal(tmp_path) as journal:
        journal.put_call(A, {"n": 1}, nusd=1)
    segment = next(tmp_path.iterdir())
    line = segment.read_text()
    spoilt = {
        "key": line.replace(A, B),
        "kind": line.replace('"call"', '"sent"'),
        "nusd": line.replace('"nusd":1', '"nusd":2'),
        "data": line.replace('"n":1', '"n":2'),
    }[field]
    segment.write_text(spoilt)
    with Journal(tmp_path, readonly=True) as journal:
        assert len(journal) == 0 and len(journal.damaged) == 1 and journal.spending.total_nusd == 0


def _records(folder: Path, *writes: tuple[str, dict[str, object] | None]) -> None:
    with Journal(folder) as journal:
        for key, data in writes:
            if data is None:
                assert journal.withdraw(key)
            else:
                journal.put_call(key, data, nusd=1)


def test_a_withdrawn_answer_is_asked_again_and_the_next_one_counts(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.put_refused(A, "too long")
        journal.put_call(B, {"text": "b"}, nusd=7)
        assert journal.withdraw(A) and not journal.withdraw(C)
        assert journal.call(A) is None and not journal.has_call(A)
    with Journal(tmp_path) as journal:
        assert journal.call(A) is None
        journal.put_refused(A, "too long")  # in the same words: it counts nevertheless
        assert journal.call(A) == {"refused": "too long"} and journal.is_new(A) and not journal.is_new(B)
    with Journal(tmp_path) as journal:
        assert journal.call(A) == {"refused": "too long"} and not journal.is_new(A)
        assert journal.withdraw(A)
        journal.put_call(A, {"text": "a"}, nusd=5)
        assert journal.call(A) == {"text": "a"}
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.call(A) == {"text": "a"} and journal.call(B) == {"text": "b"}
        assert journal.spending.finished_nusd == 12 and not journal.damaged and journal.repeats == 0


def test_what_an_answer_cost_stays_on_the_bill_when_it_is_withdrawn(tmp_path: Path) -> None:
    _records(tmp_path, (A, {"text": ""}), (A, None), (A, {"text": "x"}))
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.spending.finished_nusd == 2 and journal.call(A) == {"text": "x"}


@pytest.mark.parametrize("order", ["012", "021", "102", "120", "201", "210"])
def test_a_merged_journal_reads_the_same_in_every_order_of_its_segments(tmp_path: Path, order: str) -> None:
    """Three machines from one copy: one withdraws and asks again, one only withdraws, one got an answer."""
    first = tmp_path / "first"
    _records(first, (A, {"text": ""}), (B, {"text": "b"}))
    start = next(first.glob("segment-*"))
    machines: list[list[tuple[str, dict[str, object] | None]]] = [
        [(A, None), (A, {"text": "again"})],
        [(A, None)],
        [(A, {"text": "elsewhere"})],
    ]
    lines = []
    for i, writes in enumerate(machines):
        folder = tmp_path / f"machine{i}"
        folder.mkdir()
        (folder / start.name).write_bytes(start.read_bytes())
        _records(folder, *writes)
        lines.append((folder / start.name).read_bytes()[len(start.read_bytes()) :])
    merged = tmp_path / "merged"
    merged.mkdir()
    for place, digit in enumerate(order):
        (merged / f"segment-{place:06d}-x.jsonl").write_bytes(lines[int(digit)])
    (merged / "segment-000009-x.jsonl").write_bytes(start.read_bytes())
    first_one = "again" if order.index("0") < order.index("2") else "elsewhere"
    with Journal(merged, readonly=True) as journal:
        assert journal.call(A) == {"text": first_one}, (
            "an answer that counts is never hidden by the empty one"
        )
        assert journal.call(B) == {"text": "b"} and not journal.damaged


def test_a_file_that_failed_is_looked_at_again_once_withdrawn(tmp_path: Path) -> None:
    failed = {"failed": "decode_memory", "stat": [1, 2]}
    with Journal(tmp_path) as journal:
        journal.put_media(A, failed)
        assert journal.withdraw(A) and journal.media(A) is None
        journal.put_media(A, failed)
        assert journal.media(A) == failed
    with Journal(tmp_path) as journal:
        assert journal.media(A) == failed
        assert journal.withdraw(A)
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.media(A) is None


def test_of_writers_that_begin_at_once_each_gets_a_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rivals: list[Journal] = []

    def lock_late(fd: int) -> bool:
        if not rivals:  # finds the new segment between its making and its locking
            rivals.append(Journal(tmp_path))
        return try_lock(fd)

    monkeypatch.setattr(segments, "lock_soon", lock_late)
    with Journal(tmp_path) as journal, rivals[0] as rival:
        assert journal.segment and rival.segment and journal.segment != rival.segment
        rival.put_call(A, {"text": "a"}, nusd=1)
        journal.put_call(B, {"text": "b"}, nusd=2)
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.has_call(A) and journal.has_call(B) and journal.spending.finished_nusd == 3


def test_what_follows_a_withdrawn_record_counts_however_often_the_file_was_looked_at(tmp_path: Path) -> None:
    killed = {"failed": "decode_killed", "killed": 1, "stat": [1, 2]}
    good = {"record": {"count": 16}, "stat": [1, 2]}
    with Journal(tmp_path) as journal:
        journal.put_media(A, killed)
        journal.put_media(A, killed | {"killed": 2})
        assert journal.withdraw(A)
        journal.put_media(A, good)
        assert journal.media(A) == good
    with Journal(tmp_path) as journal:
        assert journal.media(A) == good
        assert journal.withdraw(A)
        journal.put_media(A, killed)
    with Journal(tmp_path, readonly=True) as journal:
        assert journal.media(A) == killed


def test_a_withdrawal_is_seen_by_a_journal_that_is_open(tmp_path: Path) -> None:
    with Journal(tmp_path) as one:
        one.put_call(A, {"text": ""}, nusd=0)
        with Journal(tmp_path) as two:
            two.withdraw(A)
            two.put_call(A, {"text": "new"}, nusd=0)
            one.refresh()
            assert one.call(A) == {"text": "new"}
