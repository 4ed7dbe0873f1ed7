"""Questions for judges, with no more than a judge must know."""

from __future__ import annotations

from videop2r_data.demo import SceneSample
from videop2r_data.schemas import DataType, ProblemType
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.judging.base import JudgeItem


def question(
    sample_id: str = "test/1",
    problem: str = "Which disc moves?",
    options: tuple[str, ...] = (),
    reference: str = "the red disc",
    scene: SceneSample | None = None,
) -> Example:
    return Example(
        sample_id, problem, options, ProblemType.FREE_FORM, DataType.VIDEO, None, reference, None, scene
    )


def item(observation: str | None) -> JudgeItem:
    return JudgeItem(question(), observation)
