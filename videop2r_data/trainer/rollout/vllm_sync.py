"""The HTTP client of a vLLM server, and the three ways in which the policy's weights reach it.

- *folder*: safetensors, then vLLM's `reload_weights` through `/collective_rpc`. Works on every device; costs
  one write and one read of the weights (in `/dev/shm` on one host: at the speed of memory).
- *nccl*: vLLM's weight transfer, a broadcast from the first training process to all workers of the server.
- *ipc*: the same for a server that shares the trainer's GPU: handles to the trainer's memory.

Every training process calls `send`; only the first one talks to the server. The others help to gather sharded
weights and then wait, so that no process draws from a server whose weights are half new.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from videop2r_data.backends import backoff_s, server_message
from videop2r_data.errors import (
    AuthError,
    BackendError,
    ConfigError,
    MissingExtraError,
    P2RError,
    RefusedError,
    TransientError,
    first_line,
)
from videop2r_data.trainer.model.weights import policy_weights, sharding, weight_metas
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.settings.rl import VllmSpec

# The client: blocking calls, many requests at once, tried again where another try can help.


_AGAIN = frozenset({408, 409, 425, 429})
_RNG = random.Random()  # noqa: S311 jitter is no secret
Body = Callable[[], bytes | None]
Told = Callable[[int, Any], None]


class Http:
    """One server; every call may be made twice, after a failure that passes.

    Raises:
        ConfigError: no address, or the variable with the key is not set; of a call: no such route.
        TransientError, RefusedError, AuthError: of a call: no answer at the last try; request or key refused.
    """

    def __init__(self, spec: VllmSpec) -> None:
        if not spec.url:
            raise ConfigError(
                "rollout backend 'vllm-server' has no address", hint="set vllm.url: http://HOST:PORT"
            )
        self.url = spec.url.rstrip("/")
        self._spec = spec
        self._headers = {"Content-Type": "application/json"}
        if spec.api_key_env:
            key = os.environ.get(spec.api_key_env, "").strip()
            if not key:
                raise ConfigError(
                    f"environment variable {spec.api_key_env} is not set",
                    hint=f"export {spec.api_key_env}=<the server's key>, or leave vllm.api_key_env empty",
                )
            self._headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str) -> Any:
        """The answer to one GET."""
        return asyncio.run(self._all("GET", path, [lambda: None], None))[0]

    def post(self, path: str, body: Any = None) -> Any:
        """The answer to one POST."""
        return self.post_all(path, [lambda: b"" if body is None else orjson.dumps(body)])[0]

    def post_all(self, path: str, bodies: Sequence[Body], then: Told | None = None) -> list[Any]:
        """The answers to many POSTs, in order; the first failure ends them all. A body is made when its turn
        comes, so that few are in memory at once; `then` is told place and answer of each as it comes."""
        return asyncio.run(self._all("POST", path, bodies, then))

    async def _all(self, method: str, path: str, bodies: Sequence[Body], then: Told | None) -> list[Any]:
        gate = asyncio.Semaphore(self._spec.concurrency)
        async with aiohttp.ClientSession(
            # a repeated answer behind one that ends its connection would be an error of the first
            headers={**self._headers, "Connection": "keep-alive"},
            timeout=aiohttp.ClientTimeout(total=self._spec.timeout_s, sock_connect=30.0),
            # a connection for each request: an answer that a proxy repeats would reach the next one
            connector=aiohttp.TCPConnector(limit=self._spec.concurrency, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:

            async def one(number: int) -> Any:
                """Send one body and pass its answer on."""
                async with gate:
                    data = await asyncio.to_thread(bodies[number])
                    answer = await self._ask(session, method, path, data)
                if then is not None:
                    then(number, answer)
                return answer

            tasks = [asyncio.create_task(one(number)) for number in range(len(bodies))]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, session: Any, method: str, path: str, data: bytes | None) -> Any:
        attempt = 1
        while True:
            try:
                return await self._try(session, method, path, data)
            except TransientError as error:
                if attempt > self._spec.retries:
                    raise TransientError(f"{error.message} (try {attempt}, the last)") from error
            await asyncio.sleep(backoff_s(attempt, rng=_RNG))
            attempt += 1

    async def _try(self, session: Any, method: str, path: str, data: bytes | None) -> Any:
        try:
            async with session.request(method, self.url + path, data=data, allow_redirects=False) as answer:
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"no answer from {self.url}{path}: {first_line(error, 200)}") from error
        if answer.status != 200:
            raise _failure(answer.status, path, raw)
        try:
            return orjson.loads(raw) if raw.strip() else None
        except orjson.JSONDecodeError:
            raise TransientError(f"the server answered {path} with something that is no JSON") from None


def _failure(status: int, path: str, raw: bytes) -> Exception:
    """What a status says about another try."""
    told: Any = raw.decode("utf-8", "replace")
    with suppress(orjson.JSONDecodeError):
        told = orjson.loads(raw)
    said = f"{path}: status {status}: {server_message(told)}"
    if status in _AGAIN or status >= 500:
        return TransientError(said)
    if status in (401, 403):
        return AuthError(said, hint="check vllm.api_key_env against the server's --api-key")
    if status in (404, 405):
        return ConfigError(f"the server has no route {path} (status {status})")
    return RefusedError(said, hint="was the server started with the command of docs/training.md?")


# Weights: `send` is a collective, `close` frees what a transfer holds.


RPC = "/collective_rpc"  # calls a method on every worker of the server
SHARD_BYTES = 2 * 2**30
"""Of one file, and of what is held in memory while it is written."""


class FolderTransfer:
    """Weights as files; ConfigError if `folder` is not set."""

    def __init__(self, http: Http, spec: VllmSpec, dtype: Any) -> None:
        if not spec.folder:
            raise ConfigError(
                "transfer 'folder' needs a place for the weights",
                hint="set vllm.folder: /dev/shm/p2r-weights, or a folder that trainer and server both see",
            )
        self._http, self._root, self._dtype = http, Path(spec.folder), dtype
        self._count = 0
        self._last: Path | None = None

    def send(self, net: Any) -> None:
        """Write, have it read, drop what was written the time before."""
        self._count += 1
        folder = self._root / f"weights-{self._count:06d}"
        weights = policy_weights(net, self._dtype)

        def hand_over() -> None:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            folder.mkdir(parents=True)
            write_weights(folder, weights)
            self._http.post(RPC, {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}})
            self.close()
            self._last = folder

        ranks = Ranks.here()
        if ranks.rank != 0 and sharding(net) is not None:
            deque(weights, 0)  # every rank takes part in gathering
        ranks.first_then_all(hand_over)

    def close(self) -> None:
        """Remove the files."""
        if self._last is not None:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = None


def write_weights(folder: Path, weights: Iterator[tuple[str, Any]], *, shard_bytes: int = SHARD_BYTES) -> int:
    """Write tensors as safetensors files, each ended by the tensor that fills it; returns how many files."""
    from safetensors.torch import save_file

    part: dict[str, Any] = {}
    files = 0
    for name, tensor in weights:
        # A policy on a GPU frees nothing by waiting here; a view of a larger storage must not drag it along.
        part[name] = tensor.cpu().contiguous()
        if sum(one.nbytes for one in part.values()) >= shard_bytes:
            save_file(part, folder / f"part-{files:05d}.safetensors")
            part, files = {}, files + 1
    if part:
        save_file(part, folder / f"part-{files:05d}.safetensors")
    return files + bool(part)


class EngineTransfer:
    """vLLM's own weight transfer (`nccl` or `ipc`), set up at the first send; vLLM must be installed."""

    def __init__(self, http: Http, spec: VllmSpec, dtype: Any) -> None:
        self._http, self._spec, self._dtype = http, spec, dtype
        self._sender: Any = None
        self._source: Any = None
        try:
            import vllm.distributed.weight_transfer  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"vLLM (for transfer {spec.transfer!r})", "vllm") from None

    def send(self, net: Any) -> None:
        """One round: start, send, finish; a collective, on every rank."""
        if self._sender is None:
            self._source = make_source(net, self._dtype)
            self._sender = self._connect()
        self._source.net = net
        self._sender.send_weights()
        Ranks.here().first_then_all(lambda: None)

    def close(self) -> None:
        """Leave the group that was made for the transfer."""
        if self._sender is not None:
            self._sender.shutdown()
        self._sender = None

    def _connect(self) -> Any:
        from vllm.distributed.weight_transfer import HTTPVLLMWeightSyncClient, WeightTransferTrainerFactory

        client = HTTPVLLMWeightSyncClient(self._http.url, timeout=self._spec.timeout_s)
        info = self._init_info()
        try:
            return WeightTransferTrainerFactory.trainer_init(info, client=client, source=self._source)
        except P2RError:
            raise
        except Exception as error:  # requests, NCCL and vLLM each have errors of their own
            way, said = self._spec.transfer, " ".join(str(error).split())[:300]
            raise BackendError(
                f"the {way} weight transfer could not be set up: {said}",
                hint=f'start the server with --weight-transfer-config \'{{"backend":"{way}"}}\'; '
                "nccl: master_address and master_port must be reachable from it; "
                "ipc: set VLLM_ALLOW_INSECURE_SERIALIZATION=1 there",
            ) from error

    def _init_info(self) -> Any:
        spec, rank = self._spec, Ranks.here().rank
        if spec.transfer == "ipc":
            from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

            return IPCTrainerInitInfo(rank=rank, packed=spec.packed)
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        world = int(self._http.get("/get_world_size")["world_size"]) + 1
        where = {"master_address": spec.master_address, "master_port": spec.master_port}
        return NCCLTrainerInitInfo(rank=rank, world_size=world, packed=spec.packed, **where)


def make_source(net: Any, dtype: Any = None) -> Any:
    """The policy as a vLLM `WeightSource`: what there is, then the tensors, anew for each round.

    vLLM 0.32 calls `metadata()` and iterates over the source; 0.33 reads a cached property and calls
    `iter_full()`, and refuses a source of the older form.
    """
    from vllm.distributed.weight_transfer import ParamMeta, WeightSource

    def metas(self: Any) -> list[Any]:
        return [ParamMeta(*meta) for meta in weight_metas(self.net, dtype)]

    def pairs(self: Any) -> Iterator[tuple[str, Any]]:
        return policy_weights(self.net, dtype)

    newer = hasattr(WeightSource, "iter_full")
    members: dict[str, Any] = {"net": net, "__iter__": pairs, "iter_full": pairs}
    members["metadata"] = cached_property(metas) if newer else metas
    return type("PolicySource", (WeightSource,), members)()
