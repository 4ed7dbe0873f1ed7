"""Frames of a sample: what was sampled is journaled, pixels are held only while a call needs them."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from videop2r_data.backends.journal import Journal
from videop2r_data.errors import MediaError
from videop2r_data.media import resolve_media
from videop2r_data.schemas import DataType, RejectReason, Sample, digest
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.recipe import MediaSpec

RECENT_FRAMES = 32
"""Clips whose pixels are kept for the next question about them."""


class Sampler(Protocol):
    """What decodes: a `media.DecodePool`."""

    async def sample(self, path: Path, data_type: Any) -> Frames:
        """Frames of one file, or MediaError."""
        ...


class ChangedMediaError(Exception):
    """The file gives other frames than its record says: the request must be built anew."""


class MediaStep:
    """Looks up or samples the media of a question.

    Args:
        spec: how frames are sampled.
        journal: keeps the records.
        roots: source name -> media root.
        sampler: decodes; None: answers come from the journal only (`replay`), files are not looked at.
        retry_failed: look once more at each file that failed in an earlier run.
    """

    def __init__(
        self,
        spec: MediaSpec,
        *,
        journal: Journal,
        roots: Mapping[str, Path],
        sampler: Sampler | None,
        retry_failed: bool = False,
    ) -> None:
        self.journal = journal
        self.roots = roots
        self.sampler = sampler
        self._retry_failed = retry_failed
        self._retried: set[str] = set()
        self.decoded = 0
        """Files sampled in this run."""
        settings = spec.model_dump(mode="json", exclude={"workers", "limits", "encoding", "quality"})
        self._settings = digest(settings)
        self._limits = digest(spec.limits.model_dump(mode="json"))
        self._recent: OrderedDict[str, asyncio.Task[Frames]] = OrderedDict()
        self._under_way: set[asyncio.Task[Frames]] = set()

    async def close(self) -> None:
        """Give up what is still being sampled: the journal is about to be closed."""
        tasks, self._recent = list(self._under_way), OrderedDict()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[Frames]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it; if that one was cancelled, nobody need

    def key(self, sample: Sample) -> str:
        """Where the journal keeps what was sampled for this question's file."""
        return digest(["media/1", self._settings, sample.source, sample.path, sample.data_type.value])

    async def record(self, sample: Sample) -> MediaRecord | None:
        """What is sampled for a question; None for a question without media.

        Raises:
            MediaError: the file costs its rows.
        """
        if sample.data_type is DataType.TEXT:
            return None
        key = self.key(sample)
        known = self.journal.media(key)
        if known is not None and (self.sampler is None or await self._still_true(sample, known)):
            return _read(known)
        if self.sampler is None:
            raise MediaError("not in the journal", reason=RejectReason.CALL_FAILED.value)
        return (await self._sampled(sample, key)).record

    async def frames(self, sample: Sample, expected: MediaRecord) -> Frames:
        """The pixels of a question.

        Raises:
            MediaError: the file cannot be read any more.
            ChangedMediaError: it gives other frames than `expected`; the new record is in the journal.
        """
        frames = await self._sampled(sample, self.key(sample))
        if frames.record.frames_sha256 != expected.frames_sha256:
            raise ChangedMediaError(sample.path)
        return frames

    async def _sampled(self, sample: Sample, key: str) -> Frames:
        task = self._recent.get(key)
        if task is None:
            task = asyncio.ensure_future(self._decode(sample, key))
            self._recent[key] = task
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            if len(self._recent) > RECENT_FRAMES:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(key)
        return await asyncio.shield(task)

    async def _decode(self, sample: Sample, key: str) -> Frames:
        assert self.sampler is not None
        stat: list[int] | None = None
        try:
            path = resolve_media(self.roots[sample.source], sample.path)
            stat = _stat(path)
            frames = await self.sampler.sample(path, sample.data_type.value)
        except MediaError as error:
            failed = {"failed": error.reason, "detail": error.message, "limits": self._limits, "stat": stat}
            if self.journal.media(key) != failed:
                self.journal.put_media(key, failed)
            raise
        self.decoded += 1
        data = {"record": frames.record.model_dump(mode="json"), "stat": stat}
        if self.journal.media(key) != data:
            self.journal.put_media(key, data)
        return frames

    async def _still_true(self, sample: Sample, known: dict[str, Any]) -> bool:
        """Whether a record still speaks of the file that lies there now."""
        if "failed" in known and self._retry_failed and sample.path not in self._retried:
            self._retried.add(sample.path)
            return False
        if "failed" in known and known["limits"] != self._limits:
            return False
        try:
            path = resolve_media(self.roots[sample.source], sample.path)
        except MediaError as error:
            return known.get("failed") == error.reason
        stat = _stat(path)
        if stat == known["stat"]:
            return True
        if stat is None or known["stat"] is None or stat[0] != known["stat"][0] or "failed" in known:
            return False
        # same size, other time: copied or touched; only the content tells
        try:
            same: bool = await asyncio.to_thread(_sha256, path) == known["record"]["file_sha256"]
        except OSError:
            return False
        fresh = known | {"stat": stat}
        if same and self.journal.media(self.key(sample)) != fresh:
            self.journal.put_media(self.key(sample), fresh)  # the next run need not read the whole file
        return same


def _read(known: dict[str, Any]) -> MediaRecord:
    if "failed" in known:
        raise MediaError(known["detail"], reason=known["failed"])
    return MediaRecord.model_validate(known["record"])


def _stat(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
