"""Frames of a sample: decoded once, journaled by digest, held in memory only while a call needs them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from videop2r_data.backends import Journal, Loader
from videop2r_data.errors import MediaError, StoppedError
from videop2r_data.files import file_digest, resolve_media
from videop2r_data.schemas import (
    WHOLE,
    DataType,
    Focus,
    Frames,
    MediaRecord,
    MediaSpec,
    RejectReason,
    Sample,
    digest,
    digest_bytes,
)

T = TypeVar("T")

# Decoded frames in memory: each file is decoded once and kept while any question needs it, within a budget
# of bytes.


RECENT_FRAMES = 32
"""Frame sets without a holder that are kept for a later question about the same file."""


@dataclass(slots=True, eq=False)
class _Entry:
    """The frames of one file, decoded or being decoded."""

    task: asyncio.Task[Frames]
    holders: int = 0
    size: int | None = None
    """Bytes that the frames take; None until they are there."""


class FrameStore:
    """Shares decoded frames between questions; a decode starts only when its frames fit the budget.

    A question that holds frames waits for its call, never for room, so that the room is always given back. A
    decode that would not fit even into an empty store is started when the store is empty. Room is handed out
    first come, first served: decoding keeps to the order of the pool.

    Args:
        budget: bytes of all frame sets that are held or on their way.
        recent: sets without a holder that are kept while there is room.
    """

    def __init__(self, budget: int, *, recent: int = RECENT_FRAMES) -> None:
        self.budget = budget
        self.used = 0
        """Bytes held, and reserved for what is being decoded."""
        self._recent_limit = recent
        self._entries: dict[str, _Entry] = {}
        self._recent: OrderedDict[str, _Entry] = OrderedDict()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._stopped = False

    async def take(self, key: str, reserve: int, decode: Callable[[], Awaitable[Frames]]) -> Frames:
        """The frames of `key`, decoded unless they are there; hand them back with `release`, exactly once.

        Args:
            reserve: bytes that the frames will take, as far as that is known before.

        Raises:
            Exception: what `decode` raised, in every waiting question; no frames are held then.
            StoppedError: the run was asked to stop before the frames were there.
        """
        if self._stopped:
            raise StoppedError("asked to stop before a file was decoded")
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(asyncio.ensure_future(self._make(reserve, decode)))
            entry.task.add_done_callback(lambda _: self._ended(key, entry))
        entry.holders += 1
        self._recent.pop(key, None)
        try:
            return await asyncio.shield(entry.task)
        except BaseException as error:
            self._let_go(key, entry)
            if isinstance(error, asyncio.CancelledError) and entry.task.cancelled() and self._stopped:
                raise StoppedError("asked to stop while a file was decoded") from None
            raise

    def stop(self) -> None:
        """Start no further decode and cancel those under way; decoded frames stay."""
        self._stopped = True
        for entry in self._entries.values():
            entry.task.cancel()

    def release(self, key: str) -> None:
        """One question less needs the frames of `key`."""
        entry = self._entries.get(key)
        if entry is not None:  # `close` came first
            self._let_go(key, entry)

    async def close(self) -> None:
        """Cancel what is under way and drop what is held."""
        tasks = [entry.task for entry in self._entries.values() if not entry.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._entries.clear()
        self._recent.clear()

    async def _make(self, reserve: int, decode: Callable[[], Awaitable[Frames]]) -> Frames:
        await self._room(reserve)
        try:
            frames = await decode()
        except BaseException:
            self.used -= reserve
            raise
        self.used += frames.nbytes - reserve
        return frames

    def _ended(self, key: str, entry: _Entry) -> None:
        """Called when a decode ends, before the questions that wait for it go on."""
        if entry.task.cancelled() or entry.task.exception() is not None:
            # waiting questions get the error from the task; a later question decodes again
            if self._entries.get(key) is entry:
                del self._entries[key]
        else:
            entry.size = entry.task.result().nbytes
            if not entry.holders:
                self._rest(key, entry)
        self._wake()

    def _let_go(self, key: str, entry: _Entry) -> None:
        entry.holders -= 1
        if not entry.holders and entry.size is not None and self._entries.get(key) is entry:
            self._rest(key, entry)
            self._wake()

    def _rest(self, key: str, entry: _Entry) -> None:
        """The last holder is gone: keep the frames as recent, and drop the oldest beyond the limit."""
        self._recent[key] = entry
        while len(self._recent) > self._recent_limit:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        key, entry = self._recent.popitem(last=False)
        del self._entries[key]
        self.used -= entry.size or 0

    async def _room(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self.used += size
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.used -= size
            self._wake()
            raise

    def _fits(self, size: int) -> bool:
        while self._recent and self.used + size > self.budget:
            self._drop_oldest()
        return self.used == 0 or self.used + size <= self.budget

    def _wake(self) -> None:
        while self._waiting:
            size, future = self._waiting[0]
            if not future.done():
                if not self._fits(size):
                    return
                self.used += size
                future.set_result(None)
            self._waiting.popleft()


# The media step: the digests of the sampled frames are journaled, so that a request's key needs no pixels.


_NO_PIXELS = {"workers", "buffer_mb", "limits", "encoding", "quality", "passthrough"}
"""Settings that change no sampled pixel: they are left out of the record's key."""


