"""One call from a recipe to a trained model: what the command line and scripts use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videop2r_data.errors import MemoryFullError, MissingExtraError
from videop2r_data.files import find_model
from videop2r_data.trainer.look.curves import METRICS
from videop2r_data.trainer.memory import said
from videop2r_data.trainer.run.runlog import Stop, Watcher, read_lines
from videop2r_data.trainer.settings.recipe import FINAL, TrainRecipe
from videop2r_data.validators import Raised, alarms_in


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run ended.

    Attributes:
        complete: False if it was stopped; the same call goes on.
        main: whether this is the first process, the one that reports.
        last: last line of metrics, of training and not of evaluation; {} if there is none.
        skipped: reason -> examples that this process left out.
        alarms: those that were up at any reading, over the whole run.
        skipped_updates: updates of the whole run whose gradient or loss was not finite.
    """

    folder: Path
    complete: bool
    steps_done: int
    steps: int
    main: bool
    last: dict[str, Any]
    skipped: dict[str, int]
    alarms: tuple[Raised, ...] = ()
    skipped_updates: int = 0

    @property
    def model(self) -> Path:
        """Where the trained model lies once the run is complete."""
        return self.folder / FINAL


def train(
    recipe: TrainRecipe,
    *,
    watchers: Sequence[Watcher] = (),
    stop: Stop | None = None,
    anyway: bool = False,
    fresh: bool = False,
) -> Trained:
    """Run a stage of training, or go on with it: the same recipe resumes from its newest checkpoint.

    Args:
        recipe: the run; `recipe.folder` is where it goes.
        watchers: told of every line of metrics, in the main process.
        stop: asked from outside to end after the step under way.
        anyway: go on although recipe or data differ from those of the checkpoint.
        fresh: refuse a folder that holds a run.

    Raises:
        ConfigError, SourceError: settings, data, model or folder do not fit, or another training is at work
            in the folder.
        MemoryFullError: a device or the host has too little memory; checkpoints stay as they are.
        MissingExtraError: torch, transformers, accelerate or another part is not installed.

    Example::

        recipe = load_train_recipe("tiny-sft", flags={"data.source": "videop2r-demo", "model.model": "tiny"})
        print(train(recipe).model)
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    for where, name, revision in recipe.models:
        find_model(name, where=where, revision=revision)
    from videop2r_data.trainer.run.checkpoint import find_checkpoints, run_lock
    from videop2r_data.trainer.run.rl import run_rl
    from videop2r_data.trainer.run.runlog import make_trackers
    from videop2r_data.trainer.run.session import open_session
    from videop2r_data.trainer.run.sft import run_sft

    with run_lock(recipe.folder) as held:
        held.callback(AcceleratorState._reset_state)  # the next run may differ in precision
        try:
            session = open_session(recipe, watchers=watchers, stop=stop, anyway=anyway, fresh=fresh)
            held.callback(session.accelerator.free_memory)
            if session.log.main:
                config = recipe.model_dump(mode="json")
                session.log.watchers += make_trackers(recipe.trackers, folder=recipe.folder, config=config)
            complete = (run_sft if recipe.stage == "sft" else run_rl)(session)
        except MemoryFullError as error:
            found = find_checkpoints(recipe.folder)
            raise said(error, recipe, found[-1].step if found else None) from error
    rows = [row for row in read_lines(recipe.folder / METRICS) if "lr" in row]
    return Trained(
        folder=recipe.folder,
        complete=complete,
        steps_done=session.steps_done,
        steps=session.steps,
        main=session.accelerator.is_main_process,
        last=rows[-1] if rows else {},
        skipped=dict(session.skipped),
        alarms=tuple(alarms_in(rows)),
        skipped_updates=sum(row.get("skipped_updates", 0) for row in rows),
    )
