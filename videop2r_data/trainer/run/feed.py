"""The batches of a run, one per step: decoded ahead, collated, with their places in the plan."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.examples import Skip
from videop2r_data.trainer.data.loader import MediaLoader
from videop2r_data.trainer.run.session import Session


class Fed(NamedTuple):
    """What this process has for one step.

    Attributes:
        step: from 0.
        prompts: B of them; fewer than planned when clips were bad, perhaps none.
        places: [B] place of each among the planned examples of this process, rising.
        skipped: what was left out.
        waited_s: seconds that the step stood still for its batch.
    """

    step: int
    prompts: PromptBatch
    places: tuple[int, ...]
    skipped: tuple[Skip, ...]
    waited_s: float

    def part(self, number: int, size: int) -> tuple[int, int]:
        """Which of the B belong to part `number` of `size` planned examples: from, to (exclusive)."""
        lo = sum(place < number * size for place in self.places)
        return lo, sum(place < (number + 1) * size for place in self.places)


def feed(session: Session) -> Iterator[Fed]:
    """The batches of the steps that are left; ends its decoders when the consumer stops."""
    spec = session.recipe.data
    planned = (session.planned(step) for step in range(session.start, session.steps))
    with MediaLoader(planned, spec.media, workers=spec.workers, ahead=spec.ahead) as loader:
        began = time.perf_counter()
        for step, loaded in enumerate(loader, session.start):
            prompts = session.collator(loaded.examples, loaded.frames)
            places = tuple(loaded.kept[at] for at in prompts.kept)
            skipped = (*loaded.skipped, *prompts.skipped)
            for skip in skipped:
                reason = str(skip.reason)
                session.skipped[reason] = session.skipped.get(reason, 0) + 1
            if step + 1 == session.steps:
                next(
                    loader, None
                )  # there is none: lets the decoders end by themselves, not by being cancelled
            yield Fed(step, prompts, places, skipped, time.perf_counter() - began)
            began = time.perf_counter()
