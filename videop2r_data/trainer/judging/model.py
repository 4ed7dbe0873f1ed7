"""A judge that asks a model in the background while the trainer computes [paper §3.3, §7.1].

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
from dataclasses import replace
from pathlib import Path

from videop2r_data.backends import (
    Asked,
    Caller,
    Journal,
    JudgeRequests,
    Money,
    ask_verdict,
    make_backend,
    make_breaker,
    make_caller,
)
from videop2r_data.errors import BudgetError, TransientError
from videop2r_data.schemas import Judgement, JudgeSpec, Request, Sufficiency
from videop2r_data.trainer.judging.base import DemoJudge, Judge, Judged, JudgeItem, Reason, Ticket, decided
from videop2r_data.trainer.settings.rl import JudgingSpec

DETAIL_CHARS = 2000


def verdict(asked: Asked[Judgement], *, cached: bool) -> Judged:
    """The judge's reply as `Judged`: unscored, with a reason, if it holds no verdict."""
    answer = asked.answer
    if answer is None or answer.completion is None:
        detail = "" if answer is None else answer.refused[:DETAIL_CHARS]
        return Judged(None, Reason.REFUSED, cached, detail)
    judgement = asked.value
    if judgement is None:
        return Judged(None, Reason.REFUSED, cached, "the judge's model declined to answer")
    words = judgement.explanation[:DETAIL_CHARS]
    if judgement.verdict is None:
        return Judged(None, Reason.NO_VERDICT, cached, words)
    return Judged(judgement.verdict is Sufficiency.YES, Reason.JUDGED, cached, words)


_CLOSE_S = 10.0
_TELL_S = 5.0
"""Seconds between two checks whether the server can be reached."""


class PerceptionJudge(Judge):
    """Asks a model.

    Args:
        spec: `kind: backend`.
        cache: folder of the journal, used if the settings name none; made if missing.
        tell: is told, from the judge's thread, why a call is tried again.

    Raises:
        ConfigError: the prompt is missing or is no judge prompt, or the backend's settings do not fit.
        MissingExtraError: the backend's library is not installed.
    """

    def __init__(
        self,
        spec: JudgingSpec,
        *,
        cache: Path,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        assert spec.backend is not None  # the settings see to it
        self.spec = spec
        self.folder = spec.cache or cache
        self._requests = JudgeRequests(
            JudgeSpec(
                backend=spec.backend,
                prompt=spec.prompt,
                temperature=spec.temperature,
                max_tokens=spec.max_tokens,
            )
        )
        self._backend = make_backend(spec.backend)
        self._tell = tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._caller: Caller | None = None

    # the caller's thread

    def start(self) -> None:
        """Open the journal and start the thread; the backend starts with the first call that must be made.

        Raises:
            JournalError: the cache folder cannot be used.
        """
        journal = Journal(self.folder)
        self._caller = make_caller(
            self._requests.spec.backend,
            self._backend,
            "judge",
            journal=journal,
            money=Money(journal, self.spec.max_cost),
            breaker=make_breaker("judge"),
            concurrency=self.spec.concurrency,
            forgive=True,
            tell=self._tell,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="perception-judge", daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Submit the observations of a step; returns at once. The deadline begins now."""
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
            if self._caller is not None:
                self._caller.journal.close()

    def request(self, item: JudgeItem) -> Request:
        """Question, correct answer and observation, neutralised; never the media.

        Equal ones under equal settings have one key, in a build with the same judge too: the journal of a
        build can serve as the cache of a training run.
        """
        example = item.example
        return self._requests.request(
            problem=example.problem,
            options=example.options,
            answer=example.reference,
            observation=item.observation or "",
        )

    # the judge's thread

    async def _judge(self, items: list[JudgeItem], due: float) -> list[Judged]:
        assert self._caller is not None
        self._caller.journal.refresh()  # verdicts of other processes
        judged = {row: ruled for row, item in enumerate(items) if (ruled := decided(item)) is not None}
        requests = {row: self.request(item) for row, item in enumerate(items) if row not in judged}
        answers = await self._ask_all({request.key: request for request in requests.values()}, due)
        seen: set[str] = set()
        for row, request in requests.items():
            one = answers[request.key]
            judged[row] = replace(one, cached=True) if request.key in seen else one
            seen.add(request.key)
        return [judged[row] for row in range(len(items))]

    async def _ask_all(self, requests: dict[str, Request], due: float) -> dict[str, Judged]:
        """One verdict per key; raises what stops the run as soon as it is known."""
        tasks = {key: asyncio.create_task(self._ask(request)) for key, request in requests.items()}
        if not tasks:
            return {}
        done, late = await self._wait(list(tasks.values()), due)
        fatal = next((error for task in done if (error := task.exception()) is not None), None)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        if fatal is not None:
            raise fatal
        over = f"no verdict within {self.spec.deadline_s:g} s"
        return {
            key: Judged(None, Reason.LATE, False, over) if task in late else task.result()
            for key, task in tasks.items()
        }

    async def _wait(
        self, tasks: list[asyncio.Task[Judged]], due: float
    ) -> tuple[set[asyncio.Task[Judged]], set[asyncio.Task[Judged]]]:
        """Tasks that are done and tasks that are late; the deadline moves on while the server cannot be
        reached."""
        assert self._caller is not None
        limiter = self._caller.limiter
        while True:
            left = max(0.0, due - time.monotonic())
            done, late = await asyncio.wait(
                tasks, timeout=min(left, _TELL_S), return_when=asyncio.FIRST_EXCEPTION
            )
            if not late or any(task.exception() is not None for task in done):
                return done, late
            if self._tell is not None and (words := limiter.waiting_for()):
                self._tell(words)
            if limiter.reach.away_s is not None:
                due = max(due, time.monotonic() + self.spec.deadline_s)
            elif due <= time.monotonic():
                return done, late

    async def _ask(self, request: Request) -> Judged:
        caller = self._caller
        assert caller is not None
        cached = caller.journal.call(request.key) is not None
        while True:
            try:
                return verdict(await ask_verdict(caller.ask, request), cached=cached)
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
        if self._caller is not None:
            await self._caller.close()


def make_judge(
    spec: JudgingSpec,
    *,
    cache: Path,
    tell: Callable[[str], None] | None = None,
) -> Judge | None:
    """The judge that the settings ask for, not started yet; None for `kind: none`.

    Arguments and errors are those of `PerceptionJudge`.
    """
    if spec.kind == "none":
        return None
    if spec.kind == "demo":
        return DemoJudge()
    return PerceptionJudge(spec, cache=cache, tell=tell)
