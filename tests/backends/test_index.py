"""The index beside a segment saves time and changes nothing: what does not fit the segment is not believed."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.backends import journal, segments
from videop2r_data.backends.journal import Damage, Journal
from videop2r_data.schemas import digest

KEYS = [digest(i) for i in range(12)]
FILES = [digest(["file", i]) for i in range(5)]
BLOCK = 4


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few records, for journals of any length."""
    monkeypatch.setattr(segments, "BLOCK", BLOCK)


def without_index(folder: Path, to: Path, *, readonly: bool = True) -> Journal:
    """The same segments, read line by line."""
    to.mkdir(parents=True)
    for path in folder.glob("segment-*.jsonl"):
        shutil.copyfile(path, to / path.name)
    return Journal(to, readonly=readonly)


def state(opened: Journal) -> dict[str, Any]:
    """All that a journal says."""
    names = sorted(path.name for path in opened.folder.glob("segment-*.jsonl"))
    return {
        "calls": [(opened.call(key), opened.has_call(key)) for key in KEYS],
        "done": [opened.done(bytes.fromhex(key)) for key in KEYS],
        "media": [opened.media(key) for key in FILES],
        "length": len(opened),
        "repeats": opened.repeats,
        "damaged": opened.damaged,
        "batches": opened.batch_events(),
        "spent": [opened.spent_by(name) for name in names],
        "money": (opened.spending.finished_nusd, opened.spending.open_nusd, opened.lost_nusd()),
    }


def write(opened: Journal, rng: random.Random, records: int) -> None:
    """What runs write, in any order."""
    for n in range(records):
        key, file = rng.choice(KEYS), rng.choice(FILES)
        text = {"text": f"{n}\n"}
        do: list[Callable[[], object]] = [
            partial(opened.put_sent, key, nusd=rng.randint(1, 9)),
            partial(opened.put_call, key, text, nusd=0),
            partial(opened.put_call, key, text, nusd=5),
            partial(opened.put_void, key, nusd=3),
            partial(opened.put_refused, key, "no"),
            partial(opened.put_media, file, {"n": n}),
            partial(opened.withdraw, key),
            partial(opened.withdraw, file),
            partial(opened.append_batch_event, {"event": n}),
            partial(opened.put_done, bytes.fromhex(key), n),
        ]
        rng.choice(do)()


