"""The actors of a build on Ray, and crews of them: work goes to whoever has least; the lost are replaced."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from videop2r_data.backends import Deadlines
from videop2r_data.builders.steps import backend_of
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import AuthError, AwayError, P2RError, StoppedError, TransientError
from videop2r_data.media import DecodePool
from videop2r_data.schemas import (
    BackendSpec,
    Completion,
    Focus,
    FrameForm,
    Frames,
    MediaRecord,
    MediaSpec,
    Recipe,
    Request,
)

# What runs in the actors. Errors of ours are returned, not raised: Ray would wrap them. Their child processes
# end with them.


class DecoderActor:
    """Decodes files in guarded processes of its own, one file at a time."""

    def __init__(self) -> None:
        self._pools: dict[tuple[MediaSpec, FrameForm], DecodePool] = {}

    async def ready(self) -> None:
        """Answers when the actor runs."""

    async def sample(
        self, view: tuple[MediaSpec, FrameForm], path: Path, data_type: Any, focus: Focus
    ) -> tuple[tuple[MediaRecord, int] | tuple[P2RError, str], Frames | None]:
        """Record and size, or an error and the node that lacks the file; and the frames, which stay here."""
        if view not in self._pools:
            self._pools[view] = DecodePool(view[0], want=view[1], workers=1)
        try:
            frames = await self._pools[view].sample(path, data_type, focus)
        except P2RError as error:
            return (error, "" if path.exists() else platform.node()), None
        return (frames.record, frames.nbytes), frames


class CallerActor:
    """Asks one model: behind a server, or loaded into this process."""

    def __init__(self, recipe: Recipe, place: Workspace, spec: BackendSpec) -> None:
        self._made_of = recipe, place, spec
        self._limits: list[Any] = []
        """What the server said of this account's budget since it was last told."""

    async def ready(self) -> P2RError | None:
        """Open connections or load the model; answers when calls may come."""
        try:
            self._backend = backend_of(*self._made_of)
            if hasattr(self._backend, "on_rate_limits"):
                self._backend.on_rate_limits = self._limits.append
            await self._backend.start()
        except P2RError as error:
            return error
        return None

    async def complete(
        self, request: Request, frames: Frames | None
    ) -> tuple[Completion | P2RError, list[Any]]:
        """One call, one try."""
        said: Completion | P2RError
        try:
            said = await self._backend.complete(request, frames)
        except P2RError as error:
            if isinstance(error, AuthError) and self._made_of[2].declared.libraries:
                os._exit(1)  # its engine died: another actor takes its place
            said = error
        limits, self._limits[:] = self._limits[-1:], []
        return said, limits


# A crew.


BARREN = 3
"""Times that a whole crew may be lost before one of it has answered a call."""


class FramesLostError(Exception):
    """The node that held the frames was lost."""


@dataclass(eq=False)
class _Member:
    actor: Any
    welcome: Any = None
    up: bool = False
    busy: int = 0


class Crew:
    """Actors of one kind.

    Args:
        name: in messages.
        make: starts an actor.
        size: how many.
        depth: calls that one is given at once.
        needs: resources of one, in words.
    """

    def __init__(self, name: str, make: Callable[[], Any], size: int, depth: int, needs: str) -> None:
        self.name = name
        self.size = size
        self._make = make
        self._depth = depth
        self._needs = needs
        self._members: list[_Member] = []
        self._within = cache(Deadlines)
        """Seconds -> deadlines, for which time in which this process was stopped does not count."""
        self._slots = asyncio.Semaphore(0)
        """At least as many as calls can be given out now: those of a lost actor stay, and are found empty."""
        self._barren = 0
        """Actors lost since a call was last answered."""
        self._failure: P2RError | None = None

    def start(self) -> None:
        """Start the actors that are missing."""
        while len(self._members) < self.size and self._failure is None:
            member = _Member(self._make())
            self._members.append(member)
            member.welcome = asyncio.ensure_future(self._welcome(member))

    async def ask(self, send: Callable[[Any], Awaitable[Any]], wall_s: float) -> Any:
        """What `send` gets of an actor: the one with the fewest calls.

        Raises:
            TransientError: the actor was lost, or did not answer for `wall_s` seconds.
            FramesLostError: the frames in the arguments were.
            StoppedError: the run was asked to stop before it was given to one.
            P2RError: no actor can be started.
        """
        from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError

        member = await self._turn()
        try:
            with self._within(wall_s).call():
                answer = await send(member.actor)
        except ObjectLostError as error:
            raise FramesLostError(words_of(error)) from None
        except (RayActorError, OutOfMemoryError, TimeoutError) as error:
            why = words_of(error) if str(error) else f"no answer for {wall_s:.0f} s"
            self._lose(member, why)
            raise TransientError(f"one of the {self.name} was lost: {why}", maybe_billed=True) from None
        finally:
            member.busy -= 1
            self._slots.release()
        self._barren = 0
        return answer

    def waiting_for(self) -> str:
        """What the calls wait for, in words; empty while an actor runs."""
        if not self._members or any(one.up for one in self._members):
            return ""
        return f"Ray starts the {self.name} ({self._needs}); none of {self.size} runs yet"

    def stop(self) -> None:
        """Give out no further call; those under way go on."""
        self._fail(StoppedError(f"asked to stop before one of the {self.name} was free"))

    def close(self) -> None:
        """End the actors; safe to call twice."""
        self.stop()
        while self._members:
            self._end(self._members[0])

    async def _turn(self) -> _Member:
        """Wait for an actor that may be given a call."""
        self.start()
        while True:
            await self._slots.acquire()
            if self._failure is not None:
                self._slots.release()  # for the next one that waits
                raise self._failure
            free = [one for one in self._members if one.up and one.busy < self._depth]
            if free:
                member = min(free, key=lambda one: one.busy)
                member.busy += 1
                return member

    async def _welcome(self, member: _Member) -> None:
        """Give a new actor work as soon as it runs."""
        from ray.exceptions import RayError

        try:
            error = await member.actor.ready.remote()
        except RayError as lost:
            self._lose(member, words_of(lost))
            return
        if error is not None:
            self._fail(error)
        member.up = True
        for _ in range(self._depth):
            self._slots.release()

    def _lose(self, member: _Member, why: str) -> None:
        if member not in self._members:
            return  # another of its calls told
        self._end(member)
        self._barren += 1
        if self._barren >= BARREN * self.size:
            lost = f"{self._barren} {self.name} were lost one after the other, before one answered: {why}"
            self._fail(AwayError(lost, hint="look at Ray's logs, in /tmp/ray/session_latest/logs"))
        self.start()

    def _end(self, member: _Member) -> None:
        import ray

        self._members.remove(member)
        member.welcome.cancel()
        ray.kill(member.actor)

    def _fail(self, error: P2RError) -> None:
        self._failure = self._failure or error
        self._slots.release()


def words_of(error: BaseException) -> str:
    """What Ray says of an actor that is gone: it names the cause last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0][:200], lines[-1][:200]))) if lines else type(error).__name__
