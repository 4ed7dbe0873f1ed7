"""A lease in a store: one holder, a heart that beats, and what happens when it stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.test_commands import p2r
from videop2r_data.backends import Store
from videop2r_data.builders import Progress, Stop, news_in_store, remote
from videop2r_data.builders.remote import take
from videop2r_data.builders.workspace import Note
from videop2r_data.cli.main import app
from videop2r_data.errors import BusyError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(remote, "BEAT_S", 0.1)
    monkeypatch.setattr(remote, "DEAD_S", 1.0)
    monkeypatch.setattr(remote, "SETTLE_S", 0.0)
    (tmp_path / "store").mkdir()
    return Store(f"file://{tmp_path}/store")


def note(mirror: str) -> Note:
    return {"what": "a build", "mirror": mirror}


def take_now(store: Store, mirror: str, *, wait: bool = True, said: list[str] | None = None) -> int:
    """As a process does that is killed then."""
    tell = (said if said is not None else []).append
    return asyncio.run(take(store, note(mirror), wait=wait, stop=Stop(), tell=tell))[0]


def until(true: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for what the heart of a holder does in a thread of its own."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def shown(store: Store) -> str:
    """What `p2r-data status` prints, whatever its exit code."""
    return CliRunner().invoke(app, ["status", store.url]).stdout


@contextmanager
def holding(
    store: Store, mirror: str, *, wait: bool = True, said: list[str] | None = None
) -> Iterator[list[BusyError]]:
    lost: list[BusyError] = []
    number, work = (
        take_now(store, mirror, wait=wait, said=said),
        Path(store.url.removeprefix("file://")).parent,
    )
    with remote._beating(store, number, note(mirror), lost.append, work):
        yield lost


def test_the_news_of_a_run_comes_with_its_beats(store: Store, tmp_path: Path) -> None:
    def told() -> list[str]:
        return [one.state for one in news_in_store(store.url)]

    assert told() == []
    with pytest.raises(KeyError), holding(store, "a"):
        assert told() == [], "there is no news yet"
        fresh = Progress(at=time.time() + 600)  # however long this test takes
        (tmp_path / "progress-build.json").write_text(fresh.model_dump_json())
        until(lambda: told() == ["running"])
        # a file that is being written, as a store in a folder is at each beat, may be read as an empty one
        until(lambda: shown(store).startswith("running (process"))
        (tmp_path / "progress-build.json").write_text(Progress(at=time.time() - 600).model_dump_json())
        until(lambda: told() == ["killed, or cut off from the store"])
        (tmp_path / "progress-build.json").write_text(Progress(state="failed").model_dump_json())
        raise KeyError
    assert told() == ["failed"], "the last beat has the last news"
    store.put("leases/000001.json", b'{"news": {"state": 1}}')
    assert "no build has left news here" in p2r("status", store.url, code=1).stderr


def test_the_second_waits_for_the_first_and_says_for_whom(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DEAD_S", 4.0)  # no busy machine keeps a heart from beating for so long
    done, said = list[str](), list[str]()

    def first() -> None:
        with holding(store, "a"):
            began.set()
            time.sleep(6.0)  # longer than a dead one is waited for
            done.append("the work of the first")

    began, thread = threading.Event(), threading.Thread(target=first)
    thread.start()
    began.wait()
    with holding(store, "b", said=said):
        assert done and "a build (process" in said[0]
    thread.join()


def test_who_does_not_wait_ends_as_soon_as_the_heart_is_heard(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DEAD_S", 1000.0)
    with holding(store, "a"), pytest.raises(BusyError, match="a build"):
        take_now(store, "b", wait=False)


def test_a_dead_holder_is_known_by_its_heart_alone(store: Store) -> None:
    take_now(store, "a")
    began = time.monotonic()
    assert take_now(store, "b", wait=False) == 2
    assert time.monotonic() - began > 0.9
    assert len(store.names("leases")) == 1


def test_a_watcher_that_was_suspended_takes_no_old_word_for_a_death(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it hears after its own sleep was said before it."""
    store.put("leases/000001.json", b'{"mirror": "a", "beat": "1"}')
    stop, looks, real = Stop(), 0, remote.newest

    def newest(at: Store) -> tuple[int, Note]:
        nonlocal looks
        looks, found = looks + 1, real(at)
        if looks == 2:  # the store has answered, and this process sleeps for longer than the dead may
            time.sleep(remote.DEAD_S + 0.2)
            store.put("leases/000001.json", b'{"mirror": "a", "beat": "2"}')
        elif looks == 3:
            stop.ask()
        return found

    monkeypatch.setattr(remote, "newest", newest)
    with pytest.raises(BusyError, match="stopped while waiting"):
        asyncio.run(take(store, note("b"), wait=True, stop=stop, tell=lambda _: None))
    assert looks == 3


def test_who_ended_or_had_this_mirror_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "DEAD_S", 1000.0)
    said: list[str] = []
    assert take_now(store, "a", said=said) == 1
    with holding(store, "a", said=said):  # whose lock this process has: the one before it was killed
        assert remote.newest(store)[0] == 2
    assert remote.newest(store)[1]["ended"] is True
    assert take_now(store, "b", said=said) == 3
    assert said == [], "nobody is waited for"


def test_a_suspended_holder_learns_that_it_lost(store: Store) -> None:
    with holding(store, "a") as lost:
        assert remote._next(store, 2, note("b"))
        until(lambda: lost)
        assert "it took the lease" in lost[0].message
    assert not remote.newest(store)[1].get(
        "ended"
    )  # what the loser wrote does not end the lease of the other


def test_a_lease_that_was_overwritten_is_lost(store: Store) -> None:
    with holding(store, "a") as lost:  # by a rival, in a store without conditional puts

        def overwritten() -> bool:
            """Again and again: a beat that had looked just before writes over it."""
            store.put("leases/000001.json", b'{"mirror": "b"}')
            return bool(lost)

        until(overwritten)
    assert remote.newest(store)[1] == {"mirror": "b"}


@pytest.mark.parametrize("words", [b"", b"[]", b"no JSON"])
def test_a_lease_that_says_nothing_is_watched_as_any(words: bytes, store: Store) -> None:
    store.put("leases/000007.json", words)
    assert take_now(store, "a") == 8
