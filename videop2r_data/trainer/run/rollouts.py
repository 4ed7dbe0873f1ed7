"""From prompts to graded groups: draw, split into processes, judge, reward.

Notation: B prompts, G rollouts of each, N = B * G rows, row b * G + g is rollout g of prompt b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from videop2r_data.schemas import DataType, Frames
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.judging.base import Judge, Judged, JudgeItem, Ticket
from videop2r_data.trainer.process.masks import SegmentMasks, TokenTable, segment_masks
from videop2r_data.trainer.process.rewards import Graded, grade
from videop2r_data.trainer.rollout.base import RolledOut, RolloutEngine
from videop2r_data.trainer.run.feed import Fed
from videop2r_data.trainer.run.seeds import derive, rollout_seeds

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session


@dataclass
class Rollouts:
    """The groups of one process at one step, N rows.

    Attributes:
        rolled: token ids.
        masks: who wrote which token.
        graded: all but the judge's part, until `judged` is there.
        judged: verdicts, None where nobody was asked.
        shuffled: T-GRPO: per prompt the accuracies of its group with shuffled frames; None without a video.
    """

    rolled: list[RolledOut]
    masks: list[SegmentMasks]
    graded: list[Graded]
    judged: list[Judged | None]
    shuffled: list[list[float | None] | None] | None = None

    def settle(self, ticket: Ticket | None, asked: Sequence[int]) -> None:
        """Wait for the verdicts and enter them.

        Args:
            ticket: of the judge; None: nobody was asked.
            asked: the rows whose observations it has, in its order.
        """
        if ticket is None:
            return
        for row, verdict in zip(asked, ticket.wait(), strict=True):
            self.judged[row] = verdict
            self.graded[row] = self.graded[row].judged(verdict.sufficient)


class Roller:
    """Draws and grades groups.

    Args:
        session: the run.
        drawer: draws completions.
        judge: started, or None.
    """

    def __init__(self, session: Session, drawer: RolloutEngine, judge: Judge | None) -> None:
        self.session = session
        self.drawer = drawer
        self.judge = judge
        self.table = TokenTable.from_tokenizer(session.policy.tokenizer)

    def roll(self, fed: Fed) -> Rollouts:
        """Draw G completions of each prompt and grade all that needs no judge."""
        recipe, prompts = self.session.recipe, fed.prompts
        places = [self.session.place(local) for local in fed.places]
        size = recipe.rl.group_size
        rolled = self._draw(prompts, size, rollout_seeds(recipe.seed, fed.step, places, size))
        masks, graded = self._grade(prompts.examples, rolled, size)
        return Rollouts(rolled, masks, graded, [None] * len(rolled))

    def roll_shuffled(self, fed: Fed) -> list[list[float | None] | None]:
        """Accuracies of a second group per video question, its frames in random order [T-GRPO eq. 1].

        The frames keep the times of their new places: the model sees a film that was cut anew, not a film
        with wrong dates.
        """
        recipe = self.session.recipe
        size = recipe.objective.temporal.shuffled_size(recipe.rl.group_size)
        chosen = [b for b, e in enumerate(fed.prompts.examples) if e.data_type is DataType.VIDEO]
        found: list[list[float | None] | None] = [None] * len(fed.prompts)
        if not chosen:
            return found
        places = [self.session.place(fed.places[b]) for b in chosen]
        frames = [
            _in_random_order(fed.prompts.frames[b], derive(recipe.seed, "shuffle", fed.step, place))
            for b, place in zip(chosen, places, strict=True)
        ]
        prompts = self.session.collator([fed.prompts.examples[b] for b in chosen], frames)
        rolled = self._draw(prompts, size, rollout_seeds(recipe.seed, fed.step, places, size, "shuffled"))
        _, graded = self._grade(prompts.examples, rolled, size)
        for at, b in enumerate(chosen):
            found[b] = [row.acc_r for row in graded[at * size : (at + 1) * size]]
        return found

    def submit(self, fed: Fed, rollouts: Rollouts) -> tuple[Ticket | None, list[int]]:
        """Hand the observations in; returns at once with the ticket and the rows that it is about."""
        if self.judge is None:
            return None, []
        size = self.session.recipe.rl.group_size
        rows = [row for row, one in enumerate(rollouts.graded) if one.observation is not None]
        items = [
            JudgeItem(fed.prompts.examples[row // size], rollouts.graded[row].observation) for row in rows
        ]
        return self.judge.submit(items), rows

    def _draw(self, prompts: PromptBatch, size: int, seeds: Sequence[int]) -> list[RolledOut]:
        if not len(prompts):
            return []
        with self.session.accelerator.autocast():
            rolled = self.drawer.generate(prompts, group_size=size, seeds=seeds)
        if len(rolled) != len(seeds):
            raise ValueError(f"{len(rolled)} rollouts for {len(seeds)} seeds: groups would be mixed")
        return rolled

    def _grade(
        self, examples: Sequence[Example], rolled: Sequence[RolledOut], size: int
    ) -> tuple[list[SegmentMasks], list[Graded]]:
        recipe = self.session.recipe
        masks = [
            segment_masks(
                one.ids, self.table, style=recipe.data.style, unattributable=recipe.loss.unattributable
            )
            for one in rolled
        ]
        graded = [
            grade(
                mask,
                problem_type=examples[row // size].problem_type,
                reference=examples[row // size].reference,
                options=examples[row // size].options,
                finished=rolled[row].finished,
                policy=recipe.scoring,
            )
            for row, mask in enumerate(masks)
        ]
        return masks, graded


def _in_random_order(frames: Frames | None, seed: int) -> Frames:
    """The same frames under a permutation that moves at least one of them, if there are two."""
    assert frames is not None and frames.array is not None
    count = len(frames.array)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    return replace(frames, array=np.ascontiguousarray(frames.array[order]))
