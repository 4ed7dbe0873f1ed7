"""Alarms of RL: whether observations still depend on the clip, and answers on more than the usual one.

At the first step and every `alarms.every` steps a few questions of the batch are shown an empty clip (black
frames), and the clip of another of these questions, and the policy writes observations about them. The judge
of the run says whether they suffice for the right answer. A policy that reads gets few of them past the
judge; one that invents gets as many as on its own clips.

Nothing of it reaches the training: draws have seeds of their own, the judge is asked after the verdicts of
the step are in, and no gradient sees these completions. When an alarm is up is said in `validators.alarms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from videop2r_data.schemas import Frames
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.order import rollout_seeds
from videop2r_data.trainer.data.usual import UsualAnswers
from videop2r_data.trainer.evaluate.questions import Ranks
from videop2r_data.trainer.judging.base import JudgeItem, Ticket
from videop2r_data.trainer.run.rollouts import Roller, Rollouts, Tally
from videop2r_data.trainer.run.runlog import METRICS, read_lines
from videop2r_data.trainer.run.session import Fed
from videop2r_data.validators import ALARMS, RAISED, alarms_up

EMPTY, SHUFFLED, OWN = "alarm/empty", "alarm/shuffled", "alarm/own"


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


@dataclass
class Reading:
    """One reading of this process.

    Attributes:
        chosen: the questions, with their own clips.
        items: metric -> observations of false clips, to be judged.
        ticket: what the judge was given: all items, in order.
    """

    chosen: list[Seen]
    items: dict[str, list[JudgeItem]] = field(default_factory=dict)
    ticket: Ticket | None = None


class Alarms:
    """Takes the readings of a run and says which alarms are up.

    Args:
        roller: draws and grades; every process must make the same calls.
    """

    def __init__(self, roller: Roller) -> None:
        self.roller = roller
        session = roller.session
        self.session, self.spec = session, session.recipe.alarms
        self.usual = UsualAnswers(session.examples)
        self._past = (
            [_short(row) for row in read_lines(session.recipe.folder / METRICS)] if session.log.main else []
        )

    def draw(self, fed: Fed) -> Reading | None:
        """Draw the completions of a reading; None at a step without one. All processes must call it."""
        if not self._due(fed.step) or self.roller.judge is None:
            return None
        places = _spread(self.session.recipe.batch.size, self.spec.prompts)
        chosen = [
            Seen(at, place, frames)
            for at, frames in enumerate(fed.prompts.frames)
            if (place := self.session.place(fed.places[at])) in places and frames is not None
        ]
        reading = Reading(chosen)
        false = {
            EMPTY: [one._replace(frames=_black(one.frames)) for one in chosen],
            SHUFFLED: swapped(chosen),
        }
        for kind, shown in false.items():
            reading.items[kind] = self._observations(fed, kind, shown)
        return reading

    def submit(self, reading: Reading | None) -> None:
        """Hand the observations to the judge; it has given the verdicts of the step by then."""
        if reading is not None and self.roller.judge is not None:
            items = [item for found in reading.items.values() for item in found]
            reading.ticket = self.roller.judge.submit(items)

    def settle(self, fed: Fed, rollouts: Rollouts, reading: Reading | None, tally: Tally) -> None:
        """Wait for the verdicts, and add everything to the metrics of the step."""
        self._count_usual(fed.prompts.examples, rollouts, tally)
        if reading is None or reading.ticket is None:
            return
        verdicts = iter(reading.ticket.result())
        for kind, items in reading.items.items():
            for _, verdict in zip(items, verdicts, strict=False):
                _add(tally, kind, verdict.sufficient)
        size = self.session.recipe.rl.group_size
        for one in reading.chosen:
            for row in range(one.at * size, (one.at + 1) * size):
                judged = rollouts.judged[row]
                _add(tally, OWN, None if judged is None else judged.sufficient)

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

    def _observations(self, fed: Fed, kind: str, shown: Sequence[Seen]) -> list[JudgeItem]:
        """What the policy says it sees on these clips; completions without an observation are left out."""
        if not shown:
            return []
        recipe, size = self.session.recipe, self.spec.rollouts
        examples = [fed.prompts.examples[one.at] for one in shown]
        prompts = self.session.collator(examples, [one.frames for one in shown])
        seeds = rollout_seeds(recipe.seed, fed.step, [one.place for one in shown], size, kind)
        _, _, graded = self.roller.completed(prompts, size, seeds)
        return [
            JudgeItem(prompts.examples[row // size], one.observation)
            for row, one in enumerate(graded)
            if one.observation is not None
        ]

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


def _add(tally: Tally, name: str, value: float | None) -> None:
    if value is not None:
        tally.add(name, float(value))


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """What alarms need of a line of metrics."""
    return {key: value for key, value in row.items() if key.startswith("alarm") or key == "step"}
