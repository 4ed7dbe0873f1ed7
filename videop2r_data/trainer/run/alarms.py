"""Alarms of RL: whether observations still depend on the clip, and answers on more than the usual one.

At the first step and every `alarms.every` steps a few questions of the batch are shown an empty clip (black
frames), and the clip of another of these questions, and the policy writes observations about them. The judge
of the run says whether they suffice for the right answer; in a run without a judge the policy itself answers
from them, without the clip. A policy that reads gets few of them through; one that invents gets as many as on
its own clips. A judge that sees may be asked about some observations of own clips, for the record.

Nothing of it reaches the training: draws have seeds of their own, the judge is asked after the verdicts of
the step are in, and no gradient sees these completions. When an alarm is up is said in `validators.alarms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from videop2r_data.schemas import Frames
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.order import derive, rollout_seeds
from videop2r_data.trainer.data.usual import UsualAnswers
from videop2r_data.trainer.judging.base import Judge, Judged, JudgeItem, Ticket
from videop2r_data.trainer.process.rewards import Graded
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally
from videop2r_data.trainer.run.runlog import METRICS, read_lines
from videop2r_data.trainer.settings.objectives import trace_streams
from videop2r_data.trainer.settings.rl import Reward
from videop2r_data.validators import ALARMS, RAISED, alarms_up

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Fed

EMPTY, SHUFFLED, OWN, SEEN = "alarm/empty", "alarm/shuffled", "alarm/own", "alarm/seen"


class Seen(NamedTuple):
    """One question in front of one clip.

    Attributes:
        at: its index among the prompts of this process.
        place: in the batch of all processes.
        frames: the clip.
    """

    at: int
    place: int
    frames: Frames


Shown = tuple[list[Seen], list[Seen]]
"""The questions of a reading in front of their own clips, and of those of others."""


class Said(NamedTuple):
    """An observation; its place and number among the completions of its question name the draws from it."""

    item: JudgeItem
    place: int
    number: int


@dataclass
class Reading:
    """One reading of this process.

    Attributes:
        chosen: the questions, with their own clips.
        items: metric -> observations, to be judged.
        ticket: what the judge was given: all items, in order.
        seen: observations of own clips, for a judge that sees, and its ticket.
        scores: metric -> how well the policy answers from its observations alone.
    """

    chosen: list[Seen]
    items: dict[str, list[JudgeItem]] = field(default_factory=dict)
    ticket: Ticket | None = None
    seen: tuple[list[JudgeItem], Ticket | None] = field(default_factory=lambda: ([], None))
    scores: dict[str, list[float | None]] = field(default_factory=dict)


class Alarms:
    """Takes the readings of a run and says which alarms are up.

    Args:
        roller: draws and grades; every process must make the same calls.
        seer: a judge of faithfulness, started; None: nobody looks.
    """

    def __init__(self, roller: Roller, seer: Judge | None = None) -> None:
        self.seer, self.asked = seer, roller.session.recipe.judging.asked
        self.roller = roller
        session = roller.session
        self.session, self.spec = session, session.recipe.alarms
        self.usual = UsualAnswers(session.examples)
        self._past = (
            [_short(row) for row in read_lines(session.recipe.folder / METRICS)] if session.log.main else []
        )

    def shown(self, fed: Fed) -> Shown | None:
        """What a reading shows; None at a step without one. All processes must call it."""
        recipe = self.session.recipe
        sees = any(stream.sees for stream in trace_streams(self.roller.grammar))
        if not self._due(fed.step) or not sees or recipe.data.style == "agnostic":
            return None
        places = _spread(recipe.batch.size, self.spec.prompts)
        chosen = [
            Seen(at, place, frames)
            for at, frames in enumerate(fed.prompts.frames)
            if (place := self.session.place(fed.places[at])) in places and frames is not None
        ]
        return chosen, swapped(chosen)

    def draw(self, fed: Fed, rollouts: Rollouts, shown: Shown | None) -> Reading | None:
        """Draw the completions of a reading; None without one."""
        if shown is None:
            return None
        (chosen, others), size = shown, self.session.recipe.rl.group_size
        black = [one._replace(frames=_black(one.frames)) for one in chosen]
        said = {EMPTY: self._drawn(fed, EMPTY, black), SHUFFLED: self._drawn(fed, SHUFFLED, others)}
        reading = Reading(chosen)
        few = [(one, g) for one in chosen for g in range(min(size, self.spec.rollouts))]
        own = _said(fed, few, [rollouts.graded[one.at * size + g] for one, g in few])
        if self.seer is not None:
            clips = {one.place: one.frames for one in chosen}
            reading.seen = [replace(one.item, frames=clips[one.place]) for one in own], None
        if self.judge is not None:
            for metric, found in said.items():
                reading.items[metric] = [one.item for one in found]
            return reading
        for metric, found in (said | {OWN: own}).items():
            reading.scores[metric] = self._answered(fed.step, metric, found)
        return reading

    def submit(self, reading: Reading | None) -> None:
        """Hand the observations to the judges; they have given the verdicts of the step by then."""
        if reading is not None and self.judge is not None:
            items = [item for found in reading.items.values() for item in found]
            reading.ticket = self.judge.submit(items)
        if reading is not None and self.seer is not None:
            reading.seen = reading.seen[0], self.seer.submit(reading.seen[0])

    def settle(self, fed: Fed, rollouts: Rollouts, reading: Reading | None, tally: Tally) -> None:
        """Wait for the verdicts, and add everything to the metrics of the step."""
        self._count_usual(fed.prompts.examples, rollouts, tally)
        if reading is None:
            return
        found = dict(reading.scores)
        if reading.ticket is not None:
            verdicts = iter(reading.ticket.result())
            found |= {
                metric: _scores(islice(verdicts, len(items)), self.asked)
                for metric, items in reading.items.items()
            }
            found[OWN] = self._paid(rollouts, reading, "sufficiency")
        if reading.seen[1] is not None:
            found[SEEN] = _scores(reading.seen[1].result(), ("faithfulness",))
        elif "faithfulness" in self.asked:
            found[SEEN] = self._paid(rollouts, reading, "faithfulness")
        for metric, scores in found.items():
            known = [score for score in scores if score is not None]
            tally.add(metric, sum(known), len(known))

    def _paid(self, rollouts: Rollouts, reading: Reading, name: Reward) -> list[float | None]:
        """What was decided of the rollouts of a reading's questions anyway, paid or recorded."""
        size = self.session.recipe.rl.group_size
        rows = (one.at * size + g for one in reading.chosen for g in range(size))
        return _scores((rollouts.judged[row] for row in rows), self.asked, name)

    @property
    def judge(self) -> Judge | None:
        """Of sufficiency."""
        return self.roller.judge if "sufficiency" in self.asked else None

    def told(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """The line of metrics of step `step` (from 1); after a reading with the alarms that are up.

        An alarm that is new is told to the watchers.
        """
        now = _short({"step": step, **row})
        if not self._due(step - 1):
            self._past.append(now)
            return row
        up = alarms_up([*self._past, now])
        before: dict[str, str] = next(
            (old.get(ALARMS, {}) for old in reversed(self._past) if RAISED in old), {}
        )
        for name, words in up.items():
            if name not in before:
                self.session.log.note(f"alarm at step {step:,}, {name}: {words}")
        found = {RAISED: len(up), **({ALARMS: up} if up else {})}
        self._past.append(now | found)
        return row | found

    def _due(self, step: int) -> bool:
        every = self.spec.every
        return bool(every) and (step == 0 or (step + 1) % every == 0)

    def _drawn(self, fed: Fed, kind: str, shown: Sequence[Seen]) -> list[Said]:
        """What the policy says it sees on these clips."""
        if not shown:
            return []
        recipe, size = self.session.recipe, self.spec.rollouts
        examples = [fed.prompts.examples[one.at] for one in shown]
        prompts = self.session.collator(examples, [one.frames for one in shown])
        shown = [shown[at] for at in prompts.kept]  # another clip may be too long
        seeds = rollout_seeds(recipe.seed, fed.step, [one.place for one in shown], size, kind)
        _, _, graded = self.roller.completed(prompts, size, seeds)
        return _said(fed, [(one, g) for one in shown for g in range(size)], graded)

    def _answered(self, step: int, kind: str, said: Sequence[Said]) -> list[float | None]:
        """How well the policy answers from each observation, which stands in the prompt, and not the clip.

        One that the rules of the judge refuse, because it tells the answer or nothing, earns 0.
        """
        name = (self.session.recipe.seed, "alone", kind, step)
        seeds = [derive(*name, one.place, one.number) for one in said]
        return [one.score for one in self.roller.answered([one.item for one in said], seeds)]

    def _count_usual(self, examples: Sequence[Example], rollouts: Rollouts, tally: Tally) -> None:
        """Accuracy of each question's group, apart by whether its usual answer is the right one."""
        size = self.session.recipe.rl.group_size
        for at, example in enumerate(examples):
            known = [
                x for one in rollouts.graded[at * size : (at + 1) * size] if (x := one.acc_r) is not None
            ]
            holds = self.usual.holds(example)
            if known and holds is not None:
                tally.add(f"alarm/usual_{'right' if holds else 'wrong'}", sum(known) / len(known))


def swapped(mine: Sequence[Seen], ranks: Ranks | None = None) -> list[Seen]:
    """Each question with the clip of the next one that has the same kind of media and another clip.

    The questions of all processes count, in the order of their places, so that the number of processes
    changes nothing. A question for which there is no other clip is left out.
    """
    ranks = ranks or Ranks.here()
    every = sorted(
        ((s.place, s.frames) for part in ranks.gather(list(mine)) for s in part), key=lambda s: s[0]
    )
    found = []
    for one in mine:
        own = one.frames.record
        after = [s for s in every if s[0] > one.place] + [s for s in every if s[0] < one.place]
        for _, frames in after:
            other = frames.record
            if other.data_type == own.data_type and other.frames_sha256 != own.frames_sha256:
                found.append(one._replace(frames=frames))
                break
    return found


def _spread(size: int, wanted: int) -> frozenset[int]:
    """Places in a batch of all processes, evenly spread."""
    count = min(size, wanted)
    return frozenset(number * size // count for number in range(count))


def _black(frames: Frames) -> Frames:
    assert frames.array is not None
    return replace(frames, array=np.zeros_like(frames.array))


def _said(fed: Fed, shown: Iterable[tuple[Seen, int]], graded: Iterable[Graded]) -> list[Said]:
    """The observations of completions; those without one are left out."""
    return [
        Said(JudgeItem(fed.prompts.examples[one.at], found.observation), one.place, number)
        for (one, number), found in zip(shown, graded, strict=True)
        if found.observation is not None
    ]


def _scores(
    judged: Iterable[Judged | None], asked: Sequence[Reward], name: Reward = "sufficiency"
) -> list[float | None]:
    """Of one of the things that were `asked`; of a judge of one thing, of that."""
    name = name if name in asked else asked[0]
    parts = [one.each(asked) for one in judged if one is not None]
    return [part[name].score for part in parts if name in part]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What alarms need of a line of metrics."""
    return {key: value for key, value in row.items() if key.startswith("alarm") or key == "step"}
