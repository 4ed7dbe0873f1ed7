"""Ray: actors decode files and ask models; what is asked, what is kept and what is paid stays in one process.

    this process                                   actors
    pool, steps, journal, money, limits, ...  ──►  decoders (1 CPU each)  ──► frames, in the object store
                                              ──►  callers of a server    ◄── frames
                                              ──►  engines (GPUs each)    ◄── frames

A question goes through the same steps as in a build on one machine, and so gives the same bytes. Decoding and
asking alone are done elsewhere: the steps hold a reference to frames, which travel from the node that decoded
them to the node that needs them. An actor that is lost costs what it had under way, which is given to another
one; a new one is started in its place. Why no Ray Data: docs/decisions/006-ray.md.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from videop2r_data.backends import Step
from videop2r_data.builders.crew import CallerActor, Crew, DecoderActor, FramesLostError, words_of
from videop2r_data.builders.run import Stop
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import AwayError, ConfigError, MediaError, MissingExtraError, TransientError
from videop2r_data.schemas import (
    WHOLE,
    BackendSpec,
    Completion,
    Focus,
    FrameForm,
    Frames,
    MediaRecord,
    MediaSpec,
    Recipe,
    RejectReason,
    Request,
)

# What the steps of a build see of the actors.


GRACE_S = 60.0
"""Seconds beyond the time limit of a call after which its actor counts as lost."""
DEPTH = 2
"""Files that one decoder is given at once: the next is there when it is done with one."""
TRIES = 3
"""Decoders that a file may be given to if they are lost."""


@dataclass(frozen=True, slots=True)
class FarFrames(Frames):
    """Frames in the object store of the cluster.

    Attributes:
        refs: one reference, to where they are; replaced when their node was lost.
        size: bytes of the pixels or pictures.
        again: decodes them once more.
    """

    refs: list[Any] = field(default_factory=list)
    size: int = 0
    again: Callable[[], Awaitable[FarFrames]] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that they take where they are."""
        return self.size


class FarSampler:
    """Decodes on the cluster; a `Sampler`."""

    def __init__(self, crew: Crew, spec: MediaSpec, want: FrameForm) -> None:
        self._crew = crew
        self._view = spec, want
        self._wall_s = 2 * DEPTH * spec.limits.wall_s + GRACE_S

    async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> FarFrames:
        """Frames of one file.

        Raises:
            MediaError: it cannot be used, or every decoder that had it was lost.
            ConfigError: a node does not see the file.
        """

        async def send(actor: Any) -> Any:
            told, ref = actor.sample.options(num_returns=2).remote(self._view, path, data_type, focus)
            return await told, ref

        why = ""
        for _ in range(TRIES):
            try:
                (made, more), ref = await self._crew.ask(send, self._wall_s)
            except TransientError as error:
                why = error.message
                continue
            if isinstance(made, MediaRecord):
                again = partial(self.sample, path, data_type, focus)
                return FarFrames(made, refs=[ref], size=more, again=again)
            if more and path.exists():
                raise ConfigError(
                    f"node {more} of the Ray cluster does not see this file",
                    where=str(path),
                    hint="every node that decodes needs the media under the same path as this machine",
                )
            raise made
        message = f"{TRIES} decoders on Ray that had this file were lost; {why}"
        raise MediaError(message, reason=RejectReason.DECODE_KILLED.value, where=str(path))


class FarBackend:
    """Asks on the cluster; a `Backend`."""

    def __init__(self, crew: Crew, spec: BackendSpec) -> None:
        self.model = spec.model
        self.on_rate_limits: Callable[[Any], None] | None = None
        self._crew = crew
        self._wall_s = spec.timeout_s + GRACE_S

    async def start(self) -> None:
        """Start the actors."""
        self._crew.start()

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """One call, one try.

        Raises:
            TransientError: the actor, or the frames, were lost; or as the backend raised it, like every other
                error.
        """
        ref = frames.refs[0] if isinstance(frames, FarFrames) else None
        try:
            said, limits = await self._crew.ask(
                lambda actor: actor.complete.remote(request, ref), self._wall_s
            )
        except FramesLostError as error:
            if isinstance(frames, FarFrames) and frames.again is not None:
                fresh = await frames.again()
                if fresh.record.frames_sha256 != frames.record.frames_sha256:
                    raise TransientError("its frames were lost, and the file has changed since") from None
                frames.refs[:] = fresh.refs  # for the next try
            raise TransientError(f"the frames were lost with their node: {error}") from None
        if limits and self.on_rate_limits is not None:
            self.on_rate_limits(limits[0])
        if isinstance(said, Completion):
            return said
        raise said

    async def close(self) -> None:
        """End the actors."""
        self._crew.close()


