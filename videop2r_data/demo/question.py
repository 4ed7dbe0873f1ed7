"""The record of one question about a scene, and the sample that it becomes."""

from __future__ import annotations

import re
from typing import Any

from videop2r_data.demo.defects import Defect
from videop2r_data.demo.scene import Key, Scene
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.sample import ProblemType, Sample

DATA_SOURCE = "demo-world"
LABEL = re.compile(r"\b(?:clip|picture|puzzle) (\d+)\b", re.IGNORECASE)


class Question(Model):
    """What is asked, its exact answer, and the facts that the answer follows from."""

    kind: str
    """Key of `ask.KINDS`."""
    problem_type: ProblemType
    problem: str
    options: tuple[str, ...] = ()
    """`"A. text"`, shuffled."""
    answer: str
    """The reference; an option letter for multiple choice."""
    subjects: tuple[str, ...] = ()
    """What it asks about, as in fact keys."""
    needs: tuple[tuple[Key, ...], ...]
    """Alternatives: the answer follows from all facts of any one of them. Empty alternatives do not occur."""

    @property
    def answer_text(self) -> str:
        """The answer in words: for multiple choice the text of the right option."""
        if not self.options:
            return self.answer
        return next(o for o in self.options if o.startswith(f"{self.answer}. "))[3:]


class SceneSample(Model):
    """One question with its scene and its planted label: a line of `scenes.jsonl`."""

    problem_id: int
    """Row of the pool: scenes are numbered in order, and so are their questions."""
    number: int
    """Of the question within its scene, from 0."""
    scene: Scene
    question: Question
    defect: Defect | None = None
    """Planted in the trace that the `demo` backend writes at temperature 0; None: the trace is good."""
    media_sha256: str = ""
    """Of the media file; empty for text and before it is written."""

    def pool_row(self) -> dict[str, Any]:
        """The row as it stands in `pool.json`, in the layout and key order of Video-R1."""
        return {
            "problem_id": self.problem_id,
            "problem": self.question.problem,
            "data_type": self.scene.data_type.value,
            "problem_type": self.question.problem_type.value,
            "options": list(self.question.options),
            "solution": f"<answer>{self.question.answer}</answer>",
            "path": f"./{self.scene.path}" if self.scene.path else "",
            "data_source": DATA_SOURCE,
        }

    def sample(self, source: str = "demo") -> Sample:
        """The question as the pipeline sees it."""
        row = self.pool_row()
        problem_id = str(row.pop("problem_id"))
        return Sample(
            sample_id=f"{source}/{problem_id}",
            problem_id=problem_id,
            source=source,
            row=self.problem_id,
            **{**row, "options": tuple(row["options"])},
        )
