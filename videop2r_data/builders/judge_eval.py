"""Judges against people: the same labels for each judge, asked once, compared exactly [paper, table 4].

A calibration has a journal like a build: a run that was stopped goes on, a second one asks nothing, and the
journal of the build that made the data answers for the judge that made them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import orjson

from videop2r_data.backends.breaker import Breaker
from videop2r_data.backends.caller import make_caller
from videop2r_data.backends.journal import Journal
from videop2r_data.backends.judge_requests import JudgeRequests, Verdict, ask_verdict
from videop2r_data.backends.kinds import make_backend
from videop2r_data.backends.money import Money, cost_usd
from videop2r_data.builders.judge_report import CalibrationReport, JudgedLabel, JudgeReport, Labels
from videop2r_data.builders.lease import take_now
from videop2r_data.errors import BackendError, BudgetError, TransientError
from videop2r_data.schemas import Sufficiency
from videop2r_data.schemas.calibration import HumanLabel, JudgesFile, NamedJudge
from videop2r_data.schemas.calls import Backend, Completion, Frames, Request
from videop2r_data.schemas.recipe import MediaSpec
from videop2r_data.validators.agreement import count_confusion, measure_agreement

Tell = Callable[[str, int, int], None]
"""Progress: judge, labels done, labels in all."""

_NO_ANSWER = "no answer: "


class TimedBackend:
    """Remembers how long each answered call took."""

    def __init__(self, backend: Backend, note: Callable[[str, float], None]) -> None:
        self._backend = backend
        self._note = note
        self.name, self.model, self.wants = backend.name, backend.model, backend.wants

    async def start(self) -> None:
        """As the backend."""
        await self._backend.start()

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """As the backend."""
        began = time.perf_counter()
        completion = await self._backend.complete(request, frames)
        self._note(request.key, time.perf_counter() - began)
        return completion

    async def close(self) -> None:
        """As the backend."""
        await self._backend.close()


async def calibrate(
    judges: JudgesFile,
    labels: Labels,
    work: Path,
    *,
    base: Path | None = None,
    tell: Tell = lambda *_: None,
) -> tuple[CalibrationReport, list[JudgedLabel]]:
    """Ask every judge about every label.

    Args:
        judges: whom to ask.
        labels: what people said.
        work: folder of the journal and of the latencies.
        base: folder that prompt paths are relative to.

    Returns:
        The report, and every verdict in the order of judges and labels.

    Raises:
        ConfigError: a judge's settings or prompt are wrong. AuthError: a key is. BusyError: another
            process works in this folder.
    """
    reports: list[JudgeReport] = []
    rows: list[JudgedLabel] = []
    requests = {judge.name: JudgeRequests(judge, base) for judge in judges.judges}
    with (
        take_now(work, "judge-eval"),
        Journal(work / "journal") as journal,
        (work / "latency.jsonl").open("ab") as file,
    ):
        money = Money(journal, judges.max_cost)
        latency = _read_latency(work / "latency.jsonl")

        def note(key: str, seconds: float) -> None:
            latency[key] = seconds
            file.write(orjson.dumps({"key": key, "s": round(seconds, 4)}) + b"\n")

        complete = True
        for judge in judges.judges:
            one = _OneJudge(
                judge, requests[judge.name], journal=journal, money=money, latency=latency, note=note
            )
            found = await one.ask_all(labels.used, tell)
            reports.append(one.report(found))
            rows += found
            complete = complete and not one.out_of_money
    return (
        CalibrationReport(
            labels=len(labels.used),
            sufficient=sum(label.sufficient for label in labels.used),
            repeated=labels.repeated,
            bad=labels.bad,
            conflicts=labels.conflicts,
            people=labels.people,
            judges=reports,
            complete=complete,
        ),
        rows,
    )


def _read_latency(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = orjson.loads(line)
            found[record["key"]] = float(record["s"])
        except (ValueError, KeyError, TypeError):
            continue  # a torn line: its call counts, its time is not known
    return found


class _OneJudge:
    """Asks one judge, and adds up."""

    def __init__(
        self,
        judge: NamedJudge,
        requests: JudgeRequests,
        *,
        journal: Journal,
        money: Money,
        latency: dict[str, float],
        note: Callable[[str, float], None],
    ) -> None:
        spec = judge.backend
        self.judge = judge
        self.requests = requests
        self.latency = latency
        self.cost = 0.0
        self.out_of_money = False
        backend = make_backend(spec, media=MediaSpec())
        self.caller = make_caller(
            spec,
            TimedBackend(backend, note),
            "judge",
            journal=journal,
            money=money,
            # a judge that gives no verdicts is a finding; one that is refused or silent is a mistake
            breaker=Breaker("the judge server"),
            forgive=True,
        )
        if hasattr(backend, "on_rate_limits"):
            backend.on_rate_limits = self.caller.limiter.observe

    async def ask_all(self, labels: Sequence[HumanLabel], tell: Tell) -> list[JudgedLabel]:
        """Every label, in order; many at once."""
        gate = asyncio.Semaphore(self.judge.backend.concurrency)
        done = 0

        async def one(label: HumanLabel) -> JudgedLabel:
            nonlocal done
            async with gate:
                found = await self._ask(label)
            done += 1
            tell(self.judge.name, done, len(labels))
            return found

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(label)) for label in labels]
        except* BackendError as caught:
            raise caught.exceptions[0] from None
        finally:
            await self.caller.close()
        return [task.result() for task in tasks]

    async def _ask(self, label: HumanLabel) -> JudgedLabel:
        request = self.requests.request(
            problem=label.problem,
            options=label.options,
            answer=label.reference,
            observation=label.observation,
        )
        try:
            asked = await ask_verdict(self.caller.ask, request)
        except TransientError as error:
            return self._unscored(label, f"{_NO_ANSWER}{error.message}")
        except BudgetError as error:
            self.out_of_money = True
            return self._unscored(label, f"not asked: {error.message}")
        return self._read(label, asked, self.latency.get(request.key))

    def _read(self, label: HumanLabel, asked: Verdict, seconds: float | None) -> JudgedLabel:
        price = self.judge.backend.price
        for call in asked.answers:
            if price is not None and call.completion is not None:
                self.cost += cost_usd(call.completion.usage, price, batched=call.completion.batched)
        if asked.answer is None or asked.answer.completion is None:
            return self._unscored(label, f"refused: {asked.answer.refused if asked.answer else 'no backend'}")
        completion, judgement = asked.answer.completion, asked.judgement
        if judgement is None:
            return self._unscored(label, "the judge's model declined to answer")
        sufficient = None if judgement.verdict is None else judgement.verdict is Sufficiency.YES
        return JudgedLabel(
            judge=self.judge.name,
            model=completion.model,
            label=label,
            sufficient=sufficient,
            why=judgement.explanation
            if sufficient is not None
            else f"no verdict: {judgement.explanation or 'the reply is empty'}",
            latency_s=seconds,
        )

    def _unscored(self, label: HumanLabel, why: str) -> JudgedLabel:
        return JudgedLabel(
            judge=self.judge.name, model="", label=label, sufficient=None, why=why, latency_s=None
        )

    def report(self, found: Sequence[JudgedLabel]) -> JudgeReport:
        scored = [(x.label.sufficient, x.sufficient) for x in found if x.sufficient is not None]
        seconds = [x.latency_s for x in found if x.latency_s is not None]
        return JudgeReport(
            name=self.judge.name,
            model=next((x.model for x in found if x.model), self.judge.backend.model),
            prompt_sha256=self.requests.prompt.sha256,
            labels=len(found),
            unscored=len(found) - len(scored),
            unanswered=sum(x.why.startswith(_NO_ANSWER) for x in found if x.sufficient is None),
            unscored_why=_commonest(x.why for x in found if x.sufficient is None),
            figures=measure_agreement(count_confusion(scored)),
            cost_usd=self.cost,
            latency_s=median(seconds) if seconds else None,
            asked=self.caller.made,
        )


def _commonest(reasons: Iterable[str]) -> str:
    """The reason that stands most often, the first of equals; empty without any."""
    found = Counter(reasons).most_common(1)
    return found[0][0] if found else ""
