"""Decoder processes and the pool of them: one that crashes, hangs or grows costs only its file."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError

from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.media import worker
from videop2r_data.media.image import Want
from videop2r_data.media.sampling import MediaKind, MediaProbe
from videop2r_data.media.worker import PREFIX, WireError, budget, frames_of, header_length, pack, parse_header
from videop2r_data.schemas import WHOLE, Focus, Frames, MediaSpec, RejectReason

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

_START_S = 120.0
"""Imports on a busy machine; not part of any file's time."""
_STARTS = 3
"""Starts to try, one after the other, when a fresh process is killed from outside."""
_STOP_S = 2.0
_LATE_S = 1.0
"""A timer that fires so late means that this very process was stopped (SIGSTOP, Ctrl-Z) meanwhile."""
_BUFFER_BYTES = 4 * 2**20
_GROWN_SHARE = 8
_AHEAD_S = 0.1
"""Seconds of work queued for a process: on a busy host this process is scheduled about so seldom."""
_DEPTH = (2, 16)
"""Fewest and most requests that one process is given at once."""
_WEIGHT = 0.2
"""Weight of the latest file in the running average of seconds per file."""


class DisplacedError(Exception):
    """The process was ended because of an earlier file, before this one's turn: ask again."""


class Decoder:
    """A slot for one process; a process started after another one's end inherits no state.

    Several requests may be under way: the process finds the next file in its pipe when it is done with one,
    and need not wait for this process to come round to it. Answers come in the order of the requests.

    Args:
        spec: sampling settings and limits.
        recycle_after: files that one process decodes before a fresh one takes over.
    """

    def __init__(self, spec: MediaSpec, recycle_after: int) -> None:
        self._spec = spec
        self._recycle_after = recycle_after
        self._process: Process | None = None
        self._killed: list[Process] = []
        """Not yet waited for."""
        self._gate = asyncio.Lock()
        """One at a time starts the process and writes; the order of requests is the order of answers."""
        self._last_turn: asyncio.Future[None] | None = None
        """Done when the answer of the request written last was read, or never will be."""
        self._spent = False
        self._pace_s: float | None = None
        """Running average of the seconds that a file takes."""
        self._read_at = 0.0
        """When the latest answer was read."""
        self.pending = 0
        """Requests under way, by the pool's count."""
        self.served = 0
        """Files that the present process has answered for."""

    @property
    def depth(self) -> int:
        """How many requests it may be given at once: several small pictures, but few clips.

        A slow file would wait behind others in this process while another process is idle.
        """
        least, most = _DEPTH
        if self._pace_s is None:
            return least
        return max(least, min(most, math.ceil(_AHEAD_S / max(self._pace_s, 1e-4))))

    @property
    def pid(self) -> int | None:
        """Of the running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start a process unless one runs.

        Raises:
            ConfigError: it does not come up.
        """
        for tries in range(1, _STARTS + 1):
            if self.pid is not None:
                return
            try:
                await self._start()
            except (TimeoutError, worker.DecoderDiedError, DisplacedError, WireError) as error:
                if isinstance(error, worker.DecoderDiedError) and error.killed and tries < _STARTS:
                    continue  # by somebody else, as a decoder in the middle of a file may be
                raise ConfigError(
                    f"no decoder process can be started: {error or 'no answer'}",
                    hint=f"run: {sys.executable} -c 'import av, PIL, numpy, videop2r_data.media.worker'",
                ) from None

    async def _start(self) -> None:
        self.served, self._spent = 0, False
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "videop2r_data.media.worker",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=_BUFFER_BYTES,
            env=worker.environment(),
            # Ctrl-C at the terminal goes to the parent alone.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                hello = {"parent": os.getpid(), "spec": self._spec.model_dump(mode="json")}
                self._write(self._process, hello)
                header, _ = await self._read(self._process)
            if header.get("ready") is not True:
                raise WireError("it answers nonsense")
        except BaseException:
            self.kill()
            raise

    async def ask(self, request: dict[str, Any], wall_s: float) -> tuple[dict[str, Any], list[bytes]]:
        """One request, one reply.

        Args:
            request: what to do with which file.
            wall_s: seconds that the file may take, from the end of the one before it.

        Raises:
            TimeoutError: it took longer; the process was ended.
            DecoderDiedError: the process ended first, or it or this one was stopped from outside meanwhile.
            DisplacedError: the process was ended over another file.
            WireError: the reply is no reply; the process was ended.
            ConfigError: no process can be started.
        """
        async with self._gate:
            if self._spent:
                await _settled(self._last_turn)
                await self.stop()
            await self.start()
            process = self._process
            assert process is not None
            before = self._last_turn
            turn = self._last_turn = asyncio.get_running_loop().create_future()
            self._write(process, request)
            written = time.monotonic()
        try:
            await _settled(before)
            if self._process is not process:
                raise DisplacedError
            header, blobs = await self._read_within(process, wall_s)
            self._note(header, since=max(written, self._read_at))
            return header, blobs
        except BaseException:
            # Also on cancellation: an answer that nobody read would be taken for the next file's.
            if self._process is process:
                self.kill()
            raise
        finally:
            turn.set_result(None)

    async def _read_within(self, process: Process, wall_s: float) -> tuple[dict[str, Any], list[bytes]]:
        """Read a reply; a process that was stopped says nothing about its file."""
        try:
            async with asyncio.timeout(wall_s) as limit:
                return await self._read(process)
        except TimeoutError:
            late_s = asyncio.get_running_loop().time() - (limit.when() or math.inf)
            if late_s > _LATE_S or worker.is_stopped(process.pid):
                raise worker.DecoderDiedError(-signal.SIGSTOP) from None
            raise

    def _note(self, header: dict[str, Any], since: float) -> None:
        """Update the running average, and end a process that has done its share: leaks stay small."""
        self._read_at = time.monotonic()
        took = self._read_at - since
        self._pace_s = took if self._pace_s is None else self._pace_s + _WEIGHT * (took - self._pace_s)
        self.served += 1
        grown = header.pop("grown", 0)
        limit = self._spec.limits.memory_mb * 2**20 // _GROWN_SHARE
        self._spent = self.served >= self._recycle_after or (isinstance(grown, int) and grown > limit)

    def _write(self, process: Process, message: dict[str, Any]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended: told when its answer is read
            process.stdin.writelines(pack(message))

    async def _read(self, process: Process) -> tuple[dict[str, Any], list[bytes]]:
        assert process.stdout is not None
        limit = budget(self._spec)
        try:
            length = header_length(await process.stdout.readexactly(PREFIX.size))
            data = await process.stdout.readexactly(length)
            header, lengths = parse_header(data, max_blobs=self._spec.frames, max_bytes=limit)
            return header, [await process.stdout.readexactly(n) for n in lengths]
        except (asyncio.IncompleteReadError, ConnectionError):
            if self._process is not process:
                raise DisplacedError from None  # ended by `kill`
            self._process = None  # the next request starts a fresh process
            raise worker.DecoderDiedError(await self._exit_code(process)) from None

    async def _exit_code(self, process: Process) -> int:
        """The exit code of a process whose pipe broke; it is killed only if it runs on without its pipe.

        Killing a dead process would reap its exit code before the event loop sees it.
        """
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
        finally:
            self._end(process)
        return await process.wait()

    def kill(self) -> None:
        """End the process at once: decoders that hang ignore anything milder."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    def _end(self, process: Process) -> None:
        self._killed = [p for p in self._killed if p.returncode is None]
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._killed.append(process)

    async def stop(self) -> None:
        """End the process by closing its input; kill it if that is not enough. Waits until none is left."""
        process = self._process
        try:
            if process is not None and process.stdin is not None:
                process.stdin.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_S):
                        await process.wait()
        finally:
            self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                for killed in self._killed:
                    await killed.wait()


async def _settled(turn: asyncio.Future[None] | None) -> None:
    """Wait until the answer of a turn was read; a cancelled wait leaves the turn alone."""
    if turn is not None:
        await asyncio.shield(turn)


# Decoder processes under limits of time and memory, recycled: a bad file costs its row, not the run.


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
        self._inner = spec.candidates if spec.by_question else spec
        """What the processes are asked for: a model that knows the question selects among it."""
        self._embedder: ProcessPoolExecutor | None = None

    async def start(self) -> None:
        """Make the pool usable in the running loop; safe to call twice.

        Raises:
            MissingExtraError: decord, or what an embedder needs, is asked for and not installed.
            ConfigError: there is no such embedder.
        """
        if self._all:
            return
        if self.spec.look is not None and self.spec.by_question:
            from videop2r_data.media.embed import embedder_process

            self._embedder = embedder_process(self.spec.look)
        if self.spec.decoder == "decord":
            from videop2r_data.media.video import require_decord

            require_decord()
        self._all = [Decoder(self._inner, self._recycle_after) for _ in range(self.workers)]

    async def sample(self, path: Path, data_type: MediaKind, focus: Focus = WHOLE) -> Frames:
        """Sample one file, or what `focus` names of a clip, in a process of the pool.

        Raises:
            MediaError: as `sample_media`, and `decode_timeout`, `decode_crash`, `decode_killed`.
            ConfigError: no decoder process can be started here.
        """
        await self.start()
        want: Want = self.want if self._embedder is None else "array"
        asked = {"do": "sample", "data_type": data_type, "want": want, "focus": focus.part}
        header, blobs = await self._call(asked, path)
        try:
            frames = replace(frames_of(header, blobs, self._inner, want), path=path)
        except WireError as error:
            raise _nonsense(error, path) from None
        if self._embedder is None or frames.array is None or self.spec.look is None:
            return frames
        from videop2r_data.media.embed import relevance_in
        from videop2r_data.media.look import looked

        scores = None
        if data_type == "video":
            scores = await relevance_in(self._embedder, frames.array, focus.question, self.spec.look)
        return await asyncio.to_thread(
            looked, frames, self.spec, self.want, question=focus.question, scores=scores
        )

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
            raise _nonsense(f"{error.error_count()} bad fields", path) from None

    async def close(self) -> None:
        """End every process; safe to call twice."""
        decoders, self._all = self._all, []
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(RuntimeError("the pool was closed"))
        if self._embedder is not None:
            self._embedder.shutdown(wait=False, cancel_futures=True)
        for decoder in decoders:
            await decoder.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, request: dict[str, Any], path: Path) -> tuple[dict[str, Any], list[bytes]]:
        await self.start()
        request = {**request, "path": os.fsencode(path).hex()}
        died: worker.DecoderDiedError | None = None
        while True:
            decoder = await self._slot()
            try:
                header, blobs = await decoder.ask(request, self.spec.limits.wall_s)
            except TimeoutError:
                message = f"not decoded within {self.spec.limits.wall_s:g} s (limits.wall_s)"
                raise _error(RejectReason.DECODE_TIMEOUT, message, path) from None
            except WireError as error:
                raise _nonsense(error, path) from None
            except worker.DecoderDiedError as error:
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
        if not self._waiting and (decoder := self._pick()):
            return decoder
        future: asyncio.Future[Decoder] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give_back(future.result())
            raise

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


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _error(reason: RejectReason, message: str, path: Path) -> MediaError:
    return MediaError(message, reason=reason, where=str(path))


def _nonsense(what: object, path: Path) -> MediaError:
    return _error(RejectReason.DECODE_CRASH, f"its decoder process sent {what}", path)


def _died_twice(path: Path, error: worker.DecoderDiedError) -> MediaError:
    """The error of a file over which two processes died, by how the second one died."""
    message = f"{error}, a second time"
    if not error.killed:
        return _error(RejectReason.DECODE_CRASH, message, path)
    message += ", and not by this program: most likely memory ran out"
    return _error(RejectReason.DECODE_KILLED, message, path)


def _refusal(header: dict[str, Any], path: Path) -> MediaError:
    """The error that the decoder process reported; its words are data, its reason one of ours."""
    said = str(header.get("message"))
    try:
        return _error(RejectReason(str(header.get("reason"))), said[:2000], path)
    except ValueError:
        return _error(RejectReason.DECODE_CRASH, f"its decoder process reports: {said[:500]}", path)
