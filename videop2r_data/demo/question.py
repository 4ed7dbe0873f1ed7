"""A question about a scene: its record, its wordings, and the defects that may be planted in its trace."""

from __future__ import annotations

import re
from enum import StrEnum
from random import Random
from typing import Any, Literal

from videop2r_data.demo.scene import Key, Scene
from videop2r_data.schemas import Model, ProblemType, RejectReason, Sample, Stage

# --- defects that are planted in traces, and the step that must catch each ---

Profile = Literal["paper", "robust"]


class Defect(StrEnum):
    """What is wrong with a planted trace; everything else in it is right."""

    WRONG_ANSWER = "wrong_answer"
    """Think and answer agree on a wrong answer; the observation is right."""
    LOW_QUALITY = "low_quality"
    """OCR and free-form: an answer in the right direction whose score is below 0.6."""
    NEAR_MISS = "near_miss"
    """Free-form: one wrong word in a right sentence. ROUGE cannot see it: a documented limit, not a catch."""
    MISSING_OBSERVATION = "missing_observation"
    MISSING_THINK = "missing_think"
    MISSING_ANSWER = "missing_answer"
    REPEATED_TAG = "repeated_tag"
    NESTED_TAG = "nested_tag"
    OUT_OF_ORDER = "out_of_order"
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_CLOSING_TAG = "stray_closing_tag"
    TEXT_OUTSIDE = "text_outside"
    EMPTY_SEGMENT = "empty_segment"
    COMPLETION_CUT = "completion_cut"
    """The completion stops at its token limit (finish reason `length`)."""
    EVIDENCE_OMITTED = "evidence_omitted"
    """A fact that the answer needs is not in the observation; think and answer are right."""
    EVIDENCE_CONTRADICTED = "evidence_contradicted"
    """The observation states such a fact wrongly; think and answer are right."""
    THINK_ANSWER_MISMATCH = "think_answer_mismatch"
    """Multiple choice: the think segment settles on another option than the (right) answer."""
    COPIED_VERDICT = "copied_verdict"
    """The observation omits its evidence and speaks for the judge: verdict tags, instructions."""


TEMPLATE_DEFECTS = (
    Defect.MISSING_OBSERVATION,
    Defect.MISSING_THINK,
    Defect.MISSING_ANSWER,
    Defect.REPEATED_TAG,
    Defect.NESTED_TAG,
    Defect.OUT_OF_ORDER,
    Defect.UNCLOSED_TAG,
    Defect.STRAY_CLOSING_TAG,
    Defect.TEXT_OUTSIDE,
    Defect.EMPTY_SEGMENT,
)
"""Broken templates: rejected under the reason of the same name."""

_CAUGHT = {
    Defect.WRONG_ANSWER: (Stage.VERIFY, RejectReason.LOW_SCORE),
    Defect.LOW_QUALITY: (Stage.VERIFY, RejectReason.LOW_SCORE),
    Defect.COMPLETION_CUT: (Stage.GENERATE, RejectReason.COMPLETION_CUT),
    Defect.EVIDENCE_OMITTED: (Stage.JUDGE, RejectReason.INSUFFICIENT),
    Defect.EVIDENCE_CONTRADICTED: (Stage.JUDGE, RejectReason.INSUFFICIENT),
}
"""Defects that are rejected under another reason than their own name, or not in the verify step."""
_OPEN_TEXT = (ProblemType.OCR, ProblemType.FREE_FORM)


def applicable(problem_type: ProblemType) -> tuple[Defect, ...]:
    """The defects that can be planted in a trace for this type, templates counted as one kind each."""
    left_out: set[Defect] = set()
    if problem_type is not ProblemType.MULTIPLE_CHOICE:
        left_out.add(Defect.THINK_ANSWER_MISMATCH)
    if problem_type not in _OPEN_TEXT:
        left_out.add(Defect.LOW_QUALITY)
    if problem_type is not ProblemType.FREE_FORM:
        left_out.add(Defect.NEAR_MISS)
    return tuple(d for d in Defect if d not in left_out)


def expected_rejection(
    defect: Defect | None, sample: Sample, profile: Profile
) -> tuple[Stage, frozenset[RejectReason]] | None:
    """Where a build must reject the trace, and under which of these reasons.

    Args:
        defect: the planted one; None for a good trace.
        sample: its question (the type decides what can be seen).
        profile: `paper` does not check that think and answer agree.

    Returns:
        None if the row must be kept: a good trace, or a defect that this profile does not look for.
    """
    if defect is None or defect is Defect.NEAR_MISS:
        return None
    if defect is Defect.THINK_ANSWER_MISMATCH and (
        profile == "paper" or sample.problem_type is not ProblemType.MULTIPLE_CHOICE
    ):
        return None
    stage, reason = _CAUGHT.get(defect) or (Stage.VERIFY, RejectReason(defect.value))
    return stage, frozenset({reason})


# --- the question, and the sample that it becomes ---

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


# --- wordings: `{at}` is `in clip 17`, `{At}` the same with a capital, `{label}` is `clip 17` ---

