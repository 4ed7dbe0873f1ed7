"""Dynamic sampling: groups that teach nothing give way to groups of other questions [DAPO, arXiv 2503.14476].

A group whose rewards are all equal, in every sum that the objective normalises, has no advantage. For each of
them another question is drawn, up to `rl.redraws` times a step; what then still teaches nothing stays. Which
questions, and which rollouts of them, is a function of (seed, step, round, place): a resumed run draws the
same, and so do two processes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.process.advantages import collapsed
from videop2r_data.trainer.process.rewards import RewardTable, rewards_of
from videop2r_data.trainer.run.rollouts import Roller, Rollouts
from videop2r_data.trainer.run.session import Fed, Session
from videop2r_data.trainer.settings.objectives import trace_streams

_TRIES = 8
"""Draws for a question that is not in the step's batch; a data set may hold no other one."""


class Redrawn(NamedTuple):
    """A step's groups after dynamic sampling.

    Attributes:
        fed, rollouts: as before, with other questions in some places; their verdicts are in.
        drawn: groups drawn beside the planned ones.
        replaced: groups that gave way.
    """

    fed: Fed
    rollouts: Rollouts
    drawn: int = 0
    replaced: int = 0


def rewarded(roller: Roller, rollouts: Rollouts) -> RewardTable:
    """The rewards of graded groups, as the recipe pays them."""
    recipe = roller.session.recipe
    return rewards_of(
        rollouts.graded,
        recipe.rewards,
        recipe.rl.group_size,
        objective=recipe.objective,
        shuffled=rollouts.shuffled,
        streams=trace_streams(roller.grammar),
        longest=recipe.sampling.max_new_tokens,
    )


def redrawn(roller: Roller, fed: Fed, rollouts: Rollouts) -> Redrawn:
    """Replace the groups that teach nothing; every process takes part in the same rounds.

    Args:
        rollouts: of `fed`, their observations submitted to the judge; its verdicts are waited for.
    """
    session = roller.session
    done = Redrawn(fed, _settled(roller, rollouts))
    for number in range(session.recipe.rl.redraws):
        flat = [b for b, teaches in enumerate(_teaching(roller, done.rollouts)) if not teaches]
        if not session.engine.agreed(bool(flat)):
            break
        other = _others(session, done.fed, flat, number)
        new = roller.roll(other, f"redraw-{number}")
        teaching = _teaching(roller, _settled(roller, new))
        taken = {fed.places.index(other.places[at]): at for at, teaches in enumerate(teaching) if teaches}
        done = _merged(session, done, other, new, taken)._replace(
            drawn=done.drawn + len(other.prompts), replaced=done.replaced + len(taken)
        )
    return done


def _settled(roller: Roller, rollouts: Rollouts) -> Rollouts:
    """With the verdicts entered, once and for all."""
    rollouts.settle(roller.session.recipe.judging)
    rollouts.verdicts, rollouts.alone = None, {}
    return rollouts


def _teaching(roller: Roller, rollouts: Rollouts) -> list[bool]:
    """Whether any rewards of a group differ."""
    table = rewarded(roller, rollouts)
    sums = [
        parts for one in roller.session.recipe.objective.entry.earned(table.streams) for parts in one.sums
    ]
    flat = [collapsed(*table.earned(parts), table.group_size) for parts in sums]
    return [not one for one in torch.stack(flat).all(dim=0).tolist()]


def _others(session: Session, fed: Fed, flat: list[int], number: int) -> Fed:
    """Another question for each of these groups; fewer where clips cannot be read."""
    recipe, parts = session.recipe, session.recipe.rl.minibatches
    planned = {i for part in range(parts) for i in session.order.global_batch(fed.step * parts + part)}
    chosen = []
    for b in flat:
        path = ("redraw", fed.step, number, session.place(fed.places[b]))
        tries = [derive(recipe.seed, *path, t) % len(session.examples) for t in range(_TRIES)]
        chosen.append(session.examples[next((i for i in tries if i not in planned), tries[-1])])
    spec = recipe.data
    with MediaLoader([chosen], spec.media, workers=spec.workers, ahead=1) as loader:
        loaded = next(loader)
    prompts = session.collator(loaded.examples, loaded.frames)
    places = tuple(fed.places[flat[loaded.kept[at]]] for at in prompts.kept)
    return Fed(fed.step, prompts, places, ())


def _merged(session: Session, old: Redrawn, other: Fed, new: Rollouts, taken: dict[int, int]) -> Redrawn:
    """The groups of a step, those in `taken` (group -> number of the new one) replaced."""
    if not taken:
        return old
    fed, size = old.fed, session.recipe.rl.group_size
    examples, frames = list(fed.prompts.examples), list(fed.prompts.frames)
    for b, at in taken.items():
        examples[b], frames[b] = other.prompts.examples[at], other.prompts.frames[at]
        mine, its = slice(b * size, (b + 1) * size), slice(at * size, (at + 1) * size)
        for name in ("rolled", "masks", "graded", "judged"):
            getattr(old.rollouts, name)[mine] = getattr(new, name)[its]
    return old._replace(fed=fed._replace(prompts=session.collator(examples, frames)))
