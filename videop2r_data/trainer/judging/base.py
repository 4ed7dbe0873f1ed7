"""What every judge takes and gives: observations in, verdicts with reasons out; the demo world's judge.

What is decided of an observation, each as a score from 0 to 1:

- `sufficiency`: whether the answer follows from it; read by a model that sees the text alone.
- `faithfulness`: the share of its claims that the frames support; all claims are asked.
- `self`: how well the model in training answers the question from it, without the clip (Vision-SR1's way).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING, Self

from videop2r_data.demo import observation_is_sufficient, see_statement, split_claims
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Claim, DataType, Faithfulness, Frames
from videop2r_data.trainer.settings.rl import JudgingSpec, Reward
from videop2r_data.validators import check_observation, holds_verdict_tag

if TYPE_CHECKING:
    from videop2r_data.trainer.data.examples import Example


class Reason(StrEnum):
    """Reason of a verdict, or of its absence."""

    JUDGED = "judged"
    """The judge said Yes or No, or gave every claim a verdict; an answer was scored."""
    # Not sufficient, decided by rule without asking the judge.
    NO_OBSERVATION = "no_observation"
    """The completion has no observation, or a blank one."""
    COPIED_VERDICT = "copied_verdict"
    """The observation holds a judgement tag, which could pass for the judge's own verdict."""
    LEAKED_ANSWER = "leaked_answer"
    """The observation states the answer as an answer: sufficient, whatever else it says."""
    HOLLOW_OBSERVATION = "hollow_observation"
    """The observation says nothing, or the question once more."""
    # Unscored.
    NO_MEDIA = "no_media"
    """There is nothing to see, and the claims are not held against anything: left out, not failed."""
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


UNASKED = (Reason.NO_OBSERVATION, Reason.COPIED_VERDICT, Reason.LEAKED_ANSWER, Reason.HOLLOW_OBSERVATION)
"""Reasons decided by rule: the score is 0, and no judge is asked."""


@dataclass(frozen=True, slots=True)
class JudgeItem:
    """One observation to judge, and the question that it is about."""

    example: Example
    observation: str | None
    """Content of the observation segment without its tags; None if the completion has none."""
    frames: Frames | None = None
    """What the policy saw, as an array, for a judge that sees; None: nothing."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one observation."""

    score: float | None
    """From 0 to 1, one of the two for sufficiency; None: unscored, to be left out of rewards and means."""
    reason: Reason
    cached: bool = False
    """No call was made for it: the journal had it, or an equal item of the ticket was asked."""
    detail: str = ""
    """The judge's explanation, the claims that are false, or the error; for people."""
    parts: Mapping[Reward, Judged] = field(default_factory=dict)
    """Where several things are decided, each on its own, in the order in which they were asked."""

    @property
    def sufficient(self) -> bool | None:
        """The verdict of a judge that was asked about sufficiency, alone or among others; None: none."""
        one = self.parts.get("sufficiency") if self.parts else self
        return None if one is None or one.score is None else one.score > 0

    def each(self, asked: Sequence[Reward]) -> Mapping[Reward, Judged]:
        """`parts`; of one decision, the verdict itself under the name of what was `asked`."""
        return self.parts or dict(zip(asked[:1], (self,), strict=False))


def joined(parts: Mapping[Reward, Judged], spec: JudgingSpec) -> Judged:
    """One verdict of several: with the score that `spec.reward` and `spec.together` pay, and all parts.

    What needs a clip is left out where there is none. A product with a 0 in it is 0, whatever the others
    would have been; else one unscored part leaves the whole unscored."""
    paid = [parts[name] for name in spec.reward if name in parts]
    held = [one for one in paid if one.reason is not Reason.NO_MEDIA]
    known = [one.score for one in held if one.score is not None]
    score: float | None = None
    if spec.together == "product" and 0 in known:
        score = 0.0
    elif known and len(known) == len(held):
        score = prod(known) if spec.together == "product" else sum(known) / len(known)
    decisive = [one for one in held if one.score == score] or held or paid or list(parts.values())
    cached = all(one.cached for one in parts.values())
    return Judged(score, decisive[0].reason, cached, decisive[0].detail, dict(parts))


