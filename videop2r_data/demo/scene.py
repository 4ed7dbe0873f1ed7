"""The records of the demo world: a scene and its facts, a question about it, the defects of a trace.

A scene says exactly what is in it: questions, pixels, traces and the judge are all derived from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from random import Random
from typing import Any, Literal

from pydantic import Field

from videop2r_data.schemas import DataType, Model, ProblemType, Sample, TraceFault


def stream(*name: object) -> Random:
    """A generator that depends on its name only, the same on every machine and Python.

    >>> stream("scene", 7).random() == stream("scene", 7).random()
    True
    """
    return Random("/".join(map(str, name)))  # noqa: S311 (pictures of shapes, not secrets)


Medium = Literal["video", "image", "text"]
Theme = Literal["shapes", "sign", "gauge", "groups"]
Key = tuple[str, str]
"""What a fact is about: (kind, subject), e.g. `("motion", "red circle")` or `("count", "all")`."""
Value = str | int | float | bool | tuple[float, ...]

RGB = tuple[int, int, int]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of the image normalisation of Qwen2-VL and Qwen2.5-VL (that of CLIP), R, G, B in [0, 1]."""
ZERO: RGB = (123, 117, 104)
"""`round(255 * CLIP_MEAN)`: the uint8 colour nearest to zero after normalisation (residual below 0.004)."""
EXACT_MEAN = (ZERO[0] / 255, ZERO[1] / 255, ZERO[2] / 255)
"""Give this `image_mean` to a processor and the background becomes exactly 0."""

COLOURS: dict[str, RGB] = {
    "red": (222, 32, 32),
    "green": (24, 160, 56),
    "blue": (36, 72, 224),
    "yellow": (244, 222, 36),
    "purple": (150, 44, 186),
    "orange": (246, 132, 20),
    "white": (246, 246, 246),
    "black": (14, 14, 14),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
MOTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
}
PLACES = ("upper left", "upper right", "lower left", "lower right")
# fmt: off
WORDS = (
    "RED", "SUN", "FOX", "KEY", "MAP", "ICE", "OWL", "BUS", "TAXI", "EXIT", "STOP", "PARK", "HOTEL",
    "RIVER", "BRIDGE", "MARKET", "GARDEN", "SILVER", "NORTH", "HARBOR", "WINTER", "OCEAN", "COFFEE",
    "STATION", "LIBRARY", "CASTLE", "MUSEUM", "TICKET", "ORANGE", "PLANET", "WINDOW", "CAMERA", "BAKERY",
    "SCHOOL",
)
# fmt: on


class SceneObject(Model):
    """One coloured shape on a straight path."""

    colour: str
    shape: str
    size: Literal["small", "large"]
    half: int
    """Pixels from the centre pixel to the edge pixel: the shape is `2 * half + 1` pixels wide and high."""
    x: float
    y: float
    """Centre in frame 0, pixels."""
    motion: str
    pace: Literal["still", "slow", "fast"]
    step: float
    """Pixels per frame along `motion`."""
    appear: int
    vanish: int
    """Shown in the frames `appear <= f < vanish`."""

    @property
    def name(self) -> str:
        """Unique in its scene."""
        return f"{self.colour} {self.shape}"

    def centre(self, frame: int) -> tuple[int, int]:
        """Centre pixel (x, y) in a frame."""
        dx, dy = MOTIONS[self.motion]
        return round(self.x + dx * self.step * frame), round(self.y + dy * self.step * frame)

    def box(self, frame: int = 0) -> tuple[int, int, int, int]:
        """`[x1, y1, x2, y2]` in pixels; x2 and y2 are the first column and row behind the shape."""
        x, y = self.centre(frame)
        return x - self.half, y - self.half, x + self.half + 1, y + self.half + 1


class Sign(Model):
    """Words in capitals on a plain plate, one word a line."""

    words: tuple[str, ...]
    colour: str
    x: int
    y: int
    """Upper left corner of the first letter, pixels."""
    scale: int
    """Pixels per font dot."""
    appear: int
    vanish: int

    @property
    def text(self) -> str:
        """The reference transcription."""
        return " ".join(self.words)


class Gauge(Model):
    """A horizontal bar, filled from the left."""

    colour: str
    x: int
    y: int
    width: int
    """Inner width, pixels; the frame is one pixel around it."""
    height: int
    start: int
    end: int
    """Fill in percent in the first and the last frame; linear between them."""


class Group(Model):
    """Equal things that a text puzzle speaks of."""

    count: int
    colour: str
    shape: str

    @property
    def name(self) -> str:
        """E.g. `red circle`."""
        return f"{self.colour} {self.shape}"


class Scene(Model):
    """One clip, picture or text puzzle."""

    index: int
    medium: Medium
    theme: Theme
    side: int
    """Width and height, pixels."""
    frames: int
    """1 for an image."""
    fps: int
    background: RGB
    noise_seed: int | None = None
    """Of the pixel noise; None: the background is one exact colour."""
    turn: int = 0
    """Quarter turns clockwise that a reader must apply to the stored file (display matrix, EXIF)."""
    numbered: bool = True
    exact: bool = Field(default=False, exclude_if=lambda value: value is False)
    """The clip is stored without loss."""
    objects: tuple[SceneObject, ...] = ()
    sign: Sign | None = None
    gauge: Gauge | None = None
    groups: tuple[Group, ...] = ()

    @property
    def label(self) -> str:
        """How questions call it: `clip 17`, or `the clip` in an unnumbered world."""
        noun = {"video": "clip", "image": "picture", "text": "puzzle"}[self.medium]
        return f"{noun} {self.index}" if self.numbered else f"the {noun}"

    @property
    def path(self) -> str:
        """Media file relative to the media root, POSIX; empty for text."""
        if self.medium == "text":
            return ""
        return f"demo/{self.medium}_{self.index:06d}{'.mp4' if self.medium == 'video' else '.png'}"

    @property
    def data_type(self) -> DataType:
        """The column of the same name."""
        return DataType(self.medium)

    @property
    def duration_s(self) -> float:
        """Seconds that the clip shows."""
        return self.frames / self.fps

    def named(self, name: str) -> SceneObject | None:
        """The object of that name."""
        return next((o for o in self.objects if o.name == name), None)


