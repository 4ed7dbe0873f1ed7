"""Dynamic sampling: groups that teach nothing give way to groups of other questions [DAPO, arXiv 2503.14476].

A group whose rewards are all equal, in every sum that the objective normalises, has no advantage. For each of
them another question is drawn, up to `rl.redraws` times a step; what then still teaches nothing stays. Which
questions, and which rollouts of them, is a function of (seed, step, round, place): a resumed run draws the
same, and so do two processes.
"""

from __future__ import annotations

import torch

from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.data.order import derive
from videop2r_data.trainer.process.advantages import collapsed
from videop2r_data.trainer.run.rollouts import Roller, Rollouts
from videop2r_data.trainer.run.session import Fed, Session

_TRIES = 8  # draws for a question that is not in the step's batch: a data set may hold no other one


def redrawn(roller: Roller, fed: Fed, rollouts: Rollouts) -> Fed:
    """Replace the groups that teach nothing, in place, once their verdicts are in; the step with its other
    questions. Every process takes part in the same rounds."""
    session, size = roller.session, roller.session.recipe.rl.group_size
    for number in range(session.recipe.rl.redraws):
        flat = [b for b, teaches in enumerate(_teaching(roller, rollouts)) if not teaches]
        if not session.engine.agreed(bool(flat)):
            break
        other = _others(session, fed, flat, number)
        new = roller.roll(other, f"redraw-{number}")
        taken = [at for at, teaches in enumerate(_teaching(roller, new)) if teaches]
        rollouts.redrawn += len(other.prompts)
        rollouts.replaced += len(taken)
        examples, frames = list(fed.prompts.examples), list(fed.prompts.frames)
        for at in taken:
            b = fed.places.index(other.places[at])
            examples[b], frames[b] = other.prompts.examples[at], other.prompts.frames[at]
            mine, its = slice(b * size, (b + 1) * size), slice(at * size, (at + 1) * size)
            for name in ("rolled", "masks", "graded", "judged"):
                getattr(rollouts, name)[mine] = getattr(new, name)[its]
        if taken:
            fed = fed._replace(prompts=session.collator(examples, frames))
    return fed


def _teaching(roller: Roller, rollouts: Rollouts) -> list[bool]:
    """Whether any rewards of a group differ; waits for its verdicts."""
    recipe = roller.session.recipe
    rollouts.settle(recipe.judging)
    table = roller.rewarded(rollouts)
    sums = [parts for one in recipe.objective.entry.earned(table.streams) for parts in one.sums]
    flat = [collapsed(*table.earned(parts), table.group_size) for parts in sums]
    return [not one for one in torch.stack(flat).all(dim=0).tolist()]


def _others(session: Session, fed: Fed, flat: list[int], number: int) -> Fed:
    """Another question for each of these groups; fewer where clips cannot be read."""
    planned, spec = set(session.indices(fed.step)), session.recipe.data
    chosen = []
    for b in flat:
        path = ("redraw", fed.step, number, fed.places[b])
        tries = [derive(session.recipe.seed, *path, t) % len(session.examples) for t in range(_TRIES)]
        chosen.append(session.examples[next((i for i in tries if i not in planned), tries[-1])])
    with MediaLoader([chosen], spec.media, workers=spec.workers, ahead=1) as loader:
        loaded = next(loader)
    prompts = session.collator(loaded.examples, loaded.frames)
    places = tuple(fed.places[flat[loaded.kept[at]]] for at in prompts.kept)
    return Fed(fed.step, prompts, places, ())
