"""Batches decoded ahead of the model: in order, by decoder processes, in bounded memory, without bad clips.

An asyncio loop in a thread of its own loads `ahead` batches. Clips are decoded by a `DecodePool`; scenes of
the demo stream are drawn in that thread. The consumer gets the batches in the order in which they were
planned, and an error at the place of the batch that caused it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakSet

from videop2r_data.errors import MediaError
from videop2r_data.media import DecodePool, MediaKind
from videop2r_data.schemas import DataType, Focus, Frames, MediaSpec, RejectReason
from videop2r_data.trainer.data.examples import Example, Skip, draw

_File = tuple[Path, MediaKind, Focus]
_JOIN_S = 30.0
"""Seconds that `close` waits for the thread; its decoders are killed earlier."""


class LoadedBatch(NamedTuple):
    """The examples of one batch whose media could be read, and their frames.

    Attributes:
        examples: B of them; fewer than were planned when clips are bad, perhaps none.
        frames: B; None for text.
        kept: for each of the B, its index in the planned batch.
    """

    examples: tuple[Example, ...]
    frames: tuple[Frames | None, ...]
    skipped: tuple[Skip, ...]
    kept: tuple[int, ...]


class MediaLoader(Iterator[LoadedBatch]):
    """An iterator over loaded batches, once; use it as a context manager, or call `close`.

    A file that cannot be decoded costs its example, which is counted and never replaced. Equal files within
    a batch are decoded once. At most `ahead` batches are held, decoded or under way, beside the consumer's.

    Args:
        batches: asked for its next batch `ahead` batches early.
        workers: decoder processes; 0: `media.workers`, else one per core. None is started before the first
            file, so text and the demo stream need none.
        pool: has `sample` and `close` of a `DecodePool`, instead of the loader's own; closed with the loader.

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
        self._media = media
        self._batches, self._ahead = iter(batches), max(1, ahead)
        self._pool = pool or DecodePool(media, want="array", workers=workers)
        self._under_way: deque[Future[LoadedBatch]] = deque()
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="media-loader", daemon=True)
        self._thread.start()

    def __next__(self) -> LoadedBatch:
        """The next batch; waits for it.

        Raises:
            StopIteration: there is none, or the loader is closed.
            Exception: whatever the planned batches or the decoders raised, after the batches before it.
        """
        try:
            self._plan()
            if self._closed or not self._under_way:
                raise StopIteration
            found = self._under_way.popleft().result()
            self._plan()
            return found
        except CancelledError:  # closed by another thread
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop decoding and end the processes; safe to call twice, and from another thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _plan(self) -> None:
        """Start batches until `ahead` of them are under way; an error of the plan waits for its turn."""
        while len(self._under_way) < self._ahead:
            try:
                planned = next(self._batches, None)
            except Exception as error:  # noqa: BLE001 - raised again behind the batches before it
                self._batches = iter(())
                self._under_way.append(Future())
                self._under_way[-1].set_exception(error)
                return
            with self._closing:
                if planned is None or self._closed:
                    return
                self._under_way.append(asyncio.run_coroutine_threadsafe(self._load(planned), self._loop))

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pool.close()

    async def _load(self, planned: Sequence[Example]) -> LoadedBatch:
        """Load the frames of a batch, each part of each file once."""
        self._tasks.update(filter(None, [asyncio.current_task()]))
        files = [self._file(example) for example in planned]
        wanted = [file for file in dict.fromkeys(files) if file is not None]
        decoding = {file: asyncio.ensure_future(self._pool.sample(*file)) for file in wanted}
        try:
            await asyncio.gather(*decoding.values(), return_exceptions=True)
        finally:
            for task in decoding.values():
                task.cancel()
        kept: list[int] = []
        frames: list[Frames | None] = []
        skipped: list[Skip] = []
        for at, (example, file) in enumerate(zip(planned, files, strict=True)):
            try:  # any other error ends the loader
                frames.append(self._drawn(example) if file is None else decoding[file].result())
                kept.append(at)
            except MediaError as error:
                skipped.append(Skip(example.sample_id, error.reason, str(error)))
        return LoadedBatch(tuple(planned[at] for at in kept), tuple(frames), tuple(skipped), tuple(kept))

    def _file(self, example: Example) -> _File | None:
        """What to decode for an example; None for text and scenes without a file."""
        if example.path is None or example.data_type is DataType.TEXT:
            return None
        kind: MediaKind = "video" if example.data_type is DataType.VIDEO else "image"
        return example.path, kind, self._media.focus(example.focus, example.problem)

    def _drawn(self, example: Example) -> Frames | None:
        """The frames of an example without a file."""
        if example.data_type is DataType.TEXT:
            return None
        if example.scene is None:
            raise MediaError("neither a file nor a scene", reason=RejectReason.MEDIA_MISSING)
        return draw(example.scene, self._media)
