"""The files behind clips: equal ones by sha256, alike ones by their frames; what was read is journaled."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from videop2r_data.backends import Journal
from videop2r_data.builders.overlap.looks import ALIKE, CELLS, Gallery, Look, look_of
from videop2r_data.builders.overlap.sides import Clip, Side
from videop2r_data.errors import MediaError
from videop2r_data.files import file_digest, resolve_media
from videop2r_data.media import DecodePool
from videop2r_data.schemas import MediaSpec, RejectReason, digest

_HELD = 4096
"""Looks that are held in memory at once; the others wait in the journal."""


class Link(NamedTuple):
    """Two clips that are one by some signal.

    Attributes:
        score: how sure, 0 to 1.
        why: what is equal, in words.
        offset_s: where the clip of the evaluation set begins in that of the pool.
    """

    score: float
    why: str
    offset_s: float = 0.0


Links = dict[tuple[int, int], Link]
"""Clip of the pool, clip of the evaluation set -> what links them."""
Tell = Callable[[str, int, int], Awaitable[None]]
"""Told what is done, how much of it, and of how much; raises to stop."""


class ClipFiles:
    """The files of one side's clips, as far as they are there."""

    def __init__(self, side: Side, journal: Journal, spec: MediaSpec) -> None:
        self.side = side
        self._journal = journal
        self._settings = spec.model_dump(mode="json", exclude={"workers", "limits"})
        self._files = [_file_of(side, clip) for clip in side.clips]
        # a file whose bytes and time of the last change are as before is not read again
        self._stats = {path: _stat(path) for path in self._files}
        self.look = lru_cache(_HELD)(self._look)

    @property
    def sizes(self) -> dict[int, int]:
        """Clip -> bytes of its file, where that is there."""
        stats = ((clip, self._stats[path]) for clip, path in enumerate(self._files))
        return {clip: stat[0] for clip, stat in stats if stat is not None}

    @property
    def seen(self) -> set[int]:
        """Clips of which a frame is known that shows something."""
        return {clip for clip in range(len(self._files)) if "cells" in self._known("look", clip)}

    @cached_property
    def gallery(self) -> Gallery:
        """All clips whose look is known, once they were sampled."""
        return Gallery(self.look, len(self._files))

    async def hashes(self, sizes: Collection[int], tell: Tell) -> dict[int, list[str]]:
        """Clip -> sha256 of its file, for files of some sizes; one that cannot be read is missing then."""

        async def read(path: Path, _kind: str) -> dict[str, Any] | None:
            try:
                return {"sha256": await asyncio.to_thread(file_digest, path)}
            except OSError:
                self._stats[path] = None
                return None

        clips = [clip for clip, size in self.sizes.items() if size in sizes]
        await self._read("file", clips, read, 1, partial(tell, f"reading the files of {self.side.name}"))
        found = ((clip, self._known("file", clip)) for clip in clips)
        return {clip: [f"sha256:{known['sha256']}"] for clip, known in found if known}

    async def sample(self, pool: DecodePool, tell: Tell) -> None:
        """Read the frames of every file that is there and whose look is not in the journal."""

        async def read(path: Path, kind: str) -> dict[str, Any] | None:
            try:
                look = look_of(await pool.sample(path, "video" if kind == "video" else "image"))
            except MediaError as error:
                # killed from outside: not the file's fault, and the next run tries again
                return None if error.reason == RejectReason.DECODE_KILLED else {"failed": error.reason}
            return {"plain": True} if look is None else _packed(look)

        told = partial(tell, f"reading the clips of {self.side.name}")
        await self._read("look", self.sizes, read, pool.workers, told)

    async def _read(
        self,
        what: str,
        clips: Iterable[int],
        read: Callable[[Path, str], Awaitable[dict[str, Any] | None]],
        workers: int,
        tell: Callable[[int, int], Awaitable[None]],
    ) -> None:
        """Read and journal what is not known yet."""
        wanted = {self._key(what, clip): clip for clip in clips}
        todo = {key: clip for key, clip in wanted.items() if not self._known(what, clip)}
        waiting, done = iter(todo.items()), len(wanted) - len(todo)

        async def worker() -> None:
            """Read one clip after the other until none waits."""
            nonlocal done
            for key, clip in waiting:
                path = self._files[clip]
                assert path is not None
                if (data := await read(path, self.side.clips[clip].data_type)) is not None:
                    self._journal.put_media(key, {"stat": self._stats[path]} | data)
                done += 1
                await tell(done, len(wanted))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(worker())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # one cause is enough, and callers know its type

    def _look(self, clip: int) -> Look | None:
        """What a clip looks like; None: not known, or it shows nothing."""
        known = self._known("look", clip)
        return _unpacked(known) if "cells" in known else None

    def _key(self, what: str, clip: int) -> str:
        settings = self._settings if what == "look" else {}
        return digest(
            [f"overlap/{what}/1", settings, str(self._files[clip]), self.side.clips[clip].data_type]
        )

    def _known(self, what: str, clip: int) -> dict[str, Any]:
        """What the journal has of a file as it is now; empty: nothing."""
        stat = self._stats[self._files[clip]]
        known = self._journal.media(self._key(what, clip)) if stat is not None else None
        return known if known is not None and stat is not None and known["stat"] == list(stat) else {}


