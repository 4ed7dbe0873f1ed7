"""Decoder processes under limits of time and memory, recycled: a bad file costs its row, not the run."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from videop2r_data.errors import MediaError
from videop2r_data.media.process import Decoder, DecoderDiedError, DisplacedError
from videop2r_data.media.sampling import MediaKind, MediaProbe, Want
from videop2r_data.media.worker import WireError, frames_of
from videop2r_data.schemas import Frames, MediaSpec, RejectReason

RECYCLE_AFTER = 8192
"""Files that one process decodes before a fresh one takes over. One that grows by an eighth of
`limits.memory_mb` is replaced earlier: leaks in a decoder stay small."""


class DecodePool:
    """Spawned decoder processes behind one asynchronous function. Results do not depend on their number.

    Args:
        spec: sampling settings and limits.
        want: `array` or `encoded` frames.
        workers: processes; 0: `spec.workers`, and if that is 0 too, one per core.
        recycle_after: files that one process decodes.

    Processes are started when they are first needed. Each ignores Ctrl-C, and dies when the parent does,
    however that ends. A call that is cancelled kills the process that worked for it. A file over which a
    process died is tried once more, in a fresh one; a file that took too long is not.

    Example::

        async with DecodePool(recipe.media, want="encoded") as pool:
            frames = await pool.sample(path, "video")
    """

    def __init__(
        self, spec: MediaSpec, *, want: Want, workers: int = 0, recycle_after: int = RECYCLE_AFTER
    ) -> None:
        self.spec = spec
        self.want: Want = want
        self.workers = workers or spec.workers or _cores()
        self._recycle_after = recycle_after
        self._all: list[Decoder] = []
        self._waiting: deque[asyncio.Future[Decoder]] = deque()

    async def start(self) -> None:
        """Make the pool usable in the running loop; safe to call twice.

        Raises:
            MissingExtraError: decord is asked for and not installed.
        """
        if self._all:
            return
        if self.spec.decoder == "decord":
            from videop2r_data.media.video import require_decord

            require_decord()
        self._all = [Decoder(self.spec, self._recycle_after) for _ in range(self.workers)]

    async def sample(self, path: Path, data_type: MediaKind) -> Frames:
        """Sample one file, in a process of the pool.

        Raises:
            MediaError: as `sample_media`, and `decode_timeout`, `decode_crash`, `decode_killed`.
            ConfigError: no decoder process can be started here.
        """
        header, blobs = await self._call({"do": "sample", "data_type": data_type, "want": self.want}, path)
        try:
            return frames_of(header, blobs, self.spec, self.want)
        except WireError as error:
            raise _crash(path, f"its decoder process sent {error}") from None

    async def probe(self, path: Path, data_type: MediaKind, deep: bool = False) -> MediaProbe:
        """Look at one file, in a process of the pool.

        Raises:
            MediaError: as `probe_media`, and `decode_timeout`, `decode_crash`, `decode_killed`.
            ConfigError: no decoder process can be started here.
        """
        header, _ = await self._call({"do": "probe", "data_type": data_type, "deep": deep}, path)
        try:
            return MediaProbe.model_validate(header.get("probe"))
        except ValidationError as error:
            raise _crash(path, f"its decoder process sent {error.error_count()} bad fields") from None

    async def close(self) -> None:
        """End every process; safe to call twice."""
        decoders, self._all = self._all, []
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(RuntimeError("the pool was closed"))
        for decoder in decoders:
            await decoder.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, request: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[bytes]]:
        await self.start()
        request = {**request, "path": os.fsencode(path).hex()}
        died: DecoderDiedError | None = None
        while True:
            decoder = await self._slot()
            try:
                header, blobs = await decoder.ask(request, self.spec.limits.wall_s)
            except TimeoutError:
                raise self._timeout(path) from None
            except WireError as error:
                raise _crash(path, f"its decoder process sent {error}") from None
            except DecoderDiedError as error:
                # An earlier file may have damaged that process, or the signal was not about this file.
                if died is not None:
                    raise _died_twice(path, error) from None
                died = error
            except DisplacedError:
                if decoder not in self._all:
                    raise RuntimeError("the pool was closed") from None
            else:
                if header.get("ok") is True:
                    return header, blobs
                raise _refusal(header, path)
            finally:
                self._give_back(decoder)

    async def _slot(self) -> Decoder:
        """Wait for the decoder with the fewest requests, running ones first; calls are served in order."""
        decoder = None if self._waiting else self._pick()
        if decoder is None:
            future: asyncio.Future[Decoder] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                return await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self._give_back(future.result())
                raise
        return decoder

    def _pick(self) -> Decoder | None:
        decoder = min(self._all, key=lambda d: (d.pending, d.pid is None))
        if decoder.pending >= decoder.depth:
            return None
        decoder.pending += 1
        return decoder

    def _give_back(self, decoder: Decoder) -> None:
        decoder.pending -= 1
        while self._waiting and self._all:
            if self._waiting[0].done():
                self._waiting.popleft()
                continue
            picked = self._pick()
            if picked is None:
                return
            self._waiting.popleft().set_result(picked)

    def _timeout(self, path: Path) -> MediaError:
        return MediaError(
            f"not decoded within {self.spec.limits.wall_s:g} s (limits.wall_s)",
            reason=RejectReason.DECODE_TIMEOUT,
            where=str(path),
        )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _crash(path: Path, message: str) -> MediaError:
    return MediaError(message, reason=RejectReason.DECODE_CRASH, where=str(path))


def _died_twice(path: Path, error: DecoderDiedError) -> MediaError:
    """The error of a file over which two processes died, by how the second one died."""
    if not error.killed:
        return _crash(path, f"{error}, a second time")
    return MediaError(
        f"{error}, a second time, and not by this program: most likely memory ran out",
        reason=RejectReason.DECODE_KILLED,
        where=str(path),
    )


def _refusal(header: dict[str, Any], path: Path) -> MediaError:
    """The error that the decoder process reported; its words are data, its reason one of ours."""
    try:
        reason = RejectReason(str(header.get("reason")))
    except ValueError:
        return _crash(path, f"its decoder process reports: {str(header.get('message'))[:500]}")
    return MediaError(str(header.get("message"))[:2000], reason=reason, where=str(path))
