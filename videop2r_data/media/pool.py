"""Decoder processes under limits of time and memory, recycled: a bad file costs its row, not the run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from videop2r_data.errors import MediaError
from videop2r_data.media.probe import MediaProbe
from videop2r_data.media.process import Decoder, DecoderDiedError
from videop2r_data.media.sampling import MediaKind, Want
from videop2r_data.media.wire import WireError, frames_of
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import MediaSpec

RECYCLE_AFTER = 256
"""Files that one process decodes before a fresh one takes over: leaks in a decoder stay small."""


class DecodePool:
    """Spawned decoder processes behind one asynchronous function. Results do not depend on their number.

    Args:
        spec: sampling settings and limits.
        want: `array` or `encoded` frames.
        workers: processes; 0: `spec.workers`, and if that is 0 too, one per core.
        recycle_after: files that one process decodes.

    Processes are started when they are first needed. Each ignores Ctrl-C, and dies when the parent does,
    however that ends. A call that is cancelled kills the process that worked for it.

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
        self._idle: asyncio.LifoQueue[Decoder] | None = None
        self._all: list[Decoder] = []

    async def start(self) -> None:
        """Make the pool usable in the running loop; safe to call twice.

        Raises:
            MissingExtraError: decord is asked for and not installed.
        """
        if self._idle is not None:
            return
        if self.spec.decoder == "decord":
            from videop2r_data.media.decord_video import require_decord

            require_decord()
        self._all = [Decoder(self.spec) for _ in range(self.workers)]
        self._idle = asyncio.LifoQueue()
        for decoder in self._all:
            self._idle.put_nowait(decoder)

    async def sample(self, path: Path, data_type: MediaKind) -> Frames:
        """Sample one file, in a process of the pool.

        Raises:
            MediaError: as `sample_media`, and `decode_timeout`, `decode_crash`, `decode_memory`.
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
            MediaError: as `probe_media`, and `decode_timeout`, `decode_crash`, `decode_memory`.
            ConfigError: no decoder process can be started here.
        """
        header, _ = await self._call({"do": "probe", "data_type": data_type, "deep": deep}, path)
        try:
            return MediaProbe.model_validate(header.get("probe"))
        except ValidationError as error:
            raise _crash(path, f"its decoder process sent {error.error_count()} bad fields") from None

    async def close(self) -> None:
        """End every process; safe to call twice."""
        decoders, self._all, self._idle = self._all, [], None
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
        idle = self._idle
        assert idle is not None
        decoder = await idle.get()
        try:
            if decoder.served >= self._recycle_after:
                await decoder.stop()
            header, blobs = await self._guarded(decoder, {**request, "path": os.fsencode(path).hex()}, path)
        finally:
            idle.put_nowait(decoder)
        if header.get("ok") is True:
            return header, blobs
        raise _refusal(header, path)

    async def _guarded(
        self, decoder: Decoder, request: dict[str, Any], path: Path
    ) -> tuple[dict[str, Any], list[bytes]]:
        wall_s = self.spec.limits.wall_s
        await decoder.start()
        finished = False
        try:
            async with asyncio.timeout(wall_s):
                reply = await decoder.ask(request)
            finished = True
            return reply
        except TimeoutError:
            raise MediaError(
                f"not decoded within {wall_s:g} s (limits.wall_s)",
                reason=RejectReason.DECODE_TIMEOUT,
                where=str(path),
            ) from None
        except DecoderDiedError as error:
            raise _crash(path, str(error)) from None
        except WireError as error:
            raise _crash(path, f"its decoder process sent {error}") from None
        finally:
            # Also on cancellation: an answer that nobody read would be taken for the next file's.
            if not finished:
                decoder.kill()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _crash(path: Path, message: str) -> MediaError:
    return MediaError(message, reason=RejectReason.DECODE_CRASH, where=str(path))


def _refusal(header: dict[str, Any], path: Path) -> MediaError:
    """The error that the decoder process reported; its words are data, its reason one of ours."""
    try:
        reason = RejectReason(str(header.get("reason")))
    except ValueError:
        return _crash(path, f"its decoder process reports: {str(header.get('message'))[:500]}")
    return MediaError(str(header.get("message"))[:2000], reason=reason, where=str(path))
