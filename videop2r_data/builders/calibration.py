"""Judges against human labels: every judge gets the same labels, compared exactly [paper, table 4]."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

import orjson
from pydantic import Field

from videop2r_data.backends import (
    Asked,
    Breaker,
    Journal,
    JudgeRequests,
    Money,
    ask_verdict,
    cost_usd,
    make_backend,
    make_caller,
)
from videop2r_data.builders.workspace import take_lease_now
from videop2r_data.errors import BackendError, BudgetError, SourceError, TransientError
from videop2r_data.schemas import (
    BadLabel,
    ClaimVerdict,
    HumanLabel,
    Judgement,
    JudgesFile,
    Model,
    NamedJudge,
    Question,
    Sufficiency,
    read_labels,
)
from videop2r_data.validators import (
    Agreement,
    ClaimAgreement,
    Estimate,
    count_confusion,
    measure_agreement,
    wilson,
)

# Agreement among the reviewers: no judge can be measured more finely than people agree with each other.


UNNAMED = "(no name)"


class Reviewer(Model):
    """One reviewer."""

    name: str
    labels: int
    """Observations labelled."""
    sufficient: int
    """Labels with this verdict."""
    compared: int
    """Pairs of a label of this reviewer and one of another, of the same observation."""
    agreement: Estimate
    """Share of these pairs that say the same; Wilson interval."""


class ReviewerPair(Model):
    """Two reviewers on the observations that both labelled."""

    first: str
    second: str
    items: int
    figures: Agreement
    """With the first reviewer's labels as the truth: kappa and agreement do not depend on which is first."""


class People(Model):
    """All reviewers."""

    reviewers: tuple[Reviewer, ...] = ()
    items: int = 0
    """Observations that several reviewers labelled."""
    agreed: int = 0
    """Those that all of their reviewers label alike."""
    pairs: tuple[ReviewerPair, ...] = ()


def latest(labels: Sequence[HumanLabel]) -> list[HumanLabel]:
    """What each reviewer says last of one observation, in the order in which reviewers first appear.

    A label of a named reviewer replaces earlier ones by its time. Labels without a name may be of different
    people, and contradicting labels without a time have no last one: all of these stay.
    """
    by_name: dict[str, list[HumanLabel]] = {}
    for label in labels:
        by_name.setdefault(label.reviewer, []).append(label)
    found: list[HumanLabel] = []
    for name, own in by_name.items():
        newest = max(label.time for label in own)
        last = own if not name else [label for label in own if label.time == newest]
        found += last if len({label.sufficient for label in last}) > 1 else last[-1:] if name else last
    return found


def compare_people(said: Sequence[Sequence[HumanLabel]]) -> People:
    """Agreement of every reviewer with the others, and of every two of them.

    Args:
        said: for each observation, one label per reviewer.
    """
    labels: defaultdict[str, list[bool]] = defaultdict(list)
    pairs: defaultdict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    several = [item for item in said if len(item) > 1]
    for item in said:
        for label in item:
            labels[label.reviewer or UNNAMED].append(label.sufficient)
        for a, b in combinations(sorted(item, key=lambda label: label.reviewer), 2):
            pairs[a.reviewer or UNNAMED, b.reviewer or UNNAMED].append((a.sufficient, b.sufficient))
    return People(
        reviewers=tuple(_reviewer(name, given, pairs) for name, given in sorted(labels.items())),
        items=len(several),
        agreed=sum(len({label.sufficient for label in item}) == 1 for item in several),
        pairs=tuple(
            ReviewerPair(first=a, second=b, items=len(both), figures=measure_agreement(count_confusion(both)))
            for (a, b), both in sorted(pairs.items())
        ),
    )


def _reviewer(
    name: str, given: Sequence[bool], pairs: dict[tuple[str, str], list[tuple[bool, bool]]]
) -> Reviewer:
    mine = [pair for names, both in pairs.items() if name in names for pair in both]
    return Reviewer(
        name=name,
        labels=len(given),
        sufficient=sum(given),
        compared=len(mine),
        agreement=wilson(sum(a == b for a, b in mine), len(mine)),
    )


# The labels that judges are measured on, and the report of a calibration.


