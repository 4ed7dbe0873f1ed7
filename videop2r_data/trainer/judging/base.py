"""What every judge takes and gives: observations in, verdicts with reasons out; the demo world's judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from videop2r_data.demo import observation_is_sufficient
from videop2r_data.errors import ConfigError
from videop2r_data.validators import check_observation, holds_verdict_tag

if TYPE_CHECKING:
    from videop2r_data.trainer.data.examples import Example


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


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One observation to judge.

    Attributes:
        example: the question that it is about.
        observation: content of the observation segment without its tags; None if the completion has none.
    """

    example: Example
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


def judge_counts(judged: Iterable[Judged | None]) -> dict[str, int]:
    """How verdicts came about, for the log; None, where no judge is asked, is not counted.

    Returns:
        `asked`: calls made, one per distinct observation that is not in the journal; `cached`; `late`;
        `failed`: unscored for any reason but the deadline.
    """
    known = [one for one in judged if one is not None]
    return {
        "asked": sum(one.reason not in UNASKED and not one.cached for one in known),
        "cached": sum(one.cached for one in known),
        "late": sum(one.reason is Reason.LATE for one in known),
        "failed": sum(one.sufficient is None and one.reason is not Reason.LATE for one in known),
    }


Ticket = Future[list[Judged]]
"""Submitted observations. `result()` gives their verdicts, in order, and waits until the deadline at most; it
raises BackendError, ConfigError or JournalError if no item can be judged: then the run must stop."""


class Judge(ABC):
    """Judges observations in the background; open within a `with` block, or between `start` and `close`."""

    def start(self) -> None:  # noqa: B027 - a judge in this process opens nothing
        """Open what is needed; called once, before the first `submit`."""

    @abstractmethod
    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Submit the observations of a step; returns at once."""

    def close(self) -> None:  # noqa: B027 - and frees nothing
        """Free what `start` took; safe to call twice."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


class DemoJudge(Judge):
    """Decides by the scene truth: is every claim true, and do the claims state what the answer needs?

    It judges in `submit`: an item takes a tenth of a millisecond.
    """

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Judge now.

        Raises:
            ConfigError: a question has no scene: the data are not those of the demo world.
        """
        seen: dict[tuple[int, str, str], Judged] = {}
        ticket = Ticket()
        ticket.set_result([_judge(item, seen) for item in items])
        return ticket


def _judge(item: JudgeItem, seen: dict[tuple[int, str, str], Judged]) -> Judged:
    truth = item.example.scene
    if truth is None:
        raise ConfigError(
            "this question has no scene, and the demo judge knows nothing else",
            where=f"judging.kind, at {item.example.sample_id}",
            hint="train on the demo world (`data.source: demo`, or a folder with scenes.jsonl), or name a "
            "model in judging.backend",
        )
    if (ruled := decided(item)) is not None:
        return ruled
    assert item.observation is not None  # `decided` refuses a completion without one
    key = (truth.scene.index, truth.question.problem, item.observation)
    if key in seen:
        return replace(seen[key], cached=True)
    sufficient = observation_is_sufficient(truth.scene, truth.question, item.observation)
    seen[key] = Judged(sufficient, Reason.JUDGED, detail="decided by the scene truth")
    return seen[key]
