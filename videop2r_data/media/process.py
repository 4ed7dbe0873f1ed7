"""One decoder process: started, asked, killed. See `worker` for the other end of the pipe."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

from videop2r_data.errors import ConfigError
from videop2r_data.media.worker import PREFIX, WireError, budget, header_length, pack, parse_header
from videop2r_data.schemas import MediaSpec

_START_S = 120.0
"""Imports on a busy machine; not part of any file's time."""
_STARTS = 3
"""Starts to try, one after the other, when a fresh process is killed from outside."""
_STOP_S = 2.0
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "VIRTUAL_ENV")


_OWN_SIGNALS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGABRT,
        signal.SIGTRAP,
        signal.SIGSYS,
        signal.SIGXCPU,
        signal.SIGXFSZ,
    }
)
"""Signals of a process's own faults; any other came from outside: the kernel short of memory, a user, a batch
system."""
_BUFFER_BYTES = 4 * 2**20
_GROWN_SHARE = 8
_AHEAD_S = 0.1
"""Seconds of work queued for a process: on a busy host this process is scheduled about so seldom."""
_DEPTH = (2, 16)
"""Fewest and most requests that one process is given at once."""
_WEIGHT = 0.2
"""Weight of the latest file in the running average of seconds per file."""


class DecoderDiedError(Exception):
    """The process ended in the middle of a file.

    Attributes:
        killed: by a signal from outside, so the file is not at fault.
    """

    def __init__(self, code: int) -> None:
        super().__init__(_told(code))
        self.killed = code < 0 and -code not in _OWN_SIGNALS


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
            except (TimeoutError, DecoderDiedError, DisplacedError, WireError) as error:
                if isinstance(error, DecoderDiedError) and error.killed and tries < _STARTS:
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
            env=_environment(),
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
            DecoderDiedError: the process ended first.
            DisplacedError: the process was ended over another file.
            WireError: the reply is no reply; the process was ended.
            ConfigError: no process can be started.
        """
        async with self._gate:
            if self._spent:
                await self._quiet()
                await self.stop()
            await self.start()
            process = self._process
            assert process is not None
            before = self._last_turn
            turn = self._last_turn = asyncio.get_running_loop().create_future()
            self._write(process, request)
            written = time.monotonic()
        try:
            if before is not None and not before.done():
                await asyncio.shield(before)
            if self._process is not process:
                raise DisplacedError
            async with asyncio.timeout(wall_s):
                header, blobs = await self._read(process)
            self._note(header, since=max(written, self._read_at))
            return header, blobs
        except BaseException:
            # Also on cancellation: an answer that nobody read would be taken for the next file's.
            if self._process is process:
                self.kill()
            raise
        finally:
            turn.set_result(None)

    def _note(self, header: dict[str, Any], since: float) -> None:
        """Update the running average, and end a process that has done its share: leaks stay small."""
        self._read_at = time.monotonic()
        took = self._read_at - since
        self._pace_s = took if self._pace_s is None else self._pace_s + _WEIGHT * (took - self._pace_s)
        self.served += 1
        grown = header.pop("grown", 0)
        limit = self._spec.limits.memory_mb * 2**20 // _GROWN_SHARE
        self._spent = self.served >= self._recycle_after or (isinstance(grown, int) and grown > limit)

    async def _quiet(self) -> None:
        """Wait until every answer was read."""
        last = self._last_turn
        if last is not None and not last.done():
            await asyncio.shield(last)

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
            raise DecoderDiedError(await self._exit_code(process)) from None

    async def _exit_code(self, process: Process) -> int:
        """The exit code of a process whose pipe broke; it is killed only if it runs on without its pipe.

        Killing a dead process would reap its exit code before the event loop sees it.
        """
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            pass
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
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                for killed in self._killed:
                    await killed.wait()


def _told(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"its decoder process was ended by {name}"
    return f"its decoder process ended with exit code {code}"


def _environment() -> dict[str, str]:
    """Only what Python needs: no key of any service is handed to a process that reads hostile files."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    package = str(Path(__file__).resolve().parents[2])
    others = os.environ.get("PYTHONPATH")
    kept["PYTHONPATH"] = os.pathsep.join([package, others]) if others else package
    # Their idle threads would count against the address space.
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return kept
