"""The files behind clips: equal ones by sha256, alike ones by their frames; what was read is journaled."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property, lru_cache
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

Stat = tuple[int, int]
"""Bytes, and the time of the last change: a file with both as before is not read again."""
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
Tell = Callable[[int, int | None], Awaitable[None]]
"""Told how many of how many are done; raises to stop."""


class ClipFiles:
    """The files of one side's clips, as far as they are there."""

    def __init__(self, side: Side, journal: Journal, spec: MediaSpec) -> None:
        self._journal = journal
        self._settings = spec.model_dump(mode="json", exclude={"workers", "limits"})
        self._files = [_file_of(side, clip) for clip in side.clips]
        self._kinds = [clip.data_type for clip in side.clips]
        self._stats = [_stat(path) for path in self._files]
        self._look = lru_cache(_HELD)(self._read_look)

    @property
    def any(self) -> bool:
        """Whether one file at least is there."""
        return any(stat is not None for stat in self._stats)

    @property
    def missing(self) -> list[int]:
        """Clips whose file is not there."""
        return [clip for clip, stat in enumerate(self._stats) if stat is None]

    @property
    def unseen(self) -> list[int]:
        """Clips of which no frame is known that shows something."""
        return [clip for clip in range(len(self._files)) if self.look(clip) is None]

    @cached_property
    def gallery(self) -> Gallery:
        """All clips whose look is known, once they were sampled."""
        return Gallery(self.look, len(self._files))

    def __len__(self) -> int:
        return len(self._files)

    def sizes(self) -> dict[int, list[int]]:
        """Bytes -> clips whose file has so many."""
        found = defaultdict(list)
        for clip, stat in enumerate(self._stats):
            if stat is not None:
                found[stat[0]].append(clip)
        return found

    async def hash(self, clips: Iterable[int], tell: Tell) -> dict[int, str]:
        """Clip -> sha256 of its file; a file that cannot be read has none."""
        found: dict[int, str] = {}
        wanted = list(clips)
        for done, clip in enumerate(wanted, 1):
            key = self._key("file", clip)
            if (known := self._known(key, clip)) is None:
                try:
                    path = self._files[clip]
                    assert path is not None
                    known = {"sha256": await asyncio.to_thread(file_digest, path)}
                    self._keep(key, clip, known)
                except OSError:
                    self._stats[clip] = None
            if known is not None:
                found[clip] = known["sha256"]
            await tell(done, len(wanted))
        return found

    async def sample(self, pool: DecodePool, tell: Tell) -> None:
        """Read the frames of every file that is there and whose look is not in the journal."""
        wanted = {self._files[clip]: clip for clip, stat in enumerate(self._stats) if stat is not None}
        todo = iter([clip for clip in wanted.values() if self._known(self._key("look", clip), clip) is None])
        done = 0

        async def worker() -> None:
            nonlocal done
            for clip in todo:
                await self._sample(pool, clip)
                done += 1
                await tell(done, len(wanted))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(pool.workers):
                    group.create_task(worker())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # one cause is enough, and callers know its type

    async def _sample(self, pool: DecodePool, clip: int) -> None:
        path = self._files[clip]
        assert path is not None
        data: dict[str, Any]
        try:
            frames = await pool.sample(path, "video" if self._kinds[clip] == "video" else "image")
        except MediaError as error:
            if error.reason == RejectReason.DECODE_KILLED:
                return  # not the file's fault: the next run tries again
            data = {"failed": error.reason}
        else:
            look = look_of(frames)
            data = {"plain": True} if look is None else _packed(look)
        self._keep(self._key("look", clip), clip, data)

    def look(self, clip: int) -> Look | None:
        """What a clip looks like; None: not known, or it shows nothing."""
        return self._look(clip)

    def _read_look(self, clip: int) -> Look | None:
        known = self._known(self._key("look", clip), clip)
        return _unpacked(known) if known is not None and "cells" in known else None

    def _key(self, what: str, clip: int) -> str:
        settings = self._settings if what == "look" else {}
        return digest([f"overlap/{what}/1", settings, str(self._files[clip]), self._kinds[clip]])

    def _known(self, key: str, clip: int) -> dict[str, Any] | None:
        stat, known = self._stats[clip], self._journal.media(key) if self._stats[clip] else None
        return known if known is not None and stat is not None and known["stat"] == list(stat) else None

    def _keep(self, key: str, clip: int, data: dict[str, Any]) -> None:
        self._journal.put_media(key, {"stat": self._stats[clip]} | data)


def _file_of(side: Side, clip: Clip) -> Path | None:
    root = side.roots.get(clip.source)
    try:
        return None if root is None else resolve_media(root, clip.path)
    except MediaError:
        return None


def _stat(path: Path | None) -> Stat | None:
    try:
        found = path.stat() if path is not None and path.is_file() else None
    except OSError:
        return None
    return None if found is None else (found.st_size, found.st_mtime_ns)


def _packed(look: Look) -> dict[str, Any]:
    """A look as JSON: most cells are as in the frame before, so that their differences are packed."""
    change = np.diff(look.cells, axis=0, prepend=np.uint8(0))
    cells = base64.b85encode(zlib.compress(change.tobytes(), 6)).decode()
    return {"times": [round(float(at), 3) for at in look.times], "cells": cells}


def _unpacked(data: dict[str, Any]) -> Look:
    change = np.frombuffer(zlib.decompress(base64.b85decode(data["cells"])), np.uint8).reshape(-1, CELLS)
    return Look(np.array(data["times"], np.float32), np.cumsum(change, axis=0, dtype=np.uint8))


async def same_files(pool: ClipFiles, bench: ClipFiles, tell: Tell) -> Links:
    """Clips whose files are equal byte for byte: only files of a size that both sides have are read.

    Those that cannot be read count as missing from then on.
    """
    sizes = [side.sizes() for side in (pool, bench)]
    both = sizes[0].keys() & sizes[1].keys()
    hashed = [
        await side.hash([clip for size in sorted(both) for clip in by_size[size]], tell)
        for side, by_size in zip((pool, bench), sizes, strict=True)
    ]
    clips = defaultdict(list)
    for clip, sha256 in hashed[0].items():
        clips[sha256].append(clip)
    return {
        (mine, clip): Link(1.0, f"sha256:{sha256[:16]}")
        for clip, sha256 in hashed[1].items()
        for mine in clips.get(sha256, ())
    }


async def same_frames(pool: ClipFiles, bench: ClipFiles, tell: Tell) -> Links:
    """Clips that show the same frames in the same order: one may be a part of the other.

    Both directions are searched, as the frames of the shorter clip are found in the longer one.
    """
    found: Links = {}
    done = 0
    for searched, asked in ((pool, bench), (bench, pool)):
        for clip in range(len(asked)):
            if (look := asked.look(clip)) is not None:
                for other, apart, offset in searched.gallery.copies(look):
                    pair, begins = ((other, clip), offset) if asked is bench else ((clip, other), -offset)
                    link = Link(1 - apart / (2 * ALIKE), f"frames alike, {begins:+.1f} s", begins)
                    if pair not in found or link.score > found[pair].score:
                        found[pair] = link
            done += 1
            await tell(done, len(pool) + len(bench))
    return found