class JudgedLabel(Model):
    """One verdict beside its label."""

    judge: str
    model: str
    """As the server reports it; empty without an answer."""
    label: HumanLabel
    sufficient: bool | None
    """None: unscored."""
    why: str
    """The judge's words; of an unscored one, the reason."""
    latency_s: float | None
    """Seconds of the call that was answered; None where another run or a build made it."""


class JudgeReport(Model):
    """One judge on all labels."""

    name: str
    model: str
    prompt_sha256: str
    labels: int
    unscored: int
    """No verdict, no answer, or not asked for want of money: in none of the figures."""
    unanswered: int = 0
    """Of these, calls that got no answer: the same command asks them again."""
    unscored_why: str = ""
    """Of the unscored ones, the commonest reason; empty if there are none."""
    figures: Agreement
    cost_usd: float
    """Cost of these answers at the judge's price, also of those from earlier runs; 0 without a price."""
    latency_s: float | None
    """Median seconds of a call; None if this work folder made none."""
    asked: int
    """Calls made in this run."""
    claims: ClaimAgreement | None = Field(default=None, exclude_if=lambda value: value is None)
    """Where people labelled claims of this judge one by one."""


class CalibrationReport(Model):
    """All judges on the same labels."""

    question: Question = Field(default="sufficiency", exclude_if=lambda value: value == "sufficiency")
    """What was asked of the observations; "sufficient" below means Yes to it."""
    labels: int
    sufficient: int
    """Labels with this verdict."""
    repeated: int
    """Repeated labels of one observation: counted once."""
    elsewhere: int = Field(default=0, exclude_if=lambda value: value == 0)
    """Labels of another question than the judges answer."""
    bad: list[BadLabel]
    conflicts: list[str]
    """Samples whose observation people label both ways: left out of the judges' figures."""
    people: People = People()
    """Agreement among reviewers, over observations that several of them labelled."""
    judges: list[JudgeReport]
    complete: bool
    """False: money ran out before every judge had seen every label."""


class Labels(Model):
    """Labels that can be counted, and what is wrong with the others."""

    used: list[HumanLabel]
    repeated: int
    elsewhere: int = 0
    bad: list[BadLabel]
    conflicts: list[str]
    people: People = People()
    claims: list[tuple[HumanLabel, dict[str, ClaimVerdict]]] = Field(default_factory=list)
    """For each observation a label of it, and what all who labelled a claim say of it; claims that people
    label differently are left out."""


def gather_labels(paths: Sequence[Path], question: Question = "sufficiency") -> Labels:
    """Read label files; one label per observation, and none where people contradict each other.

    Labels of another question are no truth for this one: they are counted, and nothing else.

    Of several labels of one reviewer for one observation the latest counts. What people say differently is no
    truth to measure a judge by; it counts in their own agreement.

    Raises:
        SourceError: a file cannot be read, or no label is left.
    """
    seen: dict[str, list[HumanLabel]] = {}
    elsewhere = 0
    bad: list[BadLabel] = []
    for path in paths:
        for found in read_labels(path):
            if isinstance(found, BadLabel):
                bad.append(found)
            elif found.question != question:
                elsewhere += 1
            else:
                texts = [found.problem, *found.options, found.reference, found.observation]
                if question == "faithfulness":
                    # the same words may be true of one clip and false of another
                    texts.append(found.sample_id)
                seen.setdefault("\0".join(texts), []).append(found)
    said = {key: latest(same) for key, same in seen.items()}
    clear = {key: len({label.sufficient for label in labels}) == 1 for key, labels in said.items()}
    used = [labels[0] for key, labels in said.items() if clear[key]]
    if not used:
        why = f"; the first: {bad[0].where}: {bad[0].detail}" if bad else ""
        raise SourceError(
            f"no label on {question} that can be used in {', '.join(map(str, paths))} "
            f"({len(bad)} bad lines, {elsewhere} labels of another question{why})",
            hint="mark samples in the gallery (p2r-data gallery) and export the marks",
        )
    return Labels(
        used=used,
        repeated=sum(len(same) - 1 for key, same in seen.items() if clear[key]),
        elsewhere=elsewhere,
        bad=bad,
        conflicts=[same[0].sample_id for key, same in seen.items() if not clear[key]],
        people=compare_people(list(said.values())),
        claims=[(labels[0], _claims(labels)) for labels in said.values() if any(x.claims for x in labels)],
    )


