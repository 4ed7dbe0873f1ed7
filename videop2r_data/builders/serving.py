"""`vllm serve` on this machine for as long as calls are made: one server per GPU or group of GPUs."""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from itertools import islice
from pathlib import Path

from videop2r_data.builders.run import Stop
from videop2r_data.errors import BackendError, ConfigError, MissingExtraError
from videop2r_data.schemas import BackendSpec, Recipe

Wanted = tuple[str, str | None, str]
"""A model, its revision, and the options of its server."""
_HERE = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])[:/]")
_SIZE = re.compile(r"--(?:tensor|pipeline|data)[-_]parallel[-_]size[= ]+([1-9]\d*)")
RESTARTS = 3
LOOK_S = 0.5
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STOP_S = 20
"""Seconds that a server has to end by itself."""
# A server, and the shell that ends it: descriptor 3 is a pipe that the build holds open. When it closes, by
# the build or because that was killed, every process of the session is asked to stop, and the rest is killed.
_GUARD = f"""
exec 3<&0 </dev/null
trap : TERM
( trap : TERM; read -r _ <&3; kill -TERM 0; sleep {STOP_S}; kill -KILL 0 ) &
"$@" 3<&-
kill -KILL 0
"""


def wanted(spec: BackendSpec) -> Wanted | None:
    """What `--serve` starts for a backend that looks for a server on this machine; None: it does not."""
    here = spec.declared.needs_address and _HERE.match(spec.base_url or "")
    return None if not here or spec.base_urls or spec.batch else (spec.model, spec.revision, spec.serve)


def deal(backends: Iterable[BackendSpec], gpus: Sequence[str]) -> list[tuple[Wanted, tuple[str, ...]]]:
    """Every server with its GPUs: as many of each model as there is room for; without a GPU one, on the CPU.

    Raises:
        ConfigError: nothing to serve, or too few GPUs for one server of each model.
    """
    found = dict.fromkeys(filter(None, map(wanted, backends)))
    if not found:
        raise ConfigError(
            "--serve: no backend of this recipe looks for a server on this machine",
            hint="give one kind: openai and base_url: http://localhost:8000/v1",
        )
    sizes = [math.prod(map(int, _SIZE.findall(options))) for _, _, options in found]
    rounds = len(gpus) // sum(sizes) if gpus else 1
    if not rounds:
        raise ConfigError(
            f"{len(gpus)} GPUs are too few: one server of each model needs {' + '.join(map(str, sizes))}",
            hint="lower --tensor-parallel-size in serve, or ask one model in all steps",
        )
    left = iter(gpus)
    return [(what, tuple(islice(left, size))) for what, size in rounds * list(zip(found, sizes, strict=True))]


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, for `CUDA_VISIBLE_DEVICES`."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None:
        return [name for name in re.split(r"[\s,]+", names) if name not in ("", "-1")]
    asked = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    if shutil.which(asked[0]) is None:
        return []
    return re.findall(r"(?m)^\d+$", subprocess.run(asked, capture_output=True, text=True, check=False).stdout)


class _Server:
    """One server of this machine, started at once; what it says goes to its log.

    Raises:
        MissingExtraError: `vllm` is neither on the path nor beside this Python.
    """

    def __init__(self, what: Wanted, gpus: tuple[str, ...], log: Path) -> None:
        self.what, self.gpus, self.log = what, gpus, log
        self.starts = 0
        self.up = False
        """It has answered."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it, in a session of its own, which Ctrl-C in a terminal does not reach."""
        model, revision, options = self.what
        places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
        if (program := shutil.which("vllm", path=places)) is None:
            raise MissingExtraError("vllm", "vllm")
        given = ["--trust-request-mm-kwargs", *shlex.split(options), "--served-model-name", model]
        given += ["--host", "127.0.0.1", "--port", str(self.port)]
        given += ["--revision", revision] if revision else []
        command = ["sh", "-c", _GUARD, "sh", program, "serve", model, *given]
        env = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})
        with self.log.open("ab" if self.starts else "wb") as log:
            self.guard = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.starts += 1

    def healthy(self) -> bool:
        """Whether it answers; blocks for a few seconds at most."""
        with suppress(OSError, HTTPException):
            _DIRECT.open(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
            return True
        return False

    def failure(self) -> BackendError:
        """The error of a server that died, with the last lines of its log."""
        with self.log.open(errors="replace") as log:
            last = "".join(deque(log, 12)).rstrip()
        what = f"died {self.starts} times" if self.up else "did not start"
        return BackendError(
            f"vllm serve {self.what[0]} {what}; it said last:", where=str(self.log), hint=last
        )


@asynccontextmanager
async def served(
    recipe: Recipe, folder: Path, stop: Stop, tell: Callable[[str], None]
) -> AsyncIterator[Recipe]:
    """Start the servers of a recipe; it comes back with their addresses once all answer, or `stop` is asked.

    All of them end with the block. One that dies is started again, `RESTARTS` times; then, or if it never
    came up, it ends the run through `stop`.

    Args:
        folder: of their logs.

    Raises:
        ConfigError: see `deal`. MissingExtraError: vLLM is not installed.
    """
    dealt = deal(recipe.backends.values(), visible_gpus())
    folder.mkdir(parents=True, exist_ok=True)
    servers: list[_Server] = []

    def at(spec: BackendSpec) -> BackendSpec:
        """A backend with the addresses of its servers."""
        urls = tuple(f"http://127.0.0.1:{one.port}/v1" for one in servers if one.what == wanted(spec))
        return spec.model_copy(update={"base_urls": urls}) if urls else spec

    going = asyncio.Event()
    stop.listen(going.set)
    watching = asyncio.ensure_future(_watch(servers, going, stop, tell))
    try:
        for number, (what, gpus) in enumerate(dealt):
            servers.append(_Server(what, gpus, folder / f"{number}.log"))
        await going.wait()
        yield recipe.with_backends(at)
    finally:
        watching.cancel()
        await asyncio.gather(*(asyncio.to_thread(one.guard.communicate) for one in servers))


async def _watch(
    servers: Sequence[_Server], going: asyncio.Event, stop: Stop, tell: Callable[[str], None]
) -> None:
    """Set `going` when all servers answer, start again what dies."""
    began = time.monotonic()
    while True:
        for one in servers:
            if one.guard.poll() is None:
                one.up = one.up or await asyncio.to_thread(one.healthy)
            elif one.up and one.starts <= RESTARTS:
                tell(f"vllm serve {one.what[0]} died and is started again: {one.log}")
                try:
                    one.start()
                except OSError as error:
                    why = f"vllm serve {one.what[0]} died and cannot be started again: {error}"
                    return stop.ask(BackendError(why, where=str(one.log)))
            else:
                return stop.ask(one.failure())
        if loading := sum(not one.up for one in servers):
            words = (
                f"{loading} of {len(servers)} servers are loading, for {time.monotonic() - began:.0f} s now"
            )
            tell(f"{words}; their logs: {servers[0].log.parent}")
        else:
            going.set()
        await asyncio.sleep(LOOK_S)
