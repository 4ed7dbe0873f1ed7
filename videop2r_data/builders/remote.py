"""A build whose journal is at home in a store: who may work there, and the mirror.

    URL/leases/000004.json    the newest number counts; its content changes every `BEAT_S` seconds

A lease is taken by making the object with the next number, which one process alone can do where the store has
conditional puts; elsewhere, what stands there after a moment decides. A holder is dead if its object has not
changed for `DEAD_S` seconds *of the watcher's own clock*: no two clocks are ever compared. A holder that was
taken for dead and is not (it was suspended, or cut off) finds another lease at its next beat, and stops.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import orjson
from pydantic import ValidationError

from videop2r_data.backends import Begin, Shipper, Store, begin_segment, join, pull
from videop2r_data.builders.news import Progress
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Note, busy, note_of, pause, words
from videop2r_data.errors import AwayError, BusyError, P2RError

BEAT_S = 5.0
DEAD_S = 30.0
"""Far longer than a beat: a slow store, or one that is away for some seconds, is no death."""
SETTLE_S = 0.3
"""Seconds until a store without conditional puts shows which of two writers came last."""


@asynccontextmanager
async def in_store(
    url: str, work: Path, what: str, *, wait: bool, stop: Stop, tell: Callable[[str], None]
) -> AsyncIterator[Begin]:
    """The lease of a store, its mirror in `work` up to date; yields what begins a segment of it.

    Args:
        work: this process has its lease.
        stop: ends the wait for another process; asked when another one took the lease.

    Raises:
        BusyError: another process has the lease. P2RError: the store cannot be used.
    """
    loop, store, journal, ends = asyncio.get_running_loop(), Store(url), work / "journal", dict[str, int]()

    def say(message: str) -> None:
        """Tell it from any thread."""
        loop.call_soon_threadsafe(tell, message)

    name = work / "mirror"
    if not name.exists():
        name.write_text(secrets.token_hex(16))
    who = note_of(what) | {"mirror": name.read_text()}
    number, before = await take(store, who, wait=wait, stop=stop, tell=tell)
    said = before.get("ends")
    put = {stem: end for stem, end in said.items() if type(end) is int} if isinstance(said, dict) else {}
    with _beating(store, number, who | {"ends": ends}, partial(loop.call_soon_threadsafe, stop.ask), work):
        await asyncio.to_thread(pull, store, journal, say, put)
        await asyncio.to_thread(join, store, journal)
        yield lambda *where: Shipper(*begin_segment(*where), store, ends, say)
        await asyncio.to_thread(join, store, journal)


async def take(
    store: Store, who: Note, *, wait: bool, stop: Stop, tell: Callable[[str], None]
) -> tuple[int, Note]:
    """Take the lease of a store; a holder whose heart stands still is waited for in any case.

    Args:
        who: takes it; `mirror` is the name of one whose own lock this process has, so that whoever held the
            lease with the same mirror has ended.

    Returns:
        The number of the lease, and what the one before said.

    Raises:
        BusyError: a living process has it, and `wait` is off or `stop` was asked. P2RError: as `Store`.
    """
    seen: tuple[int, Note] | None = None
    while True:
        asked = time.monotonic()  # what is told may be old when it is heard: this process may be suspended
        number, note = now = await asyncio.to_thread(newest, store)
        alive = seen is not None and now != seen
        if now != seen:
            seen, since = now, time.monotonic()
        ended = not number or note.get("ended") or note.get("mirror") == who["mirror"]
        if ended or asked - since > DEAD_S:
            if await asyncio.to_thread(_next, store, number + 1, who):
                return number + 1, note
        elif alive and not wait:
            raise busy(words(note), store.url, "--no-wait does not wait for it")
        else:
            tell(f"{words(note)} works in {store.url}; this command goes on when it has ended")
            if not await pause(stop):
                raise busy(words(note), store.url, "stopped while waiting for it")


def newest(store: Store) -> tuple[int, Note]:
    """Number and content of the lease that counts; 0 if there was none yet."""
    number = max((int(name[:6]) for name in store.names("leases") if name[:6].isdigit()), default=0)
    note: object = None
    with suppress(ValueError):
        note = orjson.loads(store.get(_path(number))[0] or b"") if number else None
    return number, note if isinstance(note, dict) else {}


def _next(store: Store, number: int, who: Note) -> bool:
    """Make the lease with this number; False: somebody else was faster."""
    with suppress(AwayError):  # a store may refuse one of two puts at the same moment
        store.put(_path(number), orjson.dumps(who), new=True)
    time.sleep(SETTLE_S)
    there, note = newest(store)
    if there != number or note.get("mirror") != who["mirror"]:
        return False
    store.remove(f"leases/{old}" for old in store.names("leases") if f"leases/{old}" < _path(number))
    return True


@contextmanager
def _beating(
    store: Store, number: int, who: Note, lost: Callable[[BusyError], object], work: Path
) -> Iterator[None]:
    """Keep a lease alive, then end it; `lost` is called, in another thread, when somebody else took it.

    Each beat carries the news of the run, from its file in `work`.
    """
    over = threading.Event()

    def beat(**more: object) -> None:
        """Say that this process lives, if the lease is still its own."""
        there, note = newest(store)
        if there > number or (there == number and note.get("mirror") != who["mirror"]):
            over.set()
            lost(busy(words(note), store.url, "it took the lease, which had stood still"))
        else:
            with suppress(OSError, ValueError):
                more["news"] = orjson.loads((work / "progress-build.json").read_bytes())
            store.put(_path(number), orjson.dumps(who | {"beat": secrets.token_hex(4)} | more))

    def keep() -> None:
        """Beat until it is over."""
        while not over.wait(BEAT_S):
            with suppress(P2RError):  # away: it beats again when the store is back
                beat()

    thread = threading.Thread(target=keep, name="store-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(P2RError):  # else its heart stops, and the next one waits for `DEAD_S`
            beat(ended=True)


def news_in_store(url: str) -> list[Progress]:
    """What the process that worked in a store last told with its last beat, as `read_news` does.

    Raises:
        P2RError: the store cannot be used.
    """
    with suppress(ValidationError):
        news = Progress.model_validate(newest(Store(url))[1].get("news"))
        if news.state == "running" and time.time() - news.at > DEAD_S:
            news.state, news.per_min, news.left_s = "killed, or cut off from the store", {}, None
        return [news]
    return []


def _path(number: int) -> str:
    return f"leases/{number:06d}.json"
