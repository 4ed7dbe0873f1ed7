"""Put the parts of a build together: sources, media, callers and steps, live or from the journal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from videop2r_data.backends.batch_caller import BatchCaller
from videop2r_data.backends.caller import Caller
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.limiter import AdaptiveLimiter
from videop2r_data.backends.money import Money
from videop2r_data.builders.backend_of import backend_of, wanted_frames
from videop2r_data.builders.media_step import MediaStep
from videop2r_data.builders.requests import RequestBuilder
from videop2r_data.builders.shards import Shard
from videop2r_data.builders.sources import BadRow, open_source, read_pool
from videop2r_data.builders.steps import Asks, Steps
from videop2r_data.builders.workspace import Workspace
from videop2r_data.media import DecodePool
from videop2r_data.schemas import Sample
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.recipe import BackendSpec, MediaSpec, Recipe


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
        tell: is told why a call is tried again.
        retry_media: look again at files that failed in an earlier run.
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
        tell: Callable[[str], None] | None = None,
        retry_media: bool = False,
    ) -> None:
        self.recipe = recipe
        self.place = place
        self.journal = journal
        self.shard = shard
        self._kept: list[Sample | BadRow] | None = None
        self._tell = tell
        self.money = Money(journal, recipe.max_cost)
        self.requests = RequestBuilder(recipe, place.base)
        self.sampler = LazyPool(recipe.media, wanted_frames(recipe)) if live else None
        sources = [open_source(s, base=place.base, demo_root=place.demo) for s in recipe.sources]
        roots = {s.name: s.media_root for s in sources if s.media_root is not None}
        self.media = MediaStep(
            recipe.media,
            journal=journal,
            roots=roots,
            sampler=self.sampler,
            arrays=wanted_frames(recipe) == "array",
            retry_failed=retry_media,
        )
        self.generator = self._caller(recipe.generate.backend, live=live)
        self.judge: Caller | BatchCaller | None = None
        if recipe.judge is not None:
            spec = recipe.judge.backend
            self.judge = (
                self._batch(spec) if spec.batch and live and batches else self._caller(spec, live=live)
            )
        asks: Asks | None = self.judge
        self.steps = Steps(
            recipe,
            requests=self.requests,
            media=self.media,
            generator=self.generator,
            judge=asks,
            live=live,
        )

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
        """Go on with these rows of the pool: all of it, read a moment ago."""
        self._kept = rows

    async def close(self) -> None:
        """Stop decoders and backends."""
        async with AsyncExitStack() as stack:
            for part in (self.sampler, self.media, self.generator, self.judge):
                if part is not None:
                    stack.push_async_callback(part.close)

    def _caller(self, spec: BackendSpec, *, live: bool) -> Caller:
        limiter = AdaptiveLimiter(
            spec.concurrency,
            requests_per_minute=spec.requests_per_minute,
            tokens_per_minute=spec.tokens_per_minute,
        )
        backend = backend_of(self.recipe, self.place, spec) if live else None
        if backend is not None and hasattr(backend, "on_rate_limits"):
            backend.on_rate_limits = limiter.observe
        return Caller(
            backend,
            journal=self.journal,
            money=self.money,
            limiter=limiter,
            price=spec.price,
            retries=spec.retries,
            count_tokens=spec.tokens_per_minute is not None,
            tell=self._tell,
        )

    def _batch(self, spec: BackendSpec) -> BatchCaller:
        from videop2r_data.backends.anthropic_batches import AnthropicBatches

        return BatchCaller(AnthropicBatches(spec), journal=self.journal, money=self.money, price=spec.price)


class LazyPool:
    """Decoder processes, started with the first file that must be read."""

    def __init__(self, spec: MediaSpec, want: Any) -> None:
        self._spec = spec
        self._want = want
        self._pool: DecodePool | None = None

    async def sample(self, path: Path, data_type: Any) -> Frames:
        """Frames of one file, or MediaError."""
        if self._pool is None:
            self._pool = DecodePool(self._spec, want=self._want, workers=self._spec.workers)
            await self._pool.start()
        return await self._pool.sample(path, data_type)

    async def close(self) -> None:
        """Stop the processes."""
        if self._pool is not None:
            await self._pool.close()
            self._pool = None