class OnRay(NamedTuple):
    """A build on the cluster of `RAY_ADDRESS`, or on one of this machine's own that ends with the build.

    Every node needs this package, the API keys in its environment, and, where it decodes, the media under
    the same paths as here.
    """

    actors: int | None = None
    """That ask each model; None: one for a model behind a server, as many as the cluster's GPUs hold of one
    that is loaded here."""
    gpus: float | None = None
    """Of each actor that loads a model; None: what its tensor and pipeline parallel sizes need."""

    @asynccontextmanager
    async def hands(
        self, recipe: Recipe, place: Workspace, stop: Stop, tell: Callable[[str], None]
    ) -> AsyncIterator[Cluster]:
        """Who decodes and asks, until the block ends.

        Raises:
            MissingExtraError: Ray is not installed. AwayError: there is no cluster at that address.
        """
        if find_spec("ray") is None:
            raise MissingExtraError("ray", "ray")
        # else an actor without GPUs would not see those that it may use without asking Ray
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if mine := not ray.is_initialized():
            await _connect(tell)
        hands = Cluster(recipe, place, stop, self, ray.cluster_resources())
        try:
            yield hands
        finally:
            hands.close()
            if mine:
                ray.shutdown()


REACH_S = 20.0
"""Seconds to connect to a cluster's address."""


async def _connect(tell: Callable[[str], None]) -> None:
    import ray

    # without an address Ray would take any cluster that was ever started on this machine by hand
    address = os.environ.get("RAY_ADDRESS") or "local"
    tell("Ray starts on this machine" if address == "local" else f"the Ray cluster at {address} is joined")
    await _reach(address)
    # in a thread Ray leaves the signals alone: its own handlers would end a build in the middle of a call
    init = partial(ray.init, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        await asyncio.to_thread(init, address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(words_of(error)) from None


async def _reach(address: str) -> None:
    """AwayError if nobody listens there: Ray itself tries for minutes, and no signal ends that."""
    if found := re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address):
        try:
            async with asyncio.timeout(REACH_S):
                _, writer = await asyncio.open_connection(found[1], int(found[2]))
            writer.close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(f"nobody answers at {address} ({words_of(error)})") from None


def _no_cluster(why: str) -> AwayError:
    hint = "look at RAY_ADDRESS, and that the cluster has this version of Ray"
    return AwayError(f"no Ray cluster can be used: {why}", hint=hint)


class Cluster:
    """Who decodes and asks for a build in the place of this process.

    Args:
        on_ray: how many ask, and with how many GPUs.
        has: what the cluster has at the start: resource -> amount.
    """

    def __init__(
        self, recipe: Recipe, place: Workspace, stop: Stop, on_ray: OnRay, has: dict[str, float]
    ) -> None:
        self._made_of = recipe, Workspace(place.out, place.work, place.base.resolve())
        self._stop = stop
        self._on_ray = on_ray
        self._has = has
        self.crews: list[Crew] = []
        self._loaded = [spec for spec in recipe.backends.values() if spec.declared.libraries]
        left = int(has.get("CPU", 1)) - sum(map(self.actors, self._loaded))
        self.decoders = recipe.media.workers or max(1, left)
        """How many decode: one for each CPU that no engine will keep busy."""
        self._decode = self._crew("decoders", self.decoders, DEPTH, "1 CPU each", DecoderActor, num_cpus=1)

    def sampler(self, spec: MediaSpec, want: FrameForm) -> FarSampler:
        """What decodes files; its frames are for the backends of the same cluster."""
        return FarSampler(self._decode, spec, want)

    def backend(self, step: Step, spec: BackendSpec) -> FarBackend:
        """What answers a step: an actor that loads a model has GPUs, one that asks a server none."""
        gpus = self.gpus(spec)
        name = f"{step} {'engines' if spec.declared.libraries else 'callers'}"
        needs = f"{gpus:g} GPU each, --ray-gpus says another number" if gpus else "on any node"
        crew = (name, self.actors(spec), spec.calls_at_once, needs, CallerActor, *self._made_of, spec)
        return FarBackend(self._crew(*crew, num_cpus=0, num_gpus=gpus), spec)

    def actors(self, spec: BackendSpec) -> int:
        """How many ask this model, each with the concurrency of the recipe."""
        if self._on_ray.actors is not None or not spec.declared.libraries:
            return self._on_ray.actors or 1
        gpus = sum(map(self.gpus, self._loaded))
        return max(1, int(self._has.get("GPU", 0) // gpus)) if gpus else 1

    def gpus(self, spec: BackendSpec) -> float:
        """GPUs that one who asks this model needs."""
        if not spec.declared.libraries:
            return 0
        sizes = (spec.extra.get(f"{name}_parallel_size", 1) for name in ("tensor", "pipeline"))
        tensor, pipeline = (size if isinstance(size, int) else 1 for size in sizes)
        return tensor * pipeline if self._on_ray.gpus is None else self._on_ray.gpus

    def close(self) -> None:
        """End every actor."""
        for crew in self.crews:
            crew.close()

    def _crew(
        self, name: str, size: int, depth: int, needs: str, kind: type, *arguments: Any, **resources: float
    ) -> Crew:
        """Actors of this kind, made of the arguments, each with these resources."""

        def make() -> Any:
            import ray

            options = {"max_restarts": 0, "max_concurrency": depth + 1, "scheduling_strategy": "SPREAD"}
            return ray.remote(kind).options(**resources, **options).remote(*arguments)

        crew = Crew(name, make, size, depth, needs)
        self._stop.listen(crew.stop)
        self.crews.append(crew)
        return crew
