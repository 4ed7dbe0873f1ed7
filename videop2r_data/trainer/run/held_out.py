"""Held-out questions between the steps, with what the run has at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from videop2r_data.trainer.judging.base import Judge
from videop2r_data.trainer.rollout.base import RolloutEngine

if TYPE_CHECKING:
    from videop2r_data.trainer.run.session import Session


def held_out(
    session: Session, judge: Judge | None = None, drawer: RolloutEngine | None = None
) -> Callable[[int], dict[str, float]] | None:
    """What gives the metrics `eval/...` at a step, or None if the recipe asks for no evaluation.

    Args:
        session: the run; every process must evaluate at the same steps.
        judge: the training's, started; None: the exact checker for demo questions, nobody for others.
        drawer: the training's rollout engine; used if the evaluation samples exactly as the training.

    Raises:
        ConfigError, SourceError: the questions cannot be read.
    """
    recipe = session.recipe
    if recipe.evaluation is None:
        return None
    from videop2r_data.trainer.evaluate.training import HeldOut

    same = recipe.stage == "rl" and recipe.evaluating.sampling == recipe.sampling
    questions = HeldOut(
        session.policy.processor,
        recipe.evaluation,
        spec=recipe.evaluating,
        judge=judge,
        engine=drawer if same else None,
        run=session.folder,
    )

    def measure(step: int) -> dict[str, float]:
        with session.accelerator.autocast():
            return questions(session.engine.model, step)

    return measure
