"""A judge that asks models in the background while the trainer computes [paper §3.3, §7.1].

A thread of its own runs an asyncio loop with the builder's caller: equal observations are asked once, also
across restarts (the journal is a cache by content), transient errors are tried again, and costs are reserved
before a call. `submit` returns at once; the trainer computes old and reference log-probabilities and then
waits. The requests are those of a build: a journal of one serves the other as its cache.

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
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from videop2r_data.backends import (
    Answer,
    Asked,
    Caller,
    FaithfulnessRequests,
    Journal,
    JudgeRequests,
    Money,
    ask_claims,
    ask_faithfulness,
    ask_verdict,
    frames_array,
    make_backend,
    make_breaker,
    make_caller,
)
from videop2r_data.errors import BudgetError, TransientError
from videop2r_data.media import encode_frames
from videop2r_data.schemas import (
    BackendSpec,
    Decides,
    Frames,
    Judgement,
    JudgeSpec,
    MediaSpec,
    Request,
    Sufficiency,
)
from videop2r_data.trainer.judging.base import (
    DemoJudge,
    Judge,
    Judged,
    JudgeItem,
    Reason,
    Ticket,
    again,
    closed,
    faithful,
)
from videop2r_data.trainer.settings.rl import FaithfulnessSpec, JudgingSpec, Reward

_CLOSE_S = 10.0
_TELL_S = 5.0
"""Seconds between two checks whether the server can be reached."""
_DETAIL_CHARS = 2000
_CLIPS = 32
"""Clips whose encoded frames are kept for the other observations of a group."""


class _Way:
    """Whom a decision about an observation asks; `request` is its first call, and `ask` decides.

    Equal requests under equal settings have one key, and calls that the journal has are not made.

    Raises:
        TransientError: no answer after all tries.
        AuthError, BudgetError, BackendError: the run must stop.
    """

    caller: Caller  # set before the first call

    def __init__(self, how: JudgingSpec | FaithfulnessSpec, backend: BackendSpec | None) -> None:
        assert backend is not None  # the settings see to it
        self.backend, self.client = backend, make_backend(backend)
        self.judge = JudgeSpec(
            backend=backend, prompt=how.prompt, temperature=how.temperature, max_tokens=how.max_tokens
        )

    def known(self, request: Request) -> bool:
        """Whether the journal has the answer."""
        return self.caller.journal.call(request.key) is not None


class SufficiencyWay(_Way):
    """Question, correct answer and observation, neutralised; never the media. The same call as in a build
    with the same judge."""

    decides: ClassVar[Decides] = "sufficiency"
    server = "judge"  # in messages

    def __init__(self, spec: JudgingSpec, _: MediaSpec) -> None:
        super().__init__(spec, spec.backend)
        self._requests = JudgeRequests(self.judge)

    def request(self, item: JudgeItem) -> Request:
        """The call, without frames."""
        of, seen = item.example, item.observation or ""
        return self._requests.request(
            problem=of.problem, options=of.options, answer=of.reference, observation=seen
        )

    async def ask(self, item: JudgeItem) -> Judged:
        """One call, or two where the first reply holds no verdict."""
        request = self.request(item)
        cached = self.known(request)
        return verdict(await ask_verdict(self.caller.ask, request), cached=cached)


class FaithfulnessWay(_Way):
    """The claims of an observation from its text alone, then their verdicts from the frames."""

    decides: ClassVar[Decides] = "faithfulness"
    server = "faithfulness"

    def __init__(self, spec: JudgingSpec, media: MediaSpec) -> None:
        how = spec.faithfulness
        super().__init__(how, how.backend or spec.backend)
        self._media = media
        self._requests = FaithfulnessRequests(self.judge, claims_prompt=how.claims_prompt)
        self._encoded: dict[str, asyncio.Future[tuple[bytes, ...]]] = {}

    def request(self, item: JudgeItem) -> Request:
        """The call for the claims."""
        return self._requests.claims(item.observation or "")

    async def ask(self, item: JudgeItem) -> Judged:
        """Two calls about an observation, not one for each claim."""
        frames = item.frames
        if frames is None:
            return Judged(None, Reason.NO_MEDIA)
        request = self.request(item)
        cached = self.known(request)
        listed = await ask_claims(self.caller.ask, request)
        if listed.value is None:
            return unread(listed.answer, cached=cached, why="the reply is no list of claims")
        if not listed.value:
            return Judged(0.0, Reason.JUDGED, cached, "no claim")
        record, claims = frames.record, listed.value
        check = self._requests.check(claims, record, self._media.wire_of(record.passthrough))
        cached = cached and self.known(check)
        seen = await ask_faithfulness(self.caller.ask, check, claims, lambda: self._pictures(frames))
        if seen.value is None:
            return unread(seen.answer, cached=cached, why="the reply holds no verdict")
        found = faithful(seen.value, cached=cached)
        return replace(found, detail=found.detail[:_DETAIL_CHARS])

    async def _pictures(self, frames: Frames) -> Frames:
        """The frames as the backend takes them; those of a clip are encoded once for a group."""
        if self.backend.declared.frames == "array":
            return frames
        key = frames.record.frames_sha256
        if key not in self._encoded:
            if len(self._encoded) >= _CLIPS:
                del self._encoded[next(iter(self._encoded))]
            encoding = asyncio.to_thread(encode_frames, frames_array(frames), self._media)
            self._encoded[key] = asyncio.ensure_future(encoding)
        pictures = await asyncio.shield(self._encoded[key])
        return Frames(frames.record, encoded=pictures, mime=self._media.mime)


def verdict(asked: Asked[Judgement], *, cached: bool) -> Judged:
    """The judge's reply as `Judged`: unscored, with a reason, if it holds no verdict."""
    judgement = asked.value
    if judgement is None or judgement.verdict is None:
        return unread(asked.answer, cached=cached, why=judgement.explanation if judgement else "")
    words = judgement.explanation[:_DETAIL_CHARS]
    return Judged(float(judgement.verdict is Sufficiency.YES), Reason.JUDGED, cached, words)