# --- facts: what is true of a scene ---


def truth(scene: Scene, key: Key) -> Value | None:
    """The exact value of a fact, or None where the scene has none (the fact has no bearing on it)."""
    kind, subject = key
    if kind in _TRUTHS:
        return _TRUTHS[kind](scene, subject)
    if kind in ("appear", "vanish"):
        shown = scene.sign if subject == "sign" else scene.named(subject)
        if scene.medium != "video" or shown is None:
            return None
        return round((shown.appear if kind == "appear" else shown.vanish) / scene.fps, 3)
    found = scene.named(subject)
    return None if found is None else _of_object(scene, kind, found)


def _of_object(scene: Scene, kind: str, found: SceneObject) -> Value | None:
    if kind == "size":
        return found.size
    if kind in ("motion", "pace"):
        value: str = getattr(found, kind)
        return value if scene.medium == "video" else None
    if found.motion != "still" or kind not in ("box", "place"):
        return None
    if kind == "box":
        return tuple(float(v) for v in found.box())
    x, y = found.centre(0)
    middle, margin = scene.side / 2, scene.side / 14
    if abs(x - middle) < margin or abs(y - middle) < margin:
        return None  # near a middle line: no corner of the frame holds it clearly
    return f"{'upper' if y < middle else 'lower'} {'left' if x < middle else 'right'}"


def _exists(scene: Scene, name: str) -> bool | None:
    if scene.theme == "groups":
        return any(g.name == name for g in scene.groups)
    return scene.named(name) is not None if scene.theme == "shapes" else None


def _count(scene: Scene, subject: str) -> int | None:
    if scene.theme == "groups":
        return sum(g.count for g in scene.groups if subject in ("all", g.colour, g.shape, g.name))
    if scene.theme != "shapes":
        return None
    if subject in ("moving", "still"):
        # A picture shows no motion, nor that there is none.
        fits = [o for o in scene.objects if (o.motion == "still") == (subject == "still")]
        return len(fits) if scene.medium == "video" else None
    return sum(subject in ("all", o.colour, o.shape, o.name) for o in scene.objects)


def _level(scene: Scene, anchor: str) -> int | None:
    gauge = scene.gauge
    if gauge is None:
        return None
    if anchor == "start":
        return gauge.start
    return gauge.end if anchor == "end" or gauge.start == gauge.end else None


def _beside(scene: Scene, subject: str) -> str | None:
    """`"a|b"`: on which side of b the object a lies (left, right); None where that is not clear."""
    first, _, second = subject.partition("|")
    a, b = scene.named(first), scene.named(second)
    if a is None or b is None or a.motion != "still" or b.motion != "still" or a.name == b.name:
        return None
    gap = a.centre(0)[0] - b.centre(0)[0]
    return None if abs(gap) < a.half + b.half + 1 else "left" if gap < 0 else "right"


_TRUTHS: dict[str, Callable[[Scene, str], Value | None]] = {
    "exists": _exists,
    "count": _count,
    "text": lambda scene, _: scene.sign.text if scene.sign else None,
    "level": _level,
    "beside": _beside,
}


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
    BAD_FIELD = "bad_field"
    """Only in a grammar with a segment that must have a form: it has another."""
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
    INVENTED_EVIDENCE = "invented_evidence"
    """The answer follows from the observation and is right, but what was seen is made up."""
    INVENTED_DETAIL = "invented_detail"
    """The evidence is there and true; a claim beside it, which the answer does not need, is false."""
    LEAKED_ANSWER = "leaked_answer"
    """The observation states the answer as an answer in place of its evidence."""
    HEDGING = "hedging"
    """The evidence is offered together with what rules it out: `Or perhaps ...`."""
    REPETITION = "repetition"
    """True and sufficient, but each sentence stands there several times: no step looks for it."""
    RESTATED_QUESTION = "restated_question"
    """The observation is the question once more."""


TEMPLATE_DEFECTS = tuple(
    Defect(fault) for fault in TraceFault if fault.value in set(Defect) and fault is not TraceFault.BAD_FIELD
)
"""Broken templates that every grammar can have: rejected under the reason of the same name."""
INVENTIONS = (
    Defect.INVENTED_EVIDENCE,
    Defect.INVENTED_DETAIL,
    Defect.LEAKED_ANSWER,
    Defect.HEDGING,
    Defect.REPETITION,
    Defect.RESTATED_QUESTION,
)
"""Habits of real generators; `DemoSpec.invention_rate` plants them in traces that are otherwise good."""
ONLY_FOR = {
    Defect.LOW_QUALITY: (ProblemType.OCR, ProblemType.FREE_FORM),
    Defect.NEAR_MISS: (ProblemType.FREE_FORM,),
    Defect.THINK_ANSWER_MISMATCH: (ProblemType.MULTIPLE_CHOICE,),
}
"""Defects that can be planted in these types alone."""


def applicable(problem_type: ProblemType) -> tuple[Defect, ...]:
    """The defects that can be planted in a trace for this type, whatever its question and grammar."""
    rest = (d for d in Defect if d not in INVENTIONS and d is not Defect.BAD_FIELD)
    return tuple(d for d in rest if d not in ONLY_FOR or problem_type in ONLY_FOR[d])


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
