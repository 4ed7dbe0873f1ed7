"""Questions for judges, with no more than a judge must know."""

from __future__ import annotations

from dataclasses import dataclass

from videop2r_data.demo import SceneSample
from videop2r_data.trainer.judging.base import JudgeItem


@dataclass(frozen=True)
class Question:
    sample_id: str = "test/1"
    problem: str = "Which disc moves?"
    options: tuple[str, ...] = ()
    reference: str = "the red disc"
    scene: SceneSample | None = None


def item(observation: str | None) -> JudgeItem:
    return JudgeItem(Question(), observation)
