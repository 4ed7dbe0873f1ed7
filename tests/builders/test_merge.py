"""Journals put together: everything once, whatever names the segments have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from videop2r_data.backends import Journal
from videop2r_data.builders import MergeReport, merge
from videop2r_data.builders.workspace import take_lease_now
from videop2r_data.errors import BusyError, ConfigError

KEY = "{:064x}".format


def paid(folder: Path, *numbers: int, words: str = "said") -> Path:
    """A work folder whose journal has these calls."""
    with Journal(folder / "journal") as journal:
        for number in numbers:
            journal.put_call(KEY(number), {"text": f"{words} {number}"}, nusd=1)
    return folder


def run(into: object, *sources: object) -> MergeReport:
    return asyncio.run(merge(str(into), list(map(str, sources)), tell=lambda _: None))


def test_nothing_is_copied_twice_and_what_a_journal_gained_is_copied(tmp_path: Path) -> None:
    a, b, into = paid(tmp_path / "a", 1, 2), paid(tmp_path / "b", 3), tmp_path / "into"
    first = run(into, a, b)
    assert (first.copied, first.answers) == (2, 3)
    assert run(into, a, b / "journal").copied == 0
    paid(into, 6)  # goes on in a segment that was copied
    for more in (4, 5):
        paid(a, more)
        assert run(into, a).copied == 1
    last = run(into, b, a)
    assert (last.copied, last.answers, last.repeats, last.damaged) == (0, 6, 0, 0)
    assert run(a, into).answers == 6 and run(into, a).copied == 0  # and back


def test_what_counted_counts_and_what_was_paid_twice_is_told(tmp_path: Path) -> None:
    into, a = paid(tmp_path / "into", 1), paid(tmp_path / "a", 2)
    b = paid(tmp_path / "b", 1, 2)  # word by word what the others were told: paid all the same
    c = paid(tmp_path / "c", 1, words="other")
    for path in (c / "journal").glob("segment-*"):
        path.rename(path.with_name("segment-000000.jsonl"))  # a name before all others
    assert run(into, a, b, c).repeats == 3
    with Journal(into / "journal", readonly=True) as journal:
        assert journal.call(KEY(1)) == {"text": "said 1"}
        assert journal.spending.total_nusd == 5


def test_a_call_that_went_out_again_between_two_merges_stays_on_the_bill(tmp_path: Path) -> None:
    """Its first try may have been billed; both tries are told in the same words."""
    a, into = tmp_path / "a", tmp_path / "into"
    for answer in (None, {"text": "said"}):
        with Journal(a / "journal") as journal:
            journal.put_sent(KEY(1), nusd=5)
            if answer is not None:
                journal.put_call(KEY(1), answer, nusd=3)
            total = journal.spending.total_nusd
        assert run(into, a).copied == 1
    with Journal(into / "journal", readonly=True) as journal:
        assert journal.spending.total_nusd == total == 5 + 3
    assert run(into, a).copied == 0


def test_a_torn_tail_stays_behind(tmp_path: Path) -> None:
    a = paid(tmp_path / "a", 1)
    (path,) = (a / "journal").glob("segment-*")
    path.write_bytes(path.read_bytes() + b'{"key":"0')
    found = run(tmp_path / "into", a)
    assert (found.answers, found.damaged) == (1, 0)


def test_stores_are_merged_as_folders_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    a, b = paid(tmp_path / "a", 1, 2), paid(tmp_path / "b", 3)
    url = f"file://{tmp_path}/store"
    assert run(url, a, b).answers == 3
    assert run(url, b).copied == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert run(url, b, paid(tmp_path / "c", 4)).copied == 1
    into = run(tmp_path / "into", url)
    assert (into.answers, into.repeats) == (4, 0)


def test_no_journal_and_a_busy_folder_are_errors(tmp_path: Path) -> None:
    a = paid(tmp_path / "a", 1)
    with pytest.raises(ConfigError, match="there is no journal here"):
        run(tmp_path / "into", a, tmp_path / "typo")
    assert not (tmp_path / "into").exists()
    assert run(a, a).copied == 0
    with take_lease_now(a, "a build"), pytest.raises(BusyError):
        run(a, paid(tmp_path / "b", 2))