PROBLEMS: dict[str, tuple[str, ...]] = {
    "direction": (
        "{At}, which way does the {a} move?",
        "In which direction does the {a} travel {at}?",
        "Watch {label}. Where is the {a} heading?",
    ),
    "colour": (
        "{At}, what colour is the {a}?",
        "Which colour does the {a} have {at}?",
        "Look at {label}. Name the colour of the {a}.",
    ),
    "shape": (
        "{At}, what shape is the {a} thing?",
        "Which shape does the only {a} thing have {at}?",
        "Look at {label}. What kind of shape is drawn in {a}?",
    ),
    "order": (
        "{At}, which shape can be seen first?",
        "Watch {label}. Which of these shapes comes into view before the others?",
        "Which shape is the earliest to appear {at}?",
    ),
    "faster": (
        "{At}, which of the two is faster, the {a} or the {b}?",
        "Compare the {a} with the {b} {at}. Which one travels faster?",
        "Watch {label}. Does the {a} or the {b} have the higher speed?",
    ),
    "place": (
        "{At}, in which corner region is the {a}?",
        "Where in the frame does the {a} lie {at}?",
        "Look at {label}. Which part of it holds the {a}?",
    ),
    "beside": (
        "{At}, on which side of the {b} is the {a}?",
        "Seen from the {b}, where is the {a} {at}?",
        "Look at {label}. Is the {a} left or right of the {b}?",
    ),
    "exists": (
        "{At}, is there a {a}?",
        "Does a {a} appear anywhere {at}?",
        "Look at {label}. Can a {a} be seen?",
    ),
    "count": (
        "{At}, how many shapes are there?",
        "What is the number of shapes {at}?",
        "Count the shapes {at}.",
    ),
    "count_some": (
        "{At}, how many {a} are there?",
        "What is the number of {a} {at}?",
        "Look at {label}. How many {a} can you find?",
    ),
    "count_moving": (
        "{At}, how many shapes move?",
        "How many of the shapes change their place {at}?",
        "Watch {label}. What is the number of shapes in motion?",
    ),
    "count_choice": (
        "{At}, how many shapes are in view altogether?",
        "Pick the total number of shapes {at}.",
    ),
    "interval": (
        "{At}, from when to when is the {a} visible? Give the start and the end in seconds.",
        "During which seconds can the {a} be seen {at}?",
        "Watch {label}. Mark the time span in which the {a} is shown, in seconds.",
    ),
    "seconds": (
        "{At}, for how many seconds is the {a} visible?",
        "How long, in seconds, can the {a} be seen {at}?",
        "Watch {label}. Estimate how many seconds the {a} stays in view.",
    ),
    "box": (
        "{At}, give the bounding box of the {a} in pixels of the {side} x {side} frame.",
        "Where exactly is the {a} {at}? Answer with its box in pixels; the frame is {side} x {side}.",
        "Locate the {a} {at} by its box [x1, y1, x2, y2] on the {side} x {side} pixel grid.",
    ),
    "describe": (
        "{At}, what does the {a} do?",
        "Describe the behaviour of the {a} {at} in one sentence.",
        "Watch {label}. Say in a sentence how the {a} behaves.",
    ),
    "portray": (
        "{At}, describe the {a} in one sentence: its size and its place.",
        "How large is the {a} {at}, and where is it? Answer in one sentence.",
    ),
    "read": (
        "{At}, what is written on the sign?",
        "Transcribe the text of the sign {at}.",
        "Read the sign {at} aloud, word by word.",
    ),
    "read_choice": (
        "{At}, which of these texts is on the sign?",
        "Pick the text that the sign shows {at}.",
    ),
    "level": (
        "{At}, how full is the bar, in percent?",
        "Estimate the fill of the bar {at}, from 0 to 100 percent.",
        "Look at {label}. What percentage of the bar is filled?",
    ),
    "level_end": (
        "{At}, how full is the bar at the very end, in percent?",
        "What percentage of the bar is filled when {label} ends?",
    ),
    "trend": (
        "{At}, what happens to the fill of the bar?",
        "How does the bar change {at}?",
    ),
    "sum": (
        "{Puzzle} A box holds {things}. How many shapes does it hold in all?",
        "{Puzzle} Someone draws {things}. How many shapes are drawn altogether?",
        "{Puzzle} On a table lie {things}. What is the total number of shapes?",
    ),
    "most": (
        "{Puzzle} A box holds {things}. Which kind is the most frequent?",
        "{Puzzle} On a table lie {things}. Of which kind are there the most?",
    ),
}
"""Question kind -> its wordings."""


NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


def phrase(kind: str, label: str, rng: Random, **slots: str) -> str:
    """One wording of a question, filled in."""
    at = f"in {label}"
    return rng.choice(PROBLEMS[kind]).format(
        at=at, At=at.capitalize(), label=label, Puzzle=f"{label.capitalize()}:", **slots
    )


def listing(things: list[str]) -> str:
    """`a, b and c`."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def plural(name: str) -> str:
    """`red circles`, `blue crosses`."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def number(value: float) -> str:
    """Shortest text of a number, at most three decimals."""
    return f"{round(float(value), 3):g}"