def unread(answer: Answer | None, *, cached: bool, why: str) -> Judged:
    """Why there is nothing to read in an answer."""
    if answer is None or answer.completion is None:
        return Judged(None, Reason.REFUSED, cached, "" if answer is None else answer.refused[:_DETAIL_CHARS])
    if answer.completion.finish_reason == "content_filter":
        return Judged(None, Reason.REFUSED, cached, "the judge's model declined to answer")
    return Judged(None, Reason.NO_VERDICT, cached, why[:_DETAIL_CHARS])


Way = SufficiencyWay | FaithfulnessWay


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
        kinds: dict[Reward, type[Way]] = {"sufficiency": SufficiencyWay, "faithfulness": FaithfulnessWay}
        self.ways: dict[Reward, Way] = {name: kinds[name](spec, media) for name in self.asks}
        self._tell, self._told = tell, -_TELL_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._journal: Journal | None = None

    # the caller's thread

    def start(self) -> None:
        """Open the journal and start the thread; a backend starts with the first call that must be made.

        Raises:
            JournalError: the cache folder cannot be used.
        """
        journal = self._journal = Journal(self.folder)
        money = Money(journal, self.spec.max_cost)
        for way in self.ways.values():
            way.caller = make_caller(
                way.backend,
                way.client,
                way.server,
                journal=journal,
                money=money,
                breaker=make_breaker(way.server, decides=way.decides),
                concurrency=self.spec.concurrency,
                forgive=True,
                tell=self._tell,
            )
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
        found = self.ruled(items)
        equal = self.alike({row: item for row, item in enumerate(items) if row not in found})
        decisions: list[dict[Reward, Judged]] = [{} for _ in equal]
        first = (items[rows[0]] for rows in equal)
        await self._wait(list(map(asyncio.create_task, map(self._decide, first, decisions))), due)
        over = Judged(None, Reason.LATE, False, f"no verdict within {self.spec.deadline_s:g} s")
        for rows, parts in zip(equal, decisions, strict=True):
            shut = any(closed(part, self.spec) for part in parts.values())
            one = self.whole(parts if shut else dict.fromkeys(self.asks, over) | parts)
            found |= dict.fromkeys(rows, again(one)) | {rows[0]: one}
        return [found[row] for row in range(len(items))]

    def key(self, item: JudgeItem) -> tuple[str, ...]:
        """Keys of the requests and digest of the frames."""
        frames = item.frames.record.frames_sha256 if item.frames and "faithfulness" in self.ways else ""
        return (frames, *(way.request(item).key for way in self.ways.values()))

    async def _decide(self, item: JudgeItem, parts: dict[Reward, Judged]) -> None:
        """Fill `parts`; what a deadline cuts off is not in it."""
        for name in self.asks:
            parts[name] = await self._ask(self.ways[name], item)
            if closed(parts[name], self.spec):
                break

    async def _wait(self, tasks: list[asyncio.Task[None]], due: float) -> None:
        """Until the deadline, which moves on while a server cannot be reached; what is late is cancelled, and
        what stops the run is raised as soon as it is known."""
        limiters = [way.caller.limiter for way in self.ways.values()]
        while tasks:
            left = min(max(0.0, due - time.monotonic()), _TELL_S)
            done, late = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            if not late or any(task.exception() is not None for task in done):
                break
            words = "; ".join(filter(None, (limiter.waiting_for() for limiter in limiters)))
            if self._tell is not None and words and time.monotonic() - self._told >= _TELL_S:
                self._told = time.monotonic()
                self._tell(words)
            if any(limiter.reach.away_s is not None for limiter in limiters):
                due = max(due, time.monotonic() + self.spec.deadline_s)
            elif due <= time.monotonic():
                break
        await _cancel(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _ask(self, way: Way, item: JudgeItem) -> Judged:
        while True:
            try:
                return await way.ask(item)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # An equal call of an earlier ticket was cancelled at its deadline: ask again, this one has
                # time left.
            except TransientError as error:
                return Judged(None, Reason.FAILED, False, error.message[:_DETAIL_CHARS])
            except BudgetError as error:
                if self.spec.on_max_cost == "unscored":
                    return Judged(None, Reason.OVER_BUDGET, False, error.message[:_DETAIL_CHARS])
                # the same error, with the fields of a training recipe to change
                raise BudgetError(
                    error.message,
                    where="judging.max_cost",
                    hint="raise judging.max_cost and go on from the last checkpoint, or set "
                    "on_max_cost: unscored",
                ) from error

    async def _end(self) -> None:
        await _cancel(asyncio.all_tasks() - {asyncio.current_task()})
        for way in self.ways.values():
            await way.caller.close()


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
