"""The calls of a build as Ray tasks: one share of the pool each, over one journal on a shared file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from videop2r_data.builders.shards import Shard
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import AwayError, BackendError, MissingExtraError
from videop2r_data.schemas.recipe import Recipe

RETRIES = 3
"""Times that Ray may start a task anew when its node is lost: the journal knows what was already paid."""


def make_calls_on_ray(
    recipe: Recipe,
    place: Workspace,
    tasks: int,
    *,
    under: str,
    tell: Callable[[str], None],
    keep_going: bool = False,
) -> list[dict[str, Any]]:
    """Make the calls of a build in `tasks` Ray tasks; nothing is written but the journal.

    The cluster is that of `RAY_ADDRESS`, else one on this machine. Every node needs this package, the
    recipe's files and the work folder under the same paths, and the API keys in its environment.

    Args:
        recipe: what to build.
        place: its folders.
        tasks: shares of the pool.
        under: token of the lease of the work folder, which the caller holds.
        tell: is told when a task has ended.
        keep_going: do not stop for refusals and useless replies in a row.

    Returns:
        The report of each task, as JSON.

    Raises:
        MissingExtraError: Ray is not installed. BackendError: a task failed; what it finished is kept.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        task = ray.remote(max_retries=RETRIES, num_cpus=1)(_one_share)
        asked = recipe.model_dump_json()
        folders = (str(place.out), str(place.work), str(place.base.resolve()))
        under_way = [
            task.remote(asked, folders, index, tasks, under, keep_going=keep_going)
            for index in range(1, tasks + 1)
        ]
        reports: list[dict[str, Any]] = []
        while under_way:
            ended, under_way = ray.wait(under_way)
            reports += ray.get(ended)
            tell(f"{len(reports)} of {tasks} Ray tasks have ended")
        return reports
    except ray.exceptions.RayError as error:
        # of the error in a task Ray makes one that is of both kinds
        kind = AwayError if isinstance(error, AwayError) else BackendError
        raise kind(
            f"a Ray task failed: {str(error).strip().splitlines()[-1]}",
            hint="run the same command again: every finished call is kept",
        ) from None
    finally:
        if started:
            ray.shutdown()


def _one_share(
    recipe: str, folders: tuple[str, str, str], index: int, count: int, under: str, *, keep_going: bool
) -> dict[str, Any]:
    """Runs on a node; imports there."""
    import asyncio

    from videop2r_data.builders.build import build
    from videop2r_data.builders.run import Stop

    out, work, base = map(Path, folders)
    report = asyncio.run(
        build(
            Recipe.model_validate_json(recipe),
            Workspace(out, work, base),
            observer=_Nobody(),
            card=lambda folder: None,
            stop=Stop(),
            shard=Shard(index, count),
            under=under,
            keep_going=keep_going,
        )
    )
    return report.model_dump(mode="json")


class _Nobody:
    """Watches nothing: the driver tells what is worth telling."""

    def begin(self, what: str, total: int | None) -> None:
        """Nothing."""

    def step(self, tally: object, parts: object) -> None:
        """Nothing."""

    def wait(self, message: str) -> None:
        """Nothing."""