def _claims(labels: Sequence[HumanLabel]) -> dict[str, ClaimVerdict]:
    """Claim -> what all who labelled it say."""
    found: defaultdict[str, set[ClaimVerdict]] = defaultdict(set)
    for claim in (claim for label in labels for claim in label.claims):
        found[claim.text].add(claim.verdict)
    return {text: verdicts.pop() for text, verdicts in found.items() if len(verdicts) == 1}


# A calibration has a journal like a build: a stopped run goes on where it was, a second run asks nothing, and
# the journal of the build that made the data answers for the judge that was used there.


Tell = Callable[[str, int, int], None]
"""Progress: judge, labels done, labels in all."""

_NO_ANSWER = "no answer: "


async def calibrate(
    judges: JudgesFile, labels: Labels, work: Path, *, base: Path | None = None, tell: Tell = lambda *_: None
) -> tuple[CalibrationReport, list[JudgedLabel]]:
    """Ask every judge about every label.

    Args:
        judges: settings of each judge.
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
        take_lease_now(work, "judge-eval"),
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
    return calibration_report(labels, reports, complete=complete), rows


def _read_latency(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            record = orjson.loads(line)
            found[record["key"]] = float(record["s"])
        except (ValueError, KeyError, TypeError):
            continue  # a torn line: the call counts, its latency is unknown
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
        self.caller = make_caller(
            spec,
            make_backend(spec),
            "judge",
            journal=journal,
            money=money,
            # replies without a verdict are a result; refused or empty calls are a faulty setup
            breaker=Breaker("the judge server"),
            forgive=True,
            took=note,
        )

    async def ask_all(self, labels: Sequence[HumanLabel], tell: Tell) -> list[JudgedLabel]:
        """Every label, in order; many at once."""
        gate = asyncio.Semaphore(self.judge.backend.calls_at_once)
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

    def _read(self, label: HumanLabel, asked: Asked[Judgement], seconds: float | None) -> JudgedLabel:
        price = self.judge.backend.price
        for call in asked.answers:
            if price is not None and call.completion is not None:
                self.cost += cost_usd(call.completion.usage, price, batched=call.completion.batched)
        if asked.answer is None or asked.answer.completion is None:
            return self._unscored(label, f"refused: {asked.answer.refused if asked.answer else 'no backend'}")
        completion, judgement = asked.answer.completion, asked.value
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
        """What the judge found, beside the labels."""
        model = next((x.model for x in found if x.model), self.judge.backend.model)
        return report_of(
            self.judge.name,
            model,
            found,
            prompt_sha256=self.requests.prompt.sha256,
            cost_usd=self.cost,
            asked=self.caller.made,
        )


def report_of(
    name: str,
    model: str,
    found: Sequence[JudgedLabel],
    *,
    prompt_sha256: str = "",
    cost_usd: float = 0.0,
    asked: int = 0,
) -> JudgeReport:
    """One judge on all labels."""
    scored = [(x.label.sufficient, x.sufficient) for x in found if x.sufficient is not None]
    unscored = [x.why for x in found if x.sufficient is None]
    seconds = [x.latency_s for x in found if x.latency_s is not None]
    return JudgeReport(
        name=name,
        model=model,
        prompt_sha256=prompt_sha256,
        labels=len(found),
        unscored=len(unscored),
        unanswered=sum(why.startswith(_NO_ANSWER) for why in unscored),
        # the reason that stands most often, the first of equals
        unscored_why=max(unscored, key=unscored.count, default=""),
        figures=measure_agreement(count_confusion(scored)),
        cost_usd=cost_usd,
        latency_s=median(seconds) if seconds else None,
        asked=asked,
    )


def calibration_report(
    labels: Labels, judges: list[JudgeReport], *, complete: bool = True, question: Question = "sufficiency"
) -> CalibrationReport:
    """What judges said of labels; `complete`: money sufficed for all."""
    return CalibrationReport(
        question=question,
        labels=len(labels.used),
        repeated=labels.repeated,
        elsewhere=labels.elsewhere,
        bad=labels.bad,
        conflicts=labels.conflicts,
        people=labels.people,
        sufficient=sum(label.sufficient for label in labels.used),
        judges=judges,
        complete=complete,
    )
