"""Give up a batch that its server no longer has, so that its requests can be asked again."""

from __future__ import annotations

from videop2r_data.backends.journal import Journal
from videop2r_data.builders.lease import take_now
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import ConfigError, RefusedError
from videop2r_data.schemas.recipe import Recipe


def abandon_batch(recipe: Recipe, place: Workspace, batch_id: str) -> int:
    """Note in the journal that a batch is given up; what it may have cost stays on the bill.

    Only a person can decide this: to a program a wrong key looks the same as a batch that was deleted.

    Args:
        recipe: its judge is asked in batches.
        place: the build.
        batch_id: as the server named it.

    Returns:
        Requests that the next run asks again.

    Raises:
        ConfigError: the recipe has no batches, or no open batch has this id.
        BusyError: a build works in this folder.
    """
    if recipe.judge is None or not recipe.judge.backend.batch:
        raise ConfigError("the judge of this recipe is not asked in batches", where=recipe.name)
    from videop2r_data.backends.anthropic.client import AnthropicBatches
    from videop2r_data.backends.batches import BatchRunner

    with take_now(place.work, "build --abandon-batch"), Journal(place.journal) as journal:
        runner = BatchRunner(AnthropicBatches(recipe.judge.backend), journal)
        try:
            return runner.abandon(batch_id, why="given up by hand")
        except RefusedError as error:
            raise ConfigError(error.message, where=str(place.journal), hint="look at the id again") from None
