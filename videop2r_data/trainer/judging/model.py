"""A judge that asks models in the background while the trainer computes [paper §3.3, §7.1].

A thread of its own runs an asyncio loop with the builder's caller: equal observations are asked once, also
across restarts (the journal is a cache by content), transient errors are tried again, and costs are reserved
before a call. `submit` returns at once; the trainer computes old and reference log-probabilities and then
waits.

An observation without a verdict at the deadline is unscored and counted, never 0. A server that cannot be
reached is waited for first (`backend.server_wait_s`). What can never succeed (a wrong key, a full disk,
`max_cost` reached), and a judge that refuses every request or gives no verdict many times in a row, stops the
run: without verdicts the objective is another one. Requests that an earlier run was refused, or got an empty
reply to, are asked again.

With several processes each has a judge of its own over one cache folder: a journal takes several writers.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from videop2r_data.backends import Caller, Journal, Money, make_backend, make_breaker, make_caller
from videop2r_data.errors import BudgetError, TransientError
from videop2r_data.schemas import MediaSpec
from videop2r_data.trainer.judging.base import (
    DemoJudge,
    Judge,
    Judged,
    JudgeItem,
    Reason,
    Ticket,
    again,
    closed,
)
from videop2r_data.trainer.judging.ways import DETAIL_CHARS, FaithfulnessWay, SufficiencyWay, Way
from videop2r_data.trainer.settings.rl import JudgingSpec, Reward

_CLOSE_S = 10.0
_TELL_S = 5.0
"""Seconds between two checks whether the server can be reached."""


class PerceptionJudge(Judge):
    """Asks models.

    Args:
        spec: `kind: backend`.
        cache: folder of the journal, used if the settings name none; made if missing.
        tell: is told, from the judge's thread, why a call is tried again.
        asks: what to decide of each observation, in this order: `sufficiency`, `faithfulness`.
        media: how frames are encoded for a server.

    Raises:
        ConfigError: a prompt is missing or does not fit what is decided, or a backend's settings do not fit.
        MissingExtraError: a backend's library is not installed.
    """

    def __init__(
        self,
        spec: JudgingSpec,
        *,
        cache: Path,
        tell: Callable[[str], None] | None = None,
        asks: Sequence[Reward] = ("sufficiency",),
        media: MediaSpec | None = None,
    ) -> None:
        super().__init__(spec, asks)
        self.folder = spec.cache or cache
        media = media or MediaSpec()
        made = {"sufficiency": SufficiencyWay, "faithfulness": FaithfulnessWay}
        self.ways: dict[Reward, Way] = {name: made[name](spec, media) for name in self.asks}
        self._backends = {name: make_backend(way.backend) for name, way in self.ways.items()}
        self._tell, self._told = tell, -_TELL_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._journal: Journal | None = None
        self._callers: dict[Reward, Caller] = {}

    # the caller's thread

    def start(self) -> None:
        """Open the journal and start the thread; a backend starts with the first call that must be made.

        Raises:
            JournalError: the cache folder cannot be used.
        """
        journal = self._journal = Journal(self.folder)
        money = Money(journal, self.spec.max_cost)
        self._callers = {
            name: make_caller(
                way.backend,
                self._backends[name],
                way.server,
                journal=journal,
                money=money,
                breaker=make_breaker(way.server, decides=way.decides),
                concurrency=self.spec.concurrency,
                forgive=True,
                tell=self._tell,
            )
            for name, way in self.ways.items()
        }
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perception-judge", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Submit observations; returns at once. Their deadline begins now."""
        if self._loop is None:
            raise RuntimeError("start() comes before submit()")
        due = time.monotonic() + self.spec.deadline_s
        return asyncio.run_coroutine_threadsafe(self._judge(list(items), due), self._loop)

    def close(self) -> None:
        """Cancel running calls, flush the journal, end the thread; safe to call twice."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        try:
            ending = asyncio.run_coroutine_threadsafe(self._end(), loop)
            with suppress(TimeoutError):
                ending.result(_CLOSE_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_CLOSE_S)
            if not thread.is_alive():
                loop.close()
            if self._journal is not None:
                self._journal.close()

    # the judge's thread

    async def _judge(self, items: list[JudgeItem], due: float) -> list[Judged]:
        assert self._journal is not None
        self._journal.refresh()  # verdicts of other processes
        judged = {row: ruled for row, item in enumerate(items) if (ruled := self.ruled(item)) is not None}
        rows: dict[tuple[str, ...], list[int]] = {}  # of equal items, which are asked once
        for row, item in enumerate(items):
            if row not in judged:
                rows.setdefault(self.key(item), []).append(row)
        found = await self._ask_all([items[equal[0]] for equal in rows.values()], due)
        for equal, one in zip(rows.values(), found, strict=True):
            judged |= dict.fromkeys(equal, again(one)) | {equal[0]: one}
        return [judged[row] for row in range(len(items))]

    def key(self, item: JudgeItem) -> tuple[str, ...]:
        """Keys of the requests and digest of the frames."""
        frames = item.frames.record.frames_sha256 if item.frames and "faithfulness" in self.ways else ""
        return (frames, *(way.request(item).key for way in self.ways.values()))

    async def _ask_all(self, items: list[JudgeItem], due: float) -> list[Judged]:
        """One verdict per item; raises what stops the run as soon as it is known."""
        found: list[tuple[JudgeItem, dict[Reward, Judged]]] = [(item, {}) for item in items]
        tasks = [asyncio.create_task(self._decide(*one)) for one in found]
        if tasks:
            done, late = await self._wait(tasks, due)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in done:
                task.result()
        return [self._settled(parts) for _, parts in found]

    async def _decide(self, item: JudgeItem, parts: dict[Reward, Judged]) -> None:
        """Fill `parts`; what a deadline cuts off is not in it."""
        for name in self.asks:
            parts[name] = await self._ask(name, item)
            if closed(parts[name], self.spec):
                break

    def _settled(self, parts: dict[Reward, Judged]) -> Judged:
        """What was decided of one item by the deadline, as one verdict."""
        over = Judged(None, Reason.LATE, False, f"no verdict within {self.spec.deadline_s:g} s")
        shut = any(closed(part, self.spec) for part in parts.values())
        return self.whole(parts if shut else dict.fromkeys(self.asks, over) | parts)

    async def _wait(
        self, tasks: list[asyncio.Task[None]], due: float
    ) -> tuple[set[asyncio.Task[None]], set[asyncio.Task[None]]]:
        """Tasks that are done and tasks that are late; the deadline moves on while a server cannot be
        reached."""
        limiters = [caller.limiter for caller in self._callers.values()]
        while True:
            left = max(0.0, due - time.monotonic())
            done, late = await asyncio.wait(
                tasks, timeout=min(left, _TELL_S), return_when=asyncio.FIRST_EXCEPTION
            )
            if not late or any(task.exception() is not None for task in done):
                return done, late
            words = "; ".join(filter(None, (limiter.waiting_for() for limiter in limiters)))
            if self._tell is not None and words and time.monotonic() - self._told >= _TELL_S:
                self._told = time.monotonic()
                self._tell(words)
            if any(limiter.reach.away_s is not None for limiter in limiters):
                due = max(due, time.monotonic() + self.spec.deadline_s)
            elif due <= time.monotonic():
                return done, late

    async def _ask(self, name: Reward, item: JudgeItem) -> Judged:
        while True:
            try:
                return await self.ways[name].ask(self._callers[name], item)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # An equal call of an earlier ticket was cancelled at its deadline: ask again, this one has
                # time left.
            except TransientError as error:
                return Judged(None, Reason.FAILED, False, error.message[:DETAIL_CHARS])
            except BudgetError as error:
                if self.spec.on_max_cost == "unscored":
                    return Judged(None, Reason.OVER_BUDGET, False, error.message[:DETAIL_CHARS])
                # the same error, with the fields of a training recipe to change
                raise BudgetError(
                    error.message,
                    where="judging.max_cost",
                    hint="raise judging.max_cost and go on from the last checkpoint, or set "
                    "on_max_cost: unscored",
                ) from error

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for caller in self._callers.values():
            await caller.close()


def make_judge(
    spec: JudgingSpec,
    *,
    cache: Path,
    tell: Callable[[str], None] | None = None,
    asks: Sequence[Reward] = ("sufficiency",),
    media: MediaSpec | None = None,
) -> Judge | None:
    """The judge that the settings ask for, not started yet; None for `kind: none`, or with nothing to ask.

    Arguments and errors are those of `PerceptionJudge`.
    """
    asks = tuple(name for name in asks if name != "self")
    if spec.kind == "none" or not asks:
        return None
    if spec.kind == "demo":
        return DemoJudge(spec, asks)
    return PerceptionJudge(spec, cache=cache, tell=tell, asks=asks, media=media)
