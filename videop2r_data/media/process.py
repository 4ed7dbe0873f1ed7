"""One decoder process: started, asked, killed. See `worker` for the other end of the pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

import videop2r_data
from videop2r_data.errors import ConfigError
from videop2r_data.media import wire
from videop2r_data.schemas.recipe import MediaSpec

_START_S = 120.0
"""Imports on a busy machine; not part of any file's time."""
_STOP_S = 2.0
_KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME", "TMPDIR", "VIRTUAL_ENV")


class DecoderDiedError(Exception):
    """The process ended in the middle of a file."""


class Decoder:
    """A slot for one process; starting it again after its end is free of state."""

    def __init__(self, spec: MediaSpec) -> None:
        self._spec = spec
        self._process: Process | None = None
        self._killed: list[Process] = []
        """Not yet waited for."""
        self.served = 0
        """Files that the present process has answered for."""

    @property
    def pid(self) -> int | None:
        """Of the running process, if there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start a process unless one runs.

        Raises:
            ConfigError: it does not come up.
        """
        if self.pid is not None:
            return
        self.served = 0
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "videop2r_data.media.worker",
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=_environment(),
            # Ctrl-C at the terminal goes to the parent alone.
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                hello = {"parent": os.getpid(), "spec": self._spec.model_dump(mode="json")}
                header, _ = await self._exchange(hello)
        except (TimeoutError, DecoderDiedError, wire.WireError) as error:
            self.kill()
            raise ConfigError(
                f"no decoder process can be started: {error or 'no answer'}",
                hint=f"run: {sys.executable} -c 'import av, PIL, numpy, videop2r_data.media.worker'",
            ) from None
        except BaseException:
            self.kill()
            raise
        if header.get("ready") is not True:
            self.kill()
            raise ConfigError("the decoder process answers nonsense")

    async def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """One request, one reply.

        Raises:
            DecoderDiedError: the process ended first.
            WireError: the reply is no reply.
        """
        reply = await self._exchange(request)
        self.served += 1
        return reply

    async def _exchange(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        limit = wire.budget(self._spec)
        try:
            process.stdin.writelines(wire.pack(message))
            await process.stdin.drain()
            length = wire.header_length(await process.stdout.readexactly(wire.PREFIX.size))
            data = await process.stdout.readexactly(length)
            header, lengths = wire.parse_header(data, max_blobs=self._spec.frames, max_bytes=limit)
            return header, [await process.stdout.readexactly(n) for n in lengths]
        except (asyncio.IncompleteReadError, ConnectionError):
            raise DecoderDiedError(await self._cause(process)) from None

    async def _cause(self, process: Process) -> str:
        """Why a process whose pipe broke ended; it is killed only if it goes on without its pipe.

        Killing one that is already dead would collect its exit code and keep it from the loop.
        """
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
        return _told(await process.wait())

    def kill(self) -> None:
        """End the process at once: decoders that hang ignore anything milder."""
        process, self._process = self._process, None
        if process is None:
            return
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
    package = str(Path(videop2r_data.__file__).resolve().parent.parent)
    others = os.environ.get("PYTHONPATH")
    kept["PYTHONPATH"] = os.pathsep.join([package, others]) if others else package
    # Their idle threads would count against the address space.
    kept |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return kept
