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
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.data.usual import UsualAnswers
from videop2r_data.trainer.judging.base import Judge, Judged, JudgeItem, Ticket
from videop2r_data.trainer.look.curves import METRICS
from videop2r_data.trainer.process.rewards import Graded
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally
from videop2r_data.trainer.run.runlog import read_lines
from videop2r_data.trainer.settings.objectives import trace_streams
from videop2r_data.trainer.settings.rl import Reward
from videop2r_data.validators import ALARMS, RAISED, alarms_up

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Fed

EMPTY, SHUFFLED, OWN, SEEN = "alarm/empty", "alarm/shuffled", "alarm/own", "alarm/seen"
Scores = list[float | None]


class Seen(NamedTuple):
    """A question in front of a clip: its index in this process, its place in the batch of all, the clip."""

    at: int
    place: int
    frames: Frames


# the questions of a reading in front of their own clips, and of those of others
Shown = tuple[list[Seen], list[Seen]]


class Said(NamedTuple):
    """An observation; its place and number among the completions of its question name the draws from it."""

    item: JudgeItem
    place: int
    number: int


@dataclass
class Reading:
    """One reading of this process: the questions with their own clips; metric -> observations to be judged;
    metric -> how well the policy answers from them alone; metrics that are judged together -> the ticket."""

    chosen: list[Seen]
    items: dict[str, list[JudgeItem]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    tickets: dict[tuple[str, ...], Ticket] = field(default_factory=dict)


class Alarms:
    """Takes the readings of a run, in all processes alike, and says which alarms are up. Without a `seer`, a
    judge of faithfulness that has been started, nobody looks."""

    def __init__(self, roller: Roller, seer: Judge | None = None) -> None:
        self.roller, self.seer, self.session = roller, seer, roller.session
        self.recipe, self.spec = self.session.recipe, self.session.recipe.alarms
        self.asked = self.recipe.judging.asked
        # of sufficiency
        self.judge = roller.judge if "sufficiency" in self.asked else None
        self.usual = UsualAnswers(self.session.examples)
        rows = read_lines(self.recipe.folder / METRICS) if self.session.log.main else []
        self._past = [_short(row) for row in rows]

    def shown(self, fed: Fed) -> Shown | None:
        """What a reading shows; None at a step without one. All processes must call it."""
        sees = any(stream.sees for stream in trace_streams(self.roller.grammar))
        if not self._due(fed.step) or not sees or self.recipe.data.style == "agnostic":
            return None
        size = self.recipe.batch.size
        count = min(size, self.spec.prompts)
        # evenly spread over the batch of all processes
        wanted = {number * size // count for number in range(count)}
        chosen = [
            Seen(at, place, frames)
            for at, (place, frames) in enumerate(zip(fed.places, fed.prompts.frames, strict=True))
            if place in wanted and frames is not None
        ]
        return chosen, swapped(chosen)

    def draw(self, fed: Fed, rollouts: Rollouts, shown: Shown | None) -> Reading | None:
        """Draw the completions of a reading; None without one."""
        if shown is None:
            return None
        (chosen, others), size = shown, self.recipe.rl.group_size
        black = [one._replace(frames=_black(one.frames)) for one in chosen]
        said = {EMPTY: self._drawn(fed, EMPTY, black), SHUFFLED: self._drawn(fed, SHUFFLED, others)}
        few = [(one, g) for one in chosen for g in range(min(size, self.spec.rollouts))]
        own = _said(fed, few, [rollouts.graded[one.at * size + g] for one, g in few])
        reading = Reading(chosen)
        if self.seer is not None:
            clips = {one.place: one.frames for one in chosen}
            reading.items[SEEN] = [replace(one.item, frames=clips[one.place]) for one in own]
        if self.judge is not None:
            reading.items |= {metric: [one.item for one in found] for metric, found in said.items()}
            return reading
        for metric, found in (said | {OWN: own}).items():
            # from each observation, which stands in the prompt, and not the clip
            name = (self.recipe.seed, "alone", metric, fed.step)
            seeds = [derive(*name, one.place, one.number) for one in found]
            answers = self.roller.answered([one.item for one in found], seeds)
            reading.scores[metric] = [one.score for one in answers]
        return reading

    def submit(self, reading: Reading | None) -> None:
        """Hand the observations to the judges; they have given the verdicts of the step by then."""
        for judge, metrics in ((self.judge, (EMPTY, SHUFFLED)), (self.seer, (SEEN,))):
            if reading is not None and judge is not None:
                items = [item for metric in metrics for item in reading.items[metric]]
                reading.tickets[metrics] = judge.submit(items)

    def settle(self, fed: Fed, rollouts: Rollouts, reading: Reading | None, tally: Tally) -> None:
        """Wait for the verdicts, and add everything to the metrics of the step."""
        self._count_usual(fed, rollouts, tally)
        if reading is None:
            return
        found = dict(reading.scores)
        for metrics, ticket in reading.tickets.items():
            asked: tuple[Reward, ...] = ("faithfulness",) if SEEN in metrics else self.asked
            verdicts = iter(ticket.result())
            for metric in metrics:
                found[metric] = _scores(islice(verdicts, len(reading.items[metric])), asked, asked[0])
        # what was decided of the rollouts of these questions anyway, paid or recorded
        size = self.recipe.rl.group_size
        judged = [rollouts.judged[one.at * size + g] for one in reading.chosen for g in range(size)]
        if self.judge is not None:
            found[OWN] = _scores(judged, self.asked, "sufficiency")
        if "faithfulness" in self.asked:
            found[SEEN] = _scores(judged, self.asked, "faithfulness")
        for metric, scores in found.items():
            known = [score for score in scores if score is not None]
            tally.add(metric, sum(known), len(known))

    def told(self, step: int, row: dict[str, Any]) -> dict[str, Any]:
        """The line of metrics of a step (from 1); after a reading with the alarms that are up, of which the
        new ones are told to the watchers."""
        now = _short({"step": step, **row})
        found: dict[str, Any] = {}
        if self._due(step - 1):
            up = alarms_up([*self._past, now])
            readings = [old for old in self._past if RAISED in old]
            before = readings[-1].get(ALARMS, {}) if readings else {}
            for name in (name for name in up if name not in before):
                self.session.log.note(f"alarm at step {step:,}, {name}: {up[name]}")
            found = {RAISED: len(up), **({ALARMS: up} if up else {})}
        self._past.append(now | found)
        return row | found

    def _due(self, step: int) -> bool:
        every = self.spec.every
        return bool(every) and (step == 0 or (step + 1) % every == 0)

    def _drawn(self, fed: Fed, kind: str, shown: Sequence[Seen]) -> list[Said]:
        """What the policy says it sees on these clips."""
        size = self.spec.rollouts
        examples = [fed.prompts.examples[one.at] for one in shown]
        prompts = self.session.collator(examples, [one.frames for one in shown])
        shown = [shown[at] for at in prompts.kept]  # another clip may be too long
        seeds = self.roller.seeds(fed.step, [one.place for one in shown], size, kind)
        graded = self.roller.completed(prompts, size, seeds).graded
        return _said(fed, [(one, g) for one in shown for g in range(size)], graded)

    def _count_usual(self, fed: Fed, rollouts: Rollouts, tally: Tally) -> None:
        """Accuracy of each question's group, apart by whether its usual answer is the right one."""
        size = self.recipe.rl.group_size
        for at, example in enumerate(fed.prompts.examples):
            group = rollouts.graded[at * size : (at + 1) * size]
            known = [one.acc_r for one in group if one.acc_r is not None]
            holds = self.usual.holds(example)
            if known and holds is not None:
                tally.add(f"alarm/usual_{'right' if holds else 'wrong'}", sum(known) / len(known))


def swapped(mine: Sequence[Seen], ranks: Ranks | None = None) -> list[Seen]:
    """Each question with the clip of the next one, of all processes and in the order of their places, that
    has the same kind of media and another clip; it is left out where there is none."""
    every = [one for part in (ranks or Ranks.here()).gather(list(mine)) for one in part]
    found = []
    for one in mine:
        own = one.frames.record
        for other in sorted(every, key=lambda seen: (seen.place < one.place, seen.place)):
            record = other.frames.record
            if record.data_type == own.data_type and record.frames_sha256 != own.frames_sha256:
                found.append(one._replace(frames=other.frames))
                break
    return found


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


def _scores(judged: Iterable[Judged | None], asked: Sequence[Reward], name: Reward) -> Scores:
    """Of one of the things that were `asked`."""
    parts = [one.each(asked) for one in judged if one is not None]
    return [part[name].score for part in parts if name in part]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What alarms need of a line of metrics."""
    return {key: value for key, value in row.items() if key.startswith("alarm") or key == "step"}