def _file_of(side: Side, clip: Clip) -> Path | None:
    root = side.roots.get(clip.source)
    try:
        return None if root is None else resolve_media(root, clip.path)
    except MediaError:
        return None


def _stat(path: Path | None) -> tuple[int, int] | None:
    with suppress(OSError):
        if path is not None and path.is_file():
            found = path.stat()
            return found.st_size, found.st_mtime_ns
    return None


def _packed(look: Look) -> dict[str, Any]:
    """A look as JSON: most cells are as in the frame before, so that their differences are packed."""
    change = np.diff(look.cells, axis=0, prepend=np.uint8(0))
    cells = base64.b85encode(zlib.compress(change.tobytes(), 6)).decode()
    return {"times": [round(float(at), 3) for at in look.times], "cells": cells}


def _unpacked(data: dict[str, Any]) -> Look:
    change = np.frombuffer(zlib.decompress(base64.b85decode(data["cells"])), np.uint8).reshape(-1, CELLS)
    return Look(np.array(data["times"], np.float32), np.cumsum(change, axis=0, dtype=np.uint8))


def same_keys(pool: dict[int, list[str]], bench: dict[int, list[str]]) -> Links:
    """Clips of which one key is equal: an id in the name, or the sha256 of the file."""
    clips = defaultdict(list)
    for clip, keys in pool.items():
        for key in keys:
            clips[key].append(clip)
    found: Links = {}
    for clip, keys in bench.items():
        for key in keys:
            for other in clips.get(key, ()):
                found.setdefault((other, clip), Link(1.0, key))
    return found


async def same_files(pool: ClipFiles, bench: ClipFiles, tell: Tell) -> Links:
    """Clips whose files are equal byte for byte: only files of a size that both sides have are read."""
    sizes = {*pool.sizes.values()} & {*bench.sizes.values()}
    return same_keys(await pool.hashes(sizes, tell), await bench.hashes(sizes, tell))


async def same_frames(pool: ClipFiles, bench: ClipFiles, tell: Tell) -> Links:
    """Clips that show the same frames in the same order: one may be a part of the other.

    Both directions are searched, as the frames of the shorter clip are found in the longer one.
    """
    found: Links = {}
    clips = [
        (*sides, clip) for sides in ((pool, bench), (bench, pool)) for clip in range(len(sides[1].side.clips))
    ]
    for done, (searched, asked, clip) in enumerate(clips, 1):
        if (look := asked.look(clip)) is not None:
            for other, apart, offset in searched.gallery.copies(look):
                pair, begins = ((other, clip), offset) if asked is bench else ((clip, other), -offset)
                link = Link(1 - apart / (2 * ALIKE), f"frames alike, {begins:+.1f} s", begins)
                if pair not in found or link.score > found[pair].score:
                    found[pair] = link
        await tell(f"comparing frames with {bench.side.name}", done, len(clips))
    return found
