"""What every judge takes and gives: observations in, verdicts with reasons out; the demo world's judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from videop2r_data.demo import observation_is_sufficient
from videop2r_data.errors import ConfigError
from videop2r_data.validators import check_observation, holds_verdict_tag

if TYPE_CHECKING:
    from videop2r_data.demo import SceneSample


class Reason(StrEnum):
    """Reason of a verdict, or of its absence."""

    JUDGED = "judged"
    """The judge said Yes or No."""
    # Not sufficient, decided by rule without asking the judge.
    NO_OBSERVATION = "no_observation"
    """The completion has no observation, or a blank one."""
    COPIED_VERDICT = "copied_verdict"
    """The observation holds a judgement tag, which could pass for the judge's own verdict."""
    LEAKED_ANSWER = "leaked_answer"
    """The observation states the answer as an answer: a judge would find it sufficient whatever else it
    says."""
    HOLLOW_OBSERVATION = "hollow_observation"
    """The observation says nothing, or the question once more."""
    # Unscored.
    LATE = "late"
    """No verdict within the deadline."""
    FAILED = "failed"
    """No answer after all tries."""
    REFUSED = "refused"
    """The server refused this very request, or its model declined to answer."""
    NO_VERDICT = "no_verdict"
    """The reply holds none of the verdicts on offer."""
    OVER_BUDGET = "over_budget"
    """`max_cost` is reached, and `on_max_cost: unscored`."""


UNASKED = (
    Reason.NO_OBSERVATION,
    Reason.COPIED_VERDICT,
    Reason.LEAKED_ANSWER,
    Reason.HOLLOW_OBSERVATION,
)
"""Reasons decided by rule: not sufficient, and no judge is asked."""


class Judgeable(Protocol):
    """A question as a judge needs it; `data.examples.Example` is one."""

    @property
    def sample_id(self) -> str:
        """For error messages."""

    @property
    def problem(self) -> str:
        """The question."""

    @property
    def options(self) -> tuple[str, ...]:
        """As in the pool; empty unless multiple choice."""

    @property
    def reference(self) -> str:
        """The correct answer, without tags."""

    @property
    def scene(self) -> SceneSample | None:
        """The scene behind a question of the demo world, else None."""


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One observation to judge.

    Attributes:
        example: the question that it is about.
        observation: content of the observation segment without its tags; None if the completion has none.
    """

    example: Judgeable
    observation: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one observation.

    Attributes:
        sufficient: the verdict; None: unscored, to be left out of rewards and means.
        reason: a `Reason`.
        cached: True if no call was made for it: the journal had it, or an equal item of the ticket was asked.
        detail: the judge's explanation, or the error; for people.
    """

    sufficient: bool | None
    reason: Reason
    cached: bool = False
    detail: str = ""


@dataclass
class JudgeStats:
    """Counts over the items of one or more tickets.

    `items = asked + cached + free`, and of these `late + failed` are unscored.
    """

    items: int = 0
    asked: int = 0
    """Calls made: distinct observations that are not in the journal."""
    cached: int = 0
    free: int = 0
    """Decided by rule (`UNASKED`)."""
    late: int = 0
    failed: int = 0
    """Unscored for any reason but the deadline."""
    sufficient: int = 0
    wait_s: float = 0.0
    """Seconds that the caller waited for verdicts."""
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, judged: Sequence[Judged], wait_s: float = 0.0) -> None:
        """Count the items of a ticket."""
        for one in judged:
            free = one.reason in UNASKED
            self.items += 1
            self.free += free
            self.cached += one.cached
            self.asked += not free and not one.cached
            self.late += one.reason is Reason.LATE
            self.failed += one.sufficient is None and one.reason is not Reason.LATE
            self.sufficient += one.sufficient is True
            self.reasons[one.reason.value] += 1
        self.wait_s += wait_s

    def metrics(self) -> dict[str, float]:
        """The keys of `metrics.jsonl`: counts of items, and seconds."""
        return {
            "judge/asked": self.asked,
            "judge/cached": self.cached,
            "judge/late": self.late,
            "judge/failed": self.failed,
            "judge/wait_s": self.wait_s,
        }


class Ticket(Protocol):
    """Submitted observations."""

    def wait(self) -> list[Judged]:
        """The verdicts in the order of the items; waits until the deadline at most.

        Raises:
            BackendError, ConfigError, JournalError: no item can be judged: the run must stop.
        """
        ...


class Judge(Protocol):
    """Judges observations in the background."""

    def start(self) -> None:
        """Open what is needed; called once, before the first `submit`."""

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Submit the observations of a step; returns at once."""
        ...

    def take_stats(self) -> JudgeStats:
        """Counts of all tickets waited for since the last call."""
        ...

    def close(self) -> None:
        """Free what `start` took; safe to call twice."""


def decided(item: JudgeItem) -> Judged | None:
    """The verdict that the rules of the build's verify step give, or None: then the judge must be asked."""
    observation, example = item.observation, item.example
    if observation is None or not observation.strip():
        return Judged(False, Reason.NO_OBSERVATION)
    if holds_verdict_tag(observation):
        return Judged(False, Reason.COPIED_VERDICT)
    leak = check_observation(
        observation, problem=example.problem, options=example.options, answer=example.reference
    )
    if leak.reason is not None:
        return Judged(False, Reason(leak.reason.value), detail=leak.detail)
    return None


class DemoTicket:
    """Verdicts made at `submit`."""

    def __init__(self, judge: DemoJudge, judged: list[Judged]) -> None:
        self._judge = judge
        self._judged = judged
        self._counted = False

    def wait(self) -> list[Judged]:
        """The verdicts, in the order of the items."""
        if not self._counted:
            self._counted = True
            self._judge.note(self._judged)
        return list(self._judged)


class DemoJudge:
    """Decides by the scene truth: is every claim true, and do the claims state what the answer needs?

    It judges in `submit`: an item takes a tenth of a millisecond.
    """

    def __init__(self) -> None:
        self._stats = JudgeStats()

    def start(self) -> None:
        """Nothing to open."""

    def submit(self, items: Sequence[JudgeItem]) -> DemoTicket:
        """Judge now.

        Raises:
            ConfigError: a question has no scene: the data are not those of the demo world.
        """
        seen: dict[tuple[int, str, str], Judged] = {}
        return DemoTicket(self, [_judge(item, seen) for item in items])

    def note(self, judged: Sequence[Judged]) -> None:
        """Count the items of a ticket that was waited for."""
        self._stats.note(judged)

    def take_stats(self) -> JudgeStats:
        """Counts since the last call."""
        stats, self._stats = self._stats, JudgeStats()
        return stats

    def close(self) -> None:
        """Nothing to free."""


def _judge(item: JudgeItem, seen: dict[tuple[int, str, str], Judged]) -> Judged:
    example = item.example
    truth = example.scene
    if truth is None:
        raise ConfigError(
            "this question has no scene, and the demo judge knows nothing else",
            where=f"judging.kind, at {example.sample_id}",
            hint="train on the demo world (`data.source: demo`, or a folder with scenes.jsonl), or name a "
            "model in judging.backend",
        )
    free = decided(item)
    if free is not None or item.observation is None:
        return free or Judged(False, Reason.NO_OBSERVATION)
    key = (truth.scene.index, truth.question.problem, item.observation)
    if key in seen:
        known = seen[key]
        return Judged(known.sufficient, known.reason, True, known.detail)
    sufficient = observation_is_sufficient(truth.scene, truth.question, item.observation)
    seen[key] = Judged(sufficient, Reason.JUDGED, False, "decided by the scene truth")
    return seen[key]