def spoil(folder: Path, rng: random.Random) -> None:
    """What disks, people and other programs do to a segment or its index."""
    segments = sorted(folder.glob("segment-*.jsonl"))
    indexes = sorted(folder.glob("segment-*.idx"))
    path = rng.choice(segments + indexes)
    data = bytearray(path.read_bytes())
    what = rng.choice(("nothing", "byte", "cut", "grown", "other", "twice", "gone"))
    if what == "byte" and data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif what == "cut" and data:
        del data[rng.randrange(len(data)) :]
    elif what == "grown":
        data += rng.choice((b"junk\n", b"{", data[: len(data) // 2]))
    elif what == "other" and indexes:
        path, data = rng.choice(indexes), bytearray(rng.choice(indexes).read_bytes())
    elif what == "twice" and path.suffix == ".idx":
        data += bytes(data)
    elif what == "gone" and path.suffix == ".idx":
        path.unlink()
        return
    path.write_bytes(data)


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_a_journal_says_the_same_with_and_without_indexes(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    top = tmp_path_factory.mktemp("j")
    folder = top / "indexed"
    for _ in range(rng.randint(1, 3)):
        with Journal(folder) as one, Journal(folder) as two:
            write(one, rng, rng.randint(0, 25))
            write(two, rng, rng.randint(0, 25))
        spoil(folder, rng)
    with Journal(folder, readonly=True) as found, without_index(folder, top / "plain") as plain:
        assert state(found) == state(plain)
    seed = rng.random()
    with Journal(folder) as found, without_index(folder, top / "again", readonly=False) as plain:
        for opened in (found, plain):
            write(opened, random.Random(seed), 12)
        assert state(found) == state(plain)
    with Journal(folder, readonly=True) as found, without_index(folder, top / "last") as plain:
        assert state(found) == state(plain)


def lines_read(folder: Path, monkeypatch: pytest.MonkeyPatch, *, readonly: bool = True) -> int:
    """How many lines had to be read to open a journal."""
    count = 0
    check = journal._checksum

    def counted(*record: Any) -> int:
        nonlocal count
        count += 1
        return check(*record)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_checksum", counted)
        Journal(folder, readonly=readonly).close()
    return count


def test_what_a_killed_writer_indexed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Journal(tmp_path)
    for key in KEYS[:10]:
        opened.put_call(key, {"text": key}, nusd=1)
    assert lines_read(tmp_path, monkeypatch) == 10 % BLOCK, "also while it is written"
    opened.close()
    assert lines_read(tmp_path, monkeypatch) == 10 % BLOCK
    with Journal(tmp_path) as opened:
        for key in KEYS[10:]:
            opened.put_call(key, {"text": key}, nusd=1)
    assert lines_read(tmp_path, monkeypatch) == 0, "the next writer made a block of the rest and its own"


def test_an_index_is_made_anew_by_the_next_run_but_not_while_another_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path) as first, Journal(tmp_path) as second:
        for key in KEYS[:8]:
            first.put_call(key, {"text": key}, nusd=0)
            second.put_call(key, {"text": key}, nusd=0)
    one, two = sorted(tmp_path.glob("*.idx"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:-1])
    with Journal(tmp_path) as holder:
        assert holder.segment == two.with_suffix(".jsonl").name
        other = lines_read(tmp_path, monkeypatch)
    assert other == 0, "the run that found no good index made both anew"
    damaged = one.with_suffix(".jsonl")
    damaged.write_bytes(damaged.read_bytes().replace(b'"nusd":0', b'"nusd":7', 1))
    with Journal(tmp_path, readonly=True) as opened:
        assert len(opened.damaged) == 1
    assert lines_read(tmp_path, monkeypatch, readonly=False) == 8
    assert lines_read(tmp_path, monkeypatch) == 8, "no index is about a damaged line: every run tells it"
    with Journal(tmp_path, readonly=True) as opened:
        assert opened.damaged == [Damage(damaged.name, 0, "checksum")]
        assert opened.spending.finished_nusd == 0


def test_what_is_appended_behind_a_torn_block_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path) as opened:
        for key in KEYS[:BLOCK]:
            opened.put_call(key, {"text": key}, nusd=0)
    (torn,) = tmp_path.glob("*.idx")
    torn.write_bytes(torn.read_bytes() + torn.read_bytes()[:-5])
    with Journal(tmp_path) as opened:
        for key in KEYS[BLOCK : 2 * BLOCK]:
            opened.put_call(key, {"text": key}, nusd=0)
    assert lines_read(tmp_path, monkeypatch) == 0


def test_the_index_of_another_segment_and_of_one_that_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, keys in (("a", KEYS[:8]), ("b", KEYS[4:])):
        with Journal(tmp_path / name) as opened:
            for key in keys:
                opened.put_call(key, {"text": f"{name} {key}"}, nusd=0)
    (a,), (b,) = (list((tmp_path / name).glob("*.idx")) for name in "ab")
    shutil.copyfile(b, a)
    with Journal(tmp_path / "a", readonly=True) as opened:
        assert [opened.has_call(key) for key in KEYS] == [True] * 8 + [False] * 4
        assert opened.call(KEYS[4]) == {"text": f"a {KEYS[4]}"}
    grown = b.with_suffix(".jsonl")
    grown.write_bytes(grown.read_bytes() + a.with_suffix(".jsonl").read_bytes())
    assert lines_read(tmp_path / "b", monkeypatch) == 8, "what was there before is as it was"
    with Journal(tmp_path / "b", readonly=True) as opened:
        assert all(opened.has_call(key) for key in KEYS) and opened.repeats == 4


def test_a_short_journal_has_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with Journal(tmp_path) as opened:
        for i in range(300):
            opened.put_call(f"{i:064x}", {"text": "x"}, nusd=0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_an_index_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    with Journal(tmp_path) as opened:
        (tmp_path / opened.segment).with_suffix(".idx").mkdir()
        for key in KEYS:
            opened.put_call(key, {"text": key}, nusd=0)
    with Journal(tmp_path) as opened:
        assert len(opened) == len(KEYS)
