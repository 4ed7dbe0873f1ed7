"""A journal at home in a store: parts, the mirror, group commit, joining."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest

from videop2r_data.backends import Journal, Shipper, Store, begin_segment, join, pull, store
from videop2r_data.backends.store import Part
from videop2r_data.errors import AuthError, AwayError, ConfigError

KEY = "{:064x}".format


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


def told(words: str) -> None:
    raise AssertionError(words)


@contextmanager
def writing(
    url: str, folder: Path, tell: Any = told, ends: dict[str, int] | None = None
) -> Iterator[Journal]:
    """The journal of a run on one machine."""
    at, ends = Store(url), {} if ends is None else ends
    pull(at, folder, tell, {})
    with Journal(folder, begin=lambda *where: Shipper(*begin_segment(*where), at, ends, tell)) as journal:
        yield journal


async def put(journal: Journal, *numbers: int, words: str = "said") -> None:
    for number in numbers:
        journal.put_call(KEY(number), {"text": f"{words} {number}"}, nusd=number)
        await journal.settled()


def objects(url: str) -> list[Path]:
    return sorted(Path(url.removeprefix("file://")).glob("journal/*"))


def held(url: str, folder: Path, most: int = 50, tell: Any = told) -> set[int]:
    """The calls that a machine finds which has no mirror yet."""
    pull(Store(url), folder, tell, {})
    with Journal(folder, readonly=True) as journal:
        assert not journal.damaged
        return {number for number in range(most) if journal.has_call(KEY(number))}


def test_what_one_machine_put_another_one_has_byte_by_byte(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
        name = journal.segment
    assert held(url, tmp_path / "b") == {1, 2, 3}
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with writing(url, tmp_path / "b") as journal:  # another machine goes on, in a segment of its own
        assert journal.segment > name
        asyncio.run(put(journal, 4))
    assert held(url, tmp_path / "a") == {1, 2, 3, 4}


def test_an_answer_may_be_used_when_its_part_is_put(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:

        async def one() -> None:
            journal.put_call(KEY(7), {"text": "seven"}, nusd=0)
            assert not objects(url)
            await journal.settled()
            assert b"seven" in objects(url)[0].read_bytes()
            await asyncio.wait_for(journal.settled(), 120)

        asyncio.run(one())


def test_calls_of_a_moment_share_a_put(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:

        async def all_at_once() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(put(journal, number))

        asyncio.run(all_at_once())
    assert len(objects(url)) < 5
    assert held(url, tmp_path / "b") == set(range(40))


def test_a_batch_event_is_in_the_store_when_it_is_appended(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        journal.append_batch_event({"event": "intent"})
        assert b"intent" in objects(url)[0].read_bytes()


def test_what_a_killed_process_had_not_put_is_put_by_the_next_run(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
        name = journal.segment
    for path in objects(url)[1:]:
        path.unlink()
    before = (tmp_path / "a" / name).read_bytes()
    (tmp_path / "a" / name).write_bytes(before + b'{"key":"torn')
    with writing(url, tmp_path / "a"):
        pass
    assert (tmp_path / "a" / name).read_bytes() == before
    assert held(url, tmp_path / "b") == {1, 2, 3}
    assert (tmp_path / "b" / name).read_bytes() == before


def test_it_changes_no_answer_that_another_machine_had_meanwhile(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
    for path in objects(url)[1:]:
        path.unlink()
    with writing(url, tmp_path / "b") as journal:
        asyncio.run(put(journal, 2, 3, 4, words="other"))
    with writing(url, tmp_path / "a") as journal:
        assert journal.call(KEY(3)) == {"text": "other 3"}
        assert journal.repeats == 2 and journal.spending.total_nusd == 6 + 9
    assert held(url, tmp_path / "c") == {1, 2, 3, 4}
    in_a, in_c = ({p.name: p.read_bytes() for p in (tmp_path / x).glob("*.jsonl")} for x in "ac")
    assert {name: data for name, data in in_a.items() if data} == in_c


@pytest.mark.parametrize("other_came", [False, True])
def test_what_could_not_be_put_again_and_again_is_on_the_bill_once(
    other_came: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
    for path in objects(url)[1:]:
        path.unlink()
    with writing(url, tmp_path / "b") as journal:
        asyncio.run(put(journal, 3, 4, words="other"))

    def away(*_: object, **__: object) -> None:
        raise AwayError("no way there")

    for _ in range(3):
        with monkeypatch.context() as patch, pytest.raises(AwayError):
            patch.setattr(Store, "put", away)
            pull(Store(url), tmp_path / "a", told, {})
    if other_came:
        with writing(url, tmp_path / "b") as journal:
            asyncio.run(put(journal, 2, words="other"))
    with writing(url, tmp_path / "a") as journal:
        assert journal.repeats == 1 + other_came
        assert journal.spending.total_nusd == 1 + 2 + 3 + 3 + 4 + 2 * other_came
        assert journal.call(KEY(3)) == {"text": "other 3"}
        assert journal.call(KEY(2)) == {"text": "other 2" if other_came else "said 2"}
    assert held(url, tmp_path / "c") == {1, 2, 3, 4}


@pytest.mark.parametrize("part_gone", [False, True])
def test_a_damaged_mirror_is_mended_from_the_store_and_loses_nothing_else(
    part_gone: bool, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PAUSES_S", (0.0, 0.0))
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
        path = tmp_path / "a" / journal.segment
    good = path.read_bytes()
    path.write_bytes(good.replace(b"said 2", bytes(6)))  # as a power cut leaves it
    if part_gone:
        data = objects(url)[2].read_bytes()
        objects(url)[2].write_bytes(bytes(len(data)))
    assert held(url, tmp_path / "a") == {1, 2, 3}
    assert path.read_bytes() == good


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PAUSES_S", (0.0, 0.0))


@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
@pytest.mark.usefixtures("hurried")
def test_a_damaged_part_costs_itself_and_is_told(harm: str, url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2, 3))
    path = objects(url)[1]
    data = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_bytes(
        data[:-5] if harm == "cut" else data.replace(b"said", b"paid")
    )
    said: list[str] = []
    assert held(url, tmp_path / "b", tell=said.append) == {1, 3}
    assert "asked again" in said[0]
    join(Store(url), tmp_path / "b")  # which lacks it: the parts stay
    assert len(objects(url)) >= 2
    join(Store(url), tmp_path / "a")  # the machine that has it puts it again
    assert held(url, tmp_path / "c") == held(url, tmp_path / "b") == {1, 2, 3}


@pytest.mark.parametrize("late", [1, 2])
def test_a_listing_that_is_late_is_waited_for(
    late: int, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: dict[str, int] = {}
    with writing(url, tmp_path / "a", ends=ends) as journal:
        asyncio.run(put(journal, 1, 2, 3))
    real, asked = Store.names, list[str]()

    def names(self: Store, folder: str) -> dict[str, int]:
        asked.append(folder)
        found = real(self, folder)
        for name in sorted(found)[late:] if len(asked) == 1 else ():
            del found[name]
        return found

    monkeypatch.setattr(Store, "names", names)
    pull(Store(url), tmp_path / "b", told, ends)
    assert len(asked) == 2
    with Journal(tmp_path / "b", readonly=True) as journal:
        assert len(journal) == 3 and not journal.damaged


@pytest.mark.usefixtures("hurried")
def test_what_the_last_run_put_and_nobody_lists_is_told(url: str, tmp_path: Path) -> None:
    ends: dict[str, int] = {}
    with writing(url, tmp_path / "a", ends=ends) as journal:
        asyncio.run(put(journal, 1, 2))
    objects(url)[1].unlink()
    said: list[str] = []
    pull(Store(url), tmp_path / "b", said.append, ends)
    assert "asked again" in said[0]


def test_foreign_objects_are_left_alone(url: str, tmp_path: Path) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1))
    folder = objects(url)[0].parent
    (folder / "notes.txt").write_text("mine")
    (folder / "segment-000001-x.999999999999-000000000009-00000000.jsonl").write_text("x")
    assert held(url, tmp_path / "b") == {1}
    join(Store(url), tmp_path / "a")
    assert (folder / "notes.txt").read_text() == "mine"


def test_small_parts_are_joined_and_the_old_ones_removed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PART_BYTES", 400)
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, *range(8)))
        segment = tmp_path / "a" / journal.segment
    old = {path: path.read_bytes() for path in objects(url)}
    join(Store(url), tmp_path / "a")
    assert 1 < len(objects(url)) < 5
    assert b"".join(path.read_bytes() for path in objects(url)) == segment.read_bytes()
    for path in sorted(old)[1:4]:  # a process that is killed in between leaves old parts
        path.write_bytes(old[path])
    assert held(url, tmp_path / "b") == set(range(8))
    assert (tmp_path / "b" / segment.name).read_bytes() == segment.read_bytes()


def test_the_old_parts_stay_when_the_new_one_is_not_what_was_put(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(url, tmp_path / "a") as journal:
        asyncio.run(put(journal, 1, 2))
    old = objects(url)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", lambda self, *paths: [b"" for _ in paths])
        join(Store(url), tmp_path / "a")
    assert set(old) < set(objects(url))


def test_a_store_that_is_away_is_waited_for_and_told_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails, said = Store.put, [3], list[str]()

    def away(self: Store, path: str, data: bytes, *, new: bool = False) -> None:
        if fails[0]:
            fails[0] -= 1
            raise AwayError("no way there")
        real(self, path, data, new=new)

    monkeypatch.setattr(Store, "put", away)
    with writing(url, tmp_path / "a", said.append) as journal:
        asyncio.run(put(journal, 1))
    assert len(said) == 1 and "no way there" in said[0]
    assert held(url, tmp_path / "b") == {1}


def test_a_store_that_stays_away_stops_the_run_and_the_next_one_puts_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Part:
        raise AwayError("no way there")

    with monkeypatch.context() as patch, pytest.raises(AwayError):
        patch.setattr(Store, "put", away)
        patch.setattr(store, "AWAY_S", 0.0)
        with writing(url, tmp_path / "a", lambda _: None) as journal:
            asyncio.run(put(journal, 1))
    assert not objects(url)
    with writing(url, tmp_path / "a"):
        pass
    assert held(url, tmp_path / "b") == {1}


@pytest.mark.parametrize("first", [None, AuthError("the key is wrong")])
def test_the_end_of_a_journal_waits_for_no_store_and_tells_what_went_wrong_first(
    first: AuthError | None, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is closing hears no Ctrl-C and shows no message, for as long as one waits for a store."""

    def away(*_: object, **__: object) -> None:
        tried.set()
        raise AwayError("no way there")

    async def ends() -> None:
        with writing(url, tmp_path / "a", lambda _: None) as journal:
            waits = asyncio.ensure_future(put(journal, 1))
            await asyncio.to_thread(tried.wait)
            if first is not None:
                waits.cancel()
                raise first

    tried = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", away)
        patch.setattr(store, "AWAY_S", 100.0)
        began = time.monotonic()
        with pytest.raises(AuthError if first else AwayError):
            asyncio.run(ends())
        assert time.monotonic() - began < 50
    assert held(url, tmp_path / "a") == {1}, "the next run puts it"


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/x", "s3://bucket/x?secret=1"])
def test_keys_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(url)
    assert not re.search("secret", str(caught.value))


@pytest.mark.parametrize("url", ["s3://", "s3:///", "memory://"])
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no place"):
        Store(url)


def test_a_library_that_is_missing_is_named_by_its_own_name() -> None:
    name = "p2r-no-such"
    fsspec.register_implementation(name, "p2r_no_such.FileSystem", errtxt="Install p2r_no_such to go there")
    with pytest.raises(ConfigError, match=f"the library for {name}://bucket/x is not installed") as caught:
        Store(f"{name}://bucket/x")
    assert caught.value.hint == "Install p2r_no_such to go there"
