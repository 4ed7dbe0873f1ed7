"""Batches decoded ahead of the model: in order, by decoder processes, in bounded memory, without bad clips.

An asyncio loop in a thread of its own keeps `ahead` batches under way. Clips are decoded by a `DecodePool`;
scenes of the demo stream are drawn in that thread. The consumer gets the batches in the order in which they
were planned, and an error at the place of the batch that caused it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videop2r_data.errors import MediaError
from videop2r_data.media import DecodePool, MediaKind
from videop2r_data.schemas import DataType, Focus, Frames, MediaSpec, RejectReason
from videop2r_data.trainer.data.examples import Example, Skip, draw

_File = tuple[Path, MediaKind, Focus]
_JOIN_S = 30.0
"""Seconds that `close` waits for the thread; its decoders are killed earlier."""


@dataclass(frozen=True)
class LoadedBatch:
    """The examples of one batch whose media could be read, and their frames.

    Attributes:
        examples: B of them; fewer than were planned when clips are bad, perhaps none.
        frames: B; None for text.
        skipped: the others, with the reason.
        kept: for each of the B, its index in the planned batch.
    """

    examples: tuple[Example, ...]
    frames: tuple[Frames | None, ...]
    skipped: tuple[Skip, ...] = ()
    kept: tuple[int, ...] = ()


class MediaLoader:
    """An iterator over loaded batches, once; use it as a context manager, or call `close`.

    A file that cannot be decoded costs its example, which is counted and never replaced. Equal files within
    a batch are decoded once. At most `ahead` batches are held, decoded or under way, beside the consumer's.

    Args:
        batches: what to load; asked for its next batch from the loader's thread, `ahead` batches early.
        media: how frames are sampled.
        workers: decoder processes; 0: `media.workers`, else one per core. None is started before the first
            file, so text and the demo stream need none.
        ahead: see above.
        pool: decodes with `sample` and `close` as a `DecodePool` does, instead of the loader's own; closed
            with the loader.

    Raises:
        ConfigError: (on iteration) no decoder process can be started.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[Example]],
        media: MediaSpec,
        *,
        workers: int = 0,
        ahead: int = 2,
        pool: Any = None,
    ) -> None:
        self.media = media
        self.skipped: Counter[str] = Counter()
        """Reason -> examples left out, of the batches that were handed over so far."""
        self._batches = iter(batches)
        self._pool = pool or DecodePool(media, want="array", workers=workers)
        self._ahead = max(1, ahead)
        self._ready: queue.Queue[LoadedBatch | BaseException | None] = queue.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: asyncio.Semaphore | None = None
        self._main: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="media-loader", daemon=True)

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
        """The next batch; waits for it.

        Raises:
            StopIteration: there is none, or the loader is closed.
            Exception: whatever the planned batches or the decoders raised, after the batches before it.
        """
        if self._closing.is_set():
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        found = self._ready.get()
        if not isinstance(found, LoadedBatch):
            self.close()
            raise StopIteration if found is None else found
        if self._loop is not None and self._room is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nothing waits for room any more
                self._loop.call_soon_threadsafe(self._room.release)
        self.skipped.update(skip.reason for skip in found.skipped)
        return found

    def close(self) -> None:
        """Stop decoding and end the processes; safe to call twice, and from another thread."""
        self._closing.set()
        if self._thread.ident is None:
            return
        loop, main = self._loop, self._main
        if loop is not None and main is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(main.cancel)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        """The thread's body; every error in it is raised again in the consumer."""
        end: BaseException | None = None
        try:
            with asyncio.Runner() as runner:
                try:
                    runner.run(self._plan())
                finally:
                    # A run of its own, so that `close`, which cancels the first, cannot stop it half-way.
                    runner.run(self._end())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer's thread
            end = error
        self._ready.put(end)

    async def _plan(self) -> None:
        """Start the next batch whenever there is room; returns once the last one is handed over."""
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._room = asyncio.Semaphore(self._ahead)
        last: asyncio.Task[None] | None = None
        failed: Exception | None = None
        try:
            while not self._closing.is_set():
                await self._room.acquire()
                planned = next(self._batches, None)
                if planned is None:
                    break
                last = asyncio.create_task(self._hand_over(planned, last))
                self._under_way.add(last)
                last.add_done_callback(self._under_way.discard)
        except Exception as error:  # noqa: BLE001 - raised below, behind the batches before it
            failed = error
        if last is not None:
            await asyncio.wait({last})
        if failed is not None:
            raise failed

    async def _hand_over(self, planned: Sequence[Example], before: asyncio.Task[None] | None) -> None:
        """Load a batch, and queue it or its error behind the batch before it."""
        found: LoadedBatch | Exception
        try:
            found = await self._load(planned)
        except Exception as error:  # noqa: BLE001 - raised again in the consumer's thread
            found = error
        if before is not None:
            await asyncio.wait({before})
        self._ready.put(found)

    async def _end(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._pool.close()

    async def _load(self, planned: Sequence[Example]) -> LoadedBatch:
        """Load the frames of a batch, each part of each file once."""
        files: dict[_File, asyncio.Task[Frames]] = {}
        for example in planned:
            key = self._file(example)
            if key is not None and key not in files:
                files[key] = asyncio.ensure_future(self._pool.sample(*key))
        try:
            await asyncio.gather(*files.values(), return_exceptions=True)
        finally:
            for task in files.values():
                task.cancel()
        kept: list[int] = []
        frames: list[Frames | None] = []
        skipped: list[Skip] = []
        for at, example in enumerate(planned):
            try:
                frames.append(self._frames(example, files))
                kept.append(at)
            except MediaError as error:
                skipped.append(Skip(example.sample_id, error.reason, str(error)))
        return LoadedBatch(
            examples=tuple(planned[at] for at in kept),
            frames=tuple(frames),
            skipped=tuple(skipped),
            kept=tuple(kept),
        )

    def _frames(self, example: Example, files: dict[_File, asyncio.Task[Frames]]) -> Frames | None:
        """The decoded frames, or those of a scene, drawn now; any error but MediaError ends the loader."""
        key = self._file(example)
        if key is not None:
            return files[key].result()
        if example.data_type is DataType.TEXT:
            return None
        if example.scene is None:
            raise MediaError("neither a file nor a scene", reason=RejectReason.MEDIA_MISSING)
        return draw(example.scene, self.media)

    def _file(self, example: Example) -> _File | None:
        """What to decode for an example; None for text and scenes without a file."""
        if example.path is None or example.data_type is DataType.TEXT:
            return None
        kind: MediaKind = "video" if example.data_type is DataType.VIDEO else "image"
        return example.path, kind, self.media.focus(example.focus, example.problem)