KILLED_RUNS = 3
"""After so many runs with a killed decoder the file counts as the cause."""


class Sampler(Protocol):
    """What decodes: a `media.DecodePool`."""

    async def sample(self, path: Path, data_type: Any, focus: Focus) -> Frames:
        """Frames of one file or of a part of it, or MediaError."""
        ...


class ChangedMediaError(Exception):
    """The file gives other frames than its record says: the request must be built anew."""


class Held:
    """One question's claim on the frames of its file; they stay in memory until it is given up.

    Frames are held from the first decode on, so that a question decodes its file once, however long its calls
    wait and however many tries it takes. A question whose answers are in the journal holds nothing.
    """

    def __init__(self, step: MediaStep, sample: Sample) -> None:
        self._step = step
        self._sample = sample
        self._frames: Frames | None = None

    async def record(self) -> MediaRecord | None:
        """What is sampled for the question; None for a question without media.

        Raises:
            MediaError: the file costs its rows.
        """
        if self._sample.data_type is DataType.TEXT:
            return None
        if self._frames is not None:
            return self._frames.record
        known = await self._step.known(self._sample)
        return known if known is not None else (await self._take()).record

    async def asked(self, ask: Callable[[MediaRecord | None], Awaitable[T]]) -> T:
        """What `ask` makes of the media record; once more if the file changes meanwhile.

        Raises:
            MediaError: the file costs its rows.
        """
        for _ in range(3):
            media = await self.record()
            try:
                return await ask(media)
            except ChangedMediaError:
                continue  # the file changed: its new record is in the journal, build the request from that
        raise MediaError(
            "the file changes while it is read",
            reason=RejectReason.MEDIA_UNREADABLE.value,
            where=self._sample.path,
        )

    def loader(self, media: MediaRecord | None) -> Loader | None:
        """What gives the pixels; None for a question without media."""
        return None if media is None else partial(self.frames, media)

    async def frames(self, expected: MediaRecord) -> Frames:
        """The pixels of the question.

        Raises:
            MediaError: the file cannot be read any more.
            ChangedMediaError: it gives other frames than `expected`; the new record is in the journal.
        """
        frames = await self._take()
        found, wire = frames.record, self._step.spec.wire_of
        if found.frames_sha256 != expected.frames_sha256 or wire(found.passthrough) != wire(
            expected.passthrough
        ):
            raise ChangedMediaError(self._sample.path)
        return frames

    def release(self) -> None:
        """Give the frames up; asked for again, they are decoded again unless they are still there."""
        if self._frames is not None:
            self._frames = None
            self._step.store.release(self._step.key(self._sample))

    async def _take(self) -> Frames:
        if self._frames is None:
            self._frames = await self._step.take(self._sample)
        return self._frames


