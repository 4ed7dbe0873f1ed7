"""Put the parts of a build together: sources, media, callers and steps, live or from the journal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Protocol

from videop2r_data.backends import (
    BatchCaller,
    Breaker,
    Caller,
    Journal,
    Money,
    Step,
    fold,
    make_backend,
    make_batch_caller,
    make_breaker,
    make_caller,
    open_keys,
)
from videop2r_data.builders.frames import MediaStep
from videop2r_data.builders.run import Stop, Tally
from videop2r_data.builders.sources import open_source, read_pool
from videop2r_data.builders.steps import Asks, RequestBuilder, Steps
from videop2r_data.builders.workspace import Shard, Workspace
from videop2r_data.errors import ConfigError
from videop2r_data.media import DecodePool
from videop2r_data.schemas import Backend, BackendSpec, BadRow, Recipe, Sample


class Parts:
    """Everything that one build works with.

    Attributes:
        steps: takes one question through the build.
        callers: step -> what answers it.
        window: questions that may be under way at once.

    Args:
        live: calls may be made and files decoded; else answers come from the journal only.
        batches: a judge that takes batches is asked in batches.
        shard: work on this share of the pool only.
        stop: when it is asked, waits end and no further call is made.
        keep_going: do not stop for refusals and useless replies in a row.
        forgive: ask again what an earlier run was refused, or got an empty reply to.
        tell: is told why a call is tried again.
    """

    def __init__(
        self,
        recipe: Recipe,
        place: Workspace,
        journal: Journal,
        *,
        live: bool,
        batches: bool = True,
        shard: Shard | None = None,
        stop: Stop | None = None,
        keep_going: bool = False,
        forgive: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.place = place
        self.journal = journal
        self.shard = shard
        self._kept: list[Sample | BadRow] | None = None
        self._tell = tell
        self._keep_going = keep_going
        self._forgive = forgive
        self.money = Money(journal, recipe.max_cost)
        self.requests = RequestBuilder(recipe, place.base)
        wanted = recipe.generate.backend.declared.frames
        # its processes start with the first file that must be decoded
        self.sampler = DecodePool(recipe.media, want=wanted) if live else None
        sources = [open_source(s, base=place.base, demo_root=place.demo) for s in recipe.sources]
        roots = {s.name: s.media_root for s in sources if s.media_root is not None}
        self.media = MediaStep(
            recipe.media,
            journal=journal,
            roots=roots,
            sampler=self.sampler,
            arrays=wanted == "array",
        )
        self.generator = self._caller(recipe.generate.backend, "generate", live=live)
        self.judge = self._judge(live=live, batches=batches)
        asks: Asks | None = self.judge
        self.steps = Steps(
            recipe,
            requests=self.requests,
            media=self.media,
            generator=self.generator,
            judge=asks,
            live=live,
        )

        if stop is not None:
            stop.listen(self._stop)

    def _stop(self) -> None:
        for caller in (self.generator, self.judge):
            if caller is not None:
                caller.stop()
        self.media.store.stop()

    def waiting_for(self) -> str:
        """What the calls wait for, in words; empty while no call waits."""
        callers = [c for c in (self.generator, self.judge) if isinstance(c, Caller)]
        return "; ".join(filter(None, (caller.limiter.waiting_for() for caller in callers)))

    @property
    def window(self) -> int:
        """Questions under way at once: half as many again as may be in a call, so that both limits stay full.

        With just as many, the questions that crowd before one server would be missing before the other.
        """
        judge = self.recipe.judge.backend.concurrency if self.recipe.judge else 0
        calls = self.recipe.generate.backend.concurrency + judge
        return calls + calls // 2 + 2 * self.recipe.media.workers

    def pool(self) -> Iterator[Sample | BadRow]:
        """The questions (of this process's share) in pool order: read anew, or kept if they are few."""
        if self._kept is not None:
            return iter(self._kept)
        pool = read_pool(self.recipe.sources, base=self.place.base, demo_root=self.place.demo)
        return pool if self.shard is None else self.shard.of(pool)

    def keep(self, rows: list[Sample | BadRow]) -> None:
        """Keep the rows of the whole pool in memory for the next pass."""
        self._kept = rows

    async def close(self) -> None:
        """Stop decoders and backends."""
        async with AsyncExitStack() as stack:
            for part in (self.sampler, self.media, self.generator, self.judge):
                if part is not None:
                    stack.push_async_callback(part.close)

    def _judge(self, *, live: bool, batches: bool) -> Caller | BatchCaller | None:
        if self.recipe.judge is None:
            return None
        spec = self.recipe.judge.backend
        if spec.batch and live and batches:
            return self._batch(spec)
        if live:
            self._refuse_open_batches()
        return self._caller(spec, "judge", live=live)

    def _refuse_open_batches(self) -> None:
        """A call that is in a batch at the server would be paid a second time if it were asked one by one."""
        events = self.journal.batch_events()
        if events and (waiting := len(open_keys(fold(events)))):
            raise ConfigError(
                f"{waiting:,} judge calls of this build are in a batch at the server; asked one by one "
                "as well, they would be paid twice",
                where=str(self.place.journal),
                hint="collect them first: p2r-data build with judge.backend.batch: true\n"
                "or give the batch up: p2r-data build --abandon-batch ID",
            )

    def _caller(self, spec: BackendSpec, step: Step, *, live: bool) -> Caller:
        return make_caller(
            spec,
            backend_of(self.recipe, self.place, spec) if live else None,
            step,
            journal=self.journal,
            money=self.money,
            breaker=self._breaker(step),
            forgive=self._forgive,
            tell=self._tell,
        )

    def _batch(self, spec: BackendSpec) -> BatchCaller:
        return make_batch_caller(spec, journal=self.journal, money=self.money, breaker=self._breaker("judge"))

    def _breaker(self, step: Step) -> Breaker:
        return make_breaker(step, keep_going=self._keep_going, flags=True)


def backend_of(recipe: Recipe, place: Workspace, spec: BackendSpec) -> Backend:
    """The backend that answers a step, not started yet.

    Args:
        recipe: names the demo world, if there is one.
        place: where a demo world lies.
        spec: the step's backend.

    Raises:
        ConfigError: the settings do not fit the kind, or a demo backend has no demo source.
    """

    def demo(spec: BackendSpec) -> Backend:
        from videop2r_data.demo import DemoBackend

        world = next((s.name for s in recipe.sources if s.kind == "demo"), None)
        if world is None:
            raise ConfigError(
                "a backend of kind demo answers only for a source of kind demo", where=recipe.name
            )
        return DemoBackend(spec, place.demo / world)

    return make_backend(spec, demo=demo)


class Watcher(Protocol):
    """Progress display of a pass over the pool."""

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins; `total` questions if known."""

    def step(self, tally: Tally, parts: Parts) -> None:
        """One more question is done."""
