"""Where a build keeps its files, which share of the pool a process has, and who may work in the folder."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from videop2r_data.backends import Begin, FileLock, Writer, is_held, mirror_of
from videop2r_data.builders.run import Stop
from videop2r_data.errors import BusyError, ConfigError, ExportError
from videop2r_data.files import WORKSPACE_NAME, work_folder
from videop2r_data.schemas import BadRow, Model, Sample, digest

# Folders: the data set, and beside it what is needed to go on with a build or to rebuild.


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folders of a build.

    Attributes:
        out: the data set; nothing else is ever written there.
        work: journal, demo world and notes of this host; keep it as long as the data set may grow.
        base: folder that the recipe's relative paths start from.
        store: URL where the journal is at home; `work` is then its mirror. None: in `work`.
    """

    out: Path
    work: Path
    base: Path
    store: str | None = None

    @classmethod
    def at(cls, out: Path, *, base: Path, work: Path | str | None = None) -> Workspace:
        """`work` lies beside `out` unless it is given: a folder, or a URL (text: a `Path` loses a slash)."""
        out = Path(os.path.abspath(out))  # noqa: PTH100 - keeps symbolic links as the user wrote them
        if isinstance(work, str) and "://" in work:
            return cls(out, mirror_of(work), base, work)
        if url := re.match(r"([a-z0-9]{2,}):/+(.*)", str(work)):
            whole = f"{url[1]}://{'/' if url[1] == 'file' else ''}{url[2]}"
            hint = f"p2r-data merge FOLDER {whole} brings its journal here; then --work FOLDER"
            raise ConfigError("this command works in a folder, not in a store", where=whole, hint=hint)
        return cls(out, Path(work) if work else work_folder(out), base)

    def need_folder(self, what: str) -> None:
        """ConfigError if the journal is in a store, where a flag does not work."""
        if self.store is not None:
            hint = "work in folders; p2r-data merge puts journals together, in folders and stores"
            raise ConfigError(f"{what} needs a work folder, not a URL", where=self.store, hint=hint)

    @property
    def journal(self) -> Path:
        """Folder of the journal's segments."""
        return self.work / "journal"

    @property
    def demo(self) -> Path:
        """Folder of the demo worlds."""
        return self.work / "demo"

    def embedded(self, source: str) -> Path:
        """Folder of the media that the rows of a source hold: written while its pool is read."""
        return self.work / "embedded" / source

    def check(self) -> None:
        """The data set's folder is replaced as a whole: a journal inside it would be gone with the old one.

        Raises:
            ConfigError: the work folder is the data set's, or in it, or the data set is in the journal.
        """
        out, work = (Path(os.path.realpath(p)) for p in (self.out, self.work))
        if work.is_relative_to(out) or out.is_relative_to(work / "journal"):
            raise ConfigError(
                f"the work folder {work} and the data set {out} must lie apart",
                hint="choose another --work: it keeps the journal, and the data set's folder is replaced",
            )

    def remember(self, **what: Model) -> None:
        """Note where this host keeps the files of a recipe or a plan, for those who read it back.

        Raises:
            ConfigError: the work folder cannot be written.
        """
        told = {name: value.model_dump(mode="json") for name, value in what.items()}
        note = {"base": str(self.base.resolve()), **told}
        part = self.work / f"{WORKSPACE_NAME}.{os.getpid()}.part"  # not shared with other processes
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            part.write_bytes(orjson.dumps(note, option=orjson.OPT_INDENT_2))
            part.replace(self.work / WORKSPACE_NAME)
        except OSError as error:
            raise ConfigError(
                f"cannot write to the work folder: {error}",
                where=str(self.work),
                hint="choose another with --work, or free some space",
            ) from None

    @classmethod
    def of(cls, out: Path, *, work: Path | None = None, base: Path | None = None) -> Workspace:
        """The workspace of a data set that was built here.

        Raises:
            ConfigError: its work folder is gone, or does not say where the recipe's files lie.
        """
        found = cls.at(out, base=base or Path.cwd(), work=work)
        if not found.out.is_dir():
            begun = "its build has not written it yet: p2r-data status tells how far it is"
            hint = begun if found.journal.is_dir() else "name the folder that p2r-data build wrote"
            raise ConfigError("no such data set", where=str(found.out), hint=hint)
        if not found.journal.is_dir():
            raise ConfigError(
                "there is no work folder for this data set",
                where=str(found.work),
                hint="name it with --work: it holds the journal",
            )
        return found if base is not None else cls(found.out, found.work, found._noted_base())

    def _noted_base(self) -> Path:
        note = self.work / WORKSPACE_NAME
        try:
            return Path(orjson.loads(note.read_bytes())["base"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ConfigError(
                f"the work folder does not say where the recipe's files lie: {error}",
                where=str(note),
                hint="name the folder of the recipe with --base",
            ) from None


# Shares: one build on many machines. Each process makes the calls of its share over one shared journal.


_SHARD = re.compile(r"(\d{1,5})/(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` (from 1) of `count`.

    A question belongs to a share by what it is about (its media file, or its own text), so that questions
    about one clip share its decoding, and equal questions, which are one call, meet in one process.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/8`.

        Raises:
            ConfigError: not a share.

        >>> Shard.parse("2/8")
        Shard(index=2, count=8)
        """
        match = _SHARD.fullmatch(text.strip())
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.index <= shard.count:
            raise ConfigError(
                f"not a share: {text!r}", hint="write --shard 1/8 for the first of eight processes"
            )
        return shard

    def owns(self, item: Sample | BadRow) -> bool:
        """Whether a row belongs to this share; bad rows belong to the first."""
        if isinstance(item, BadRow):
            return self.index == 1
        about = [item.source, item.path] if item.path else [item.problem]
        return int(digest(about)[:15], 16) % self.count == self.index - 1


# Leases: who may make calls in a work folder.
#
#     WORK/leases/build.lock          held alone by a build, shared by shares that were started by hand
#     WORK/leases/share-2-of-8.lock   held alone by the process of this share
#
# Two processes that make the same calls would both pay for them: the journal knows what was answered, not
# what another process is about to ask. The files are locked with `flock`, so a lease ends with its process,
# however that ends, and the next run takes it. Reading a journal needs no lease. Why a build waits and a
# share does not: docs/decisions/002-lease.md.


FOLDER = "leases"
_BUILD = "build.lock"
_SHARE = re.compile(r"share-(\d+)-of-(\d+)\.lock")
_LOOK_S = 0.25
"""Seconds between two looks at a lease that another process holds."""
_BREATH_S = 0.05
_TRIES = 5
_NOTE_BYTES = 4096
Note = dict[str, Any]


Lease = ExitStack
"""A lease that is held until it is closed."""


def take_lease_now(work: Path, what: str) -> Lease:
    """Take the lease of a whole folder, which is made if missing, at once.

    Raises:
        BusyError: another process has it. ConfigError: the folder cannot be written.
    """
    with _Taking(work, what) as taking:
        if not taking.whole():
            raise taking.busy("it does not work beside another process")
        return taking.lease()


@asynccontextmanager
async def at_work(
    place: Workspace,
    what: str,
    shard: Shard | None = None,
    *,
    wait: bool,
    stop: Stop,
    tell: Callable[[str], None],
) -> AsyncIterator[Begin]:
    """The lease of a workspace, or of one share of its work; yields what opens the segment to write.

    Raises:
        ConfigError: a share of a build in a store. BusyError: as `take_lease`, `take_share` and `in_store`.
    """
    if shard is None:
        lease = await take_lease(place.work, what, wait=wait, stop=stop, tell=tell)
    else:
        place.need_folder("--shard")
        lease = take_share(place.work, f"share {shard.index} of {shard.count} of {what}", shard)
    with lease:
        if place.store is None:
            yield Writer.take_over
        else:
            from videop2r_data.builders.remote import in_store

            async with in_store(place.store, place.work, what, wait=wait, stop=stop, tell=tell) as begin:
                yield begin


async def take_lease(
    work: Path, what: str, *, wait: bool, stop: Stop, tell: Callable[[str], None] = lambda _: None
) -> Lease:
    """Take the lease of a whole folder, waiting for other processes to end.

    Args:
        work: the folder; made if missing.
        what: name of the command, for the message that other processes show.
        wait: wait for the process that has it, until `stop` is asked; `tell` is told its name.

    Raises:
        BusyError: another process has it, and `wait` is off or `stop` was asked. ConfigError: the folder
            cannot be written.
    """
    with _Taking(work, what) as taking:
        while not taking.whole():
            if not wait:
                raise taking.busy("--no-wait does not wait for it")
            tell(f"{taking.holders()} works in {work}; this command goes on when it has ended")
            if not await pause(stop):
                raise taking.busy("stopped while waiting for it")
        return taking.lease()


def take_share(work: Path, what: str, shard: Shard) -> Lease:
    """The lease of one share of the pool, at once.

    Raises:
        BusyError: a build, the same share, or a share of another count is at work. ConfigError: the folder
            cannot be written.
    """
    with _Taking(work, what) as taking:
        taking.share(shard)
        return taking.lease()


async def pause(stop: Stop) -> bool:
    """Wait before the next look; False: stop was asked."""
    ends = time.monotonic() + _LOOK_S
    while not stop.asked:
        if time.monotonic() >= ends:
            return True
        await asyncio.sleep(_BREATH_S)
    return False


def busy(who: str, where: str, why: str) -> BusyError:
    """The error that names who works in a folder."""
    return BusyError(
        f"{who} works in this folder: {why}",
        where=where,
        hint="wait until it has ended or end it, then run the same command: every finished call is kept",
    )


class _Taking:
    """One attempt at a lease: the locks it holds so far, and the lock files that others hold.

    Its end releases the locks that did not become a lease.
    """

    def __init__(self, work: Path, what: str) -> None:
        self.folder = work / FOLDER
        self._what = what
        self._got = ExitStack()
        self._has_build = False
        self._in_the_way: list[Path] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._got.close()

    def lease(self) -> Lease:
        """The lease, of the locks that were taken."""
        return self._got.pop_all()

    def whole(self) -> bool:
        """Take the locks of the whole folder; False: somebody works in it."""
        # build.lock is kept while the shares end, so that no new share starts meanwhile
        self._has_build = self._has_build or self._lock(self.folder / _BUILD)
        self._in_the_way = self._busy_shares()
        if not self._has_build and not self._in_the_way:  # shares hold build.lock together
            self._in_the_way = [self.folder / _BUILD]
        return not self._in_the_way

    def share(self, shard: Shard) -> None:
        """Take the locks of one share."""
        if not self._lock(self.folder / _BUILD, shared=True):
            self._in_the_way = [self.folder / _BUILD]
            raise self.busy("it makes the calls of all shares")
        path = self.folder / f"share-{shard.index}-of-{shard.count}.lock"
        for left in reversed(range(_TRIES)):  # a look at a share locks it for a moment
            if self._lock(path):
                break
            if not left:
                self._in_the_way = [path]
                raise self.busy("each share is the work of one process")
            time.sleep(_BREATH_S)
        # own lock first, then the look: of two shares starting at once, at least one sees the other
        others = [p for p in self._busy_shares() if not p.name.endswith(f"-of-{shard.count}.lock")]
        if others:
            self._in_the_way = others
            raise self.busy(f"it shares the pool out otherwise than into {shard.count}")

    def busy(self, why: str) -> BusyError:
        """The error that names who works in the folder."""
        return busy(self.holders(), str(self.folder.parent), why)

    def holders(self) -> str:
        """The processes that hold the locks in the way, in words."""
        found = [words(_note(path)) for path in self._in_the_way]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        return ", ".join(found[:3]) + more

    def _lock(self, path: Path, *, shared: bool = False) -> bool:
        try:
            lock = FileLock.take(path, shared=shared)
        except OSError as error:
            raise self._unusable(error) from None
        if lock is None:
            return False
        self._got.callback(lock.release)
        if not shared:
            lock.write(orjson.dumps(note_of(self._what)).ljust(_NOTE_BYTES))
        return True

    def _busy_shares(self) -> list[Path]:
        """Locks of shares that are held, its own among them."""
        shares = [path for path in sorted(self.folder.iterdir()) if _SHARE.fullmatch(path.name)]
        return [path for path in shares if is_held(path)]

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(
            f"cannot take the lease of the work folder: {error}",
            where=str(self.folder),
            hint="the work folder must be writable, on a file system with locks (flock)",
        )


def note_of(what: str) -> Note:
    """Who this process is, for the message that other processes show."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"what": what, "host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _note(path: Path) -> Note:
    try:
        found = orjson.loads(path.read_bytes()[:_NOTE_BYTES])
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def words(note: Note) -> str:
    """Who wrote a note."""
    if not note:
        return "another process"
    what, pid, host, since = (str(note.get(name))[:80] for name in ("what", "pid", "host", "since"))
    return f"{what} (process {pid} on {host}, since {since})"


def busy_writing(where: Path, what: str = "data set") -> ExportError:
    """The error that another process writes this output."""
    return ExportError(
        f"another process is writing this {what}", where=str(where), hint="wait for it, then run again"
    )