def closed(found: Judged, spec: JudgingSpec) -> bool:
    """Whether the judge that sees is not worth its price: the product that is paid has a 0, or an unknown, in
    it."""
    both = {"sufficiency", "faithfulness"}.issubset(spec.reward)
    return both and spec.together == "product" and not found.score


def judge_counts(judged: Iterable[Judged | None]) -> dict[str, int]:
    """How verdicts came about, for the log; None, where no judge is asked, is not counted.

    Returns:
        `asked`: asked anew, one per distinct observation that is not in the journal, and judge; `cached`;
        `late`; `failed`: unscored for any reason but the deadline, and not for want of a clip.
    """
    whole = [one for one in judged if one is not None]
    each = [part for one in whole for name, part in one.each(("sufficiency",)).items() if name != "self"]
    known = [one for one in each if one.reason is not Reason.NO_MEDIA]
    return {
        "asked": sum(one.reason not in UNASKED and not one.cached for one in known),
        "cached": sum(one.cached for one in known),
        "late": sum(one.reason is Reason.LATE for one in known),
        "failed": sum(one.score is None and one.reason is not Reason.LATE for one in known),
    }


Ticket = Future[list[Judged]]
"""Submitted observations. `result()` gives their verdicts, in order, and waits until the deadline at most; it
raises BackendError, ConfigError or JournalError if no item can be judged: then the run must stop."""


class Judge(ABC):
    """Judges observations in the background; open within a `with` block, or between `start` and `close`.

    Args:
        spec: how several decisions become one score.
        asks: what to decide of each observation, in this order.
    """

    def __init__(self, spec: JudgingSpec, asks: Sequence[Reward]) -> None:
        self.spec, self.asks = spec, tuple(asks)

    def start(self) -> None:  # noqa: B027 - a judge in this process opens nothing
        """Open what is needed; called once, before the first `submit`."""

    @abstractmethod
    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Submit observations; returns at once."""

    @abstractmethod
    def key(self, item: JudgeItem) -> Hashable:
        """The same for items that get the same verdict."""

    def close(self) -> None:  # noqa: B027 - and frees nothing
        """Free what `start` took; safe to call twice."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def whole(self, parts: Mapping[Reward, Judged]) -> Judged:
        """What was decided of one item, as one verdict."""
        return parts[self.asks[0]] if len(self.asks) == 1 else joined(parts, self.spec)

    def ruled(self, items: Sequence[JudgeItem]) -> dict[int, Judged]:
        """Row -> what `decided` says of it, as a verdict on everything that is asked."""
        found = enumerate(map(decided, items))
        return {row: self.whole(dict.fromkeys(self.asks, one)) for row, one in found if one is not None}

    def alike(self, items: Mapping[int, JudgeItem]) -> list[list[int]]:
        """Rows of equal items, which are asked once."""
        rows: dict[Hashable, list[int]] = {}
        for row, item in items.items():
            rows.setdefault(self.key(item), []).append(row)
        return list(rows.values())


class Verdicts:
    """Verdicts on observations that are submitted one by one, while others are still drawn.

    Args:
        judge: started.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._asked: dict[int, tuple[JudgeItem, Ticket]] = {}

    def add(self, row: int, item: JudgeItem) -> None:
        """Submit the observation of a row; returns at once."""
        self._asked[row] = item, self._judge.submit([item])

    def result(self) -> dict[int, Judged]:
        """Row -> verdict, rising; of equal observations all but the first are `cached`.

        Waits; what stops the run is raised as soon as any of them is known to. Errors as of a `Ticket`.
        """
        done, _ = wait((ticket for _, ticket in self._asked.values()), return_when=FIRST_EXCEPTION)
        for ticket in done:
            ticket.result()
        found = {row: ticket.result()[0] for row, (_, ticket) in self._asked.items()}
        asked = {row: item for row, (item, _) in self._asked.items() if found[row].reason not in UNASKED}
        for rows in self._judge.alike(asked):
            # which of the equal ones was asked first is chance: the one in front takes its verdict
            first = found[rows[0]]
            found |= {row: again(found[row]) for row in rows} | {min(rows): first}
        return dict(sorted(found.items()))


def decided(item: JudgeItem) -> Judged | None:
    """The verdict that the rules of the build's verify step give, or None: then the judge must be asked."""
    observation, example = item.observation, item.example
    if observation is None or not observation.strip():
        return Judged(0.0, Reason.NO_OBSERVATION)
    if holds_verdict_tag(observation):
        return Judged(0.0, Reason.COPIED_VERDICT)
    leak = check_observation(
        observation, problem=example.problem, options=example.options, answer=example.reference
    )
    return None if leak.reason is None else Judged(0.0, Reason(leak.reason.value), detail=leak.detail)