class MediaStep:
    """Looks up or samples the media of a question.

    Args:
        spec: how frames are sampled.
        journal: keeps the records.
        roots: source name -> media root.
        sampler: decodes; None: answers come from the journal only (`replay`), files are not looked at.
        arrays: the sampler gives pixels, not encoded pictures.
    """

    def __init__(
        self,
        spec: MediaSpec,
        *,
        journal: Journal,
        roots: Mapping[str, Path],
        sampler: Sampler | None,
        arrays: bool = False,
    ) -> None:
        self.spec = spec
        self.journal = journal
        self.roots = roots
        self.sampler = sampler
        self._tried: set[str] = set()
        """Keys of files whose decode ended in this run, with frames or with an error."""
        self.decoded = 0
        """Files sampled in this run."""
        settings = spec.model_dump(mode="json", exclude=_NO_PIXELS)
        self._settings = digest(settings)
        self._limits = digest(spec.limits.model_dump(mode="json"))
        self._looks_at = {DataType.IMAGE: spec.passthrough and not arrays}
        """Whether the bytes of a file may be sent as they are."""
        self._reserve = _expected_bytes(spec, arrays=arrays)
        self.store = FrameStore(spec.buffer_mb * 2**20)

    async def close(self) -> None:
        """Give up what is still being sampled: the journal is about to be closed."""
        await self.store.close()

    def key(self, sample: Sample) -> str:
        """Key of the media record of a question in the journal."""
        return self.key_of(sample.source, sample.path, sample.data_type, self._focus(sample))

    def key_of(self, source: str, path: str, data_type: DataType, focus: Focus) -> str:
        """Key of the media record of a file in the journal."""
        place = ["media/1", self._settings, source, path, data_type.value]
        more: list[Any] = [] if focus.part == WHOLE.part else list(focus.part)
        if focus.question and self.spec.look is not None:
            from videop2r_data.media import embedder_key

            more += [embedder_key(self.spec.look), digest_bytes(focus.question.encode())]
        return digest([*place, *more])

    def _focus(self, sample: Sample) -> Focus:
        return self.spec.focus(sample.focus, sample.problem)

    @contextmanager
    def hold(self, sample: Sample) -> Iterator[Held]:
        """A claim on the media of a question, released when the block ends."""
        held = Held(self, sample)
        try:
            yield held
        finally:
            held.release()

    async def known(self, sample: Sample) -> MediaRecord | None:
        """The journaled media record if the file is unchanged; None: decode the file.

        Raises:
            MediaError: the record is a failure, or (`replay`) there is no record.
        """
        key = self.key(sample)
        known = self.journal.media(key)
        if self.sampler is None and known is None:
            raise MediaError("not in the journal", reason=RejectReason.CALL_FAILED.value)
        if known is None or (self.sampler is not None and not await self._still_true(sample, key, known)):
            return None
        if "failed" in known:
            raise MediaError(known["detail"], reason=known["failed"])
        return MediaRecord.model_validate(known["record"])

    async def take(self, sample: Sample) -> Frames:
        """The frames of a question, shared with all who hold them; see `FrameStore.take`.

        Raises:
            MediaError: the file costs its rows.
        """
        key = self.key(sample)
        return await self.store.take(key, self._reserve[sample.data_type], lambda: self._decode(sample, key))

    async def _decode(self, sample: Sample, key: str) -> Frames:
        assert self.sampler is not None
        stat: list[int] | None = None
        try:
            path = resolve_media(self.roots[sample.source], sample.path)
            stat = _stat(path)
            frames = await self.sampler.sample(path, sample.data_type.value, self._focus(sample))
        except MediaError as error:
            raise self._failed(key, error, stat) from None
        finally:
            self._tried.add(key)
        self.decoded += 1
        data = {"record": frames.record.model_dump(mode="json"), "stat": stat}
        if self.journal.media(key) != data:
            self.journal.put_media(key, data)
        return frames

    def _failed(self, key: str, error: MediaError, stat: list[int] | None) -> MediaError:
        """Journal why a file cannot be used; returns the error as later runs will raise it."""
        failed: dict[str, Any] = {"limits": self._limits, "stat": stat}
        before = self.journal.media(key)
        if error.reason == RejectReason.DECODE_KILLED:
            runs = failed["killed"] = (before or {}).get("killed", 0) + 1
            if runs >= KILLED_RUNS:
                error = MediaError(
                    f"{error.message}; so in {runs} runs", reason=RejectReason.DECODE_CRASH, where=error.where
                )
        failed |= {"failed": error.reason, "detail": error.message}
        if before != failed:
            self.journal.put_media(key, failed)
        return error

    async def _still_true(self, sample: Sample, key: str, known: dict[str, Any]) -> bool:
        """Whether a record describes the file that is on disk now."""
        if "failed" in known:
            # once more after a killed decoder, but not while another question decodes: its result is shared
            again = known["failed"] == RejectReason.DECODE_KILLED and key not in self._tried
            if again or known["limits"] != self._limits:
                return False
        elif self._looks_at.get(sample.data_type) and known["record"].get("passthrough") is None:
            return False  # made without asking if the file's own bytes can be sent
        try:
            path = resolve_media(self.roots[sample.source], sample.path)
        except MediaError as error:
            return known.get("failed") == error.reason
        stat = _stat(path)
        if stat == known["stat"]:
            return True
        if stat is None or known["stat"] is None or stat[0] != known["stat"][0] or "failed" in known:
            return False
        # same size, other mtime: copied or touched, only the digest can tell
        try:
            same: bool = await asyncio.to_thread(file_digest, path) == known["record"]["file_sha256"]
        except OSError:
            return False
        fresh = known | {"stat": stat}
        if same and self.journal.media(key) != fresh:
            self.journal.put_media(key, fresh)  # so that the next run does not hash the file
        return same


def _expected_bytes(spec: MediaSpec, *, arrays: bool) -> dict[DataType, int]:
    """What the frames of one file take in memory; JPEG at a byte a pixel, which only noise exceeds."""
    per_pixel = 3 if arrays or spec.encoding == "png" else 1
    return {
        DataType.IMAGE: per_pixel * (spec.image_max_pixels or spec.max_pixels),
        DataType.VIDEO: per_pixel * spec.max_pixels * spec.frames,
    }


def _stat(path: Path) -> list[int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