def again(judged: Judged) -> Judged:
    """The verdict on an equal item."""
    parts = {name: replace(part, cached=True) for name, part in judged.parts.items()}
    return replace(judged, cached=True, parts=parts)


class DemoJudge(Judge):
    """Decides by the scene truth: is every claim true, and do the claims state what the answer needs?

    It judges in `submit`: an item takes a tenth of a millisecond. `faithfulness` is the share of claims that
    the scene supports.
    """

    def __init__(self, spec: JudgingSpec | None = None, asks: Sequence[Reward] = ("sufficiency",)) -> None:
        super().__init__(spec or JudgingSpec(), asks)

    def submit(self, items: Sequence[JudgeItem]) -> Ticket:
        """Judge now.

        Raises:
            ConfigError: a question has no scene: the data are not those of the demo world.
        """
        for item in items:
            if item.example.scene is None:
                raise ConfigError(
                    "this question has no scene, and the demo judge knows nothing else",
                    where=f"judging.kind, at {item.example.sample_id}",
                    hint="train on the demo world (`data.source: demo`, or a folder with scenes.jsonl), or "
                    "name a model in judging.backend",
                )
        found = self.ruled(items)
        for rows in self.alike({row: item for row, item in enumerate(items) if row not in found}):
            one = self._judge(items[rows[0]])
            found |= dict.fromkeys(rows, again(one)) | {rows[0]: one}
        ticket = Ticket()
        ticket.set_result([found[row] for row in range(len(items))])
        return ticket

    def key(self, item: JudgeItem) -> Hashable:
        """Scene, question and observation."""
        truth = item.example.scene
        return truth and (truth.scene.index, truth.question.problem, item.observation)

    def _judge(self, item: JudgeItem) -> Judged:
        truth, observation = item.example.scene, item.observation or ""
        assert truth is not None
        parts: dict[Reward, Judged] = {}
        for name in self.asks:
            if name != "faithfulness":
                found = observation_is_sufficient(truth.scene, truth.question, observation)
                parts[name] = Judged(float(found), Reason.JUDGED, detail="decided by the scene truth")
            elif item.example.data_type is DataType.TEXT:
                parts[name] = Judged(None, Reason.NO_MEDIA)
            else:
                claims = split_claims(observation)
                verdicts = (Claim(text=claim, verdict=see_statement(truth.scene, claim)) for claim in claims)
                parts[name] = faithful(Faithfulness(claims=tuple(verdicts)))
            if closed(parts[name], self.spec):
                break
        return self.whole(parts)


def faithful(found: Faithfulness, *, cached: bool = False) -> Judged:
    """The verdicts on the claims of an observation as one: supported / all, and the false ones in words."""
    if found.score is None:
        missing = sum(claim.verdict is None for claim in found.claims)
        detail = f"{missing} of {len(found.claims)} claims without a verdict"
        return Judged(None, Reason.NO_VERDICT, cached, detail)
    wrong = "; ".join(claim.text for claim in found.contradicted)
    told = f"{found.score:.0%} of {len(found.claims)} claims are supported" if found.claims else "no claim"
    return Judged(found.score, Reason.JUDGED, cached, f"{told}; contradicted: {wrong}" if wrong else told)
