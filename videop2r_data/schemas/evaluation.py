"""An evaluation: what is asked of whom, one graded question, and what a benchmark's questions come to."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_serializer, field_validator, model_validator

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.benchmark import Aggregate
from videop2r_data.schemas.grammar import default_grammar
from videop2r_data.schemas.judges import BackendSpec, JudgeSpec, Name, NamedJudge
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.recipe import DemoSpec, GenerateSpec, GrammarField, Recipe, SourceSpec, VerifySpec
from videop2r_data.schemas.rows import ClaimCell, Int32, JudgementCell, SegmentCell
from videop2r_data.schemas.verdict import READING, Policy, Unit

# --- what is asked of whom ---

HELD_OUT = {"start": 10_000_000, "rows": 200, "questions": 1}
"""Scenes of the demo world beyond those of a training run of any ordinary length."""
PAPER_FRAMES = {"frames": 32, "max_pixels": 256 * 28 * 28}
"""Frames and pixels of inference [method §4]."""
_PROMPTS = {"process": "generate-v1", "agnostic": "generate-agnostic-v1", "plain": "plain-v1"}
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


class EvalPool(SourceSpec):
    """One benchmark, or one pool of questions of one's own.

    In a plan its name alone is enough: `video-mme` is the packaged benchmark, `demo` the demo's held-out
    questions, anything with a slash or an ending a folder, a file or a Hub id.
    """

    start: int = Field(default=0, ge=0)
    """First row, from 0."""
    sample: int | None = Field(default=None, ge=1)
    """So many questions, drawn by a digest of their ids; None: all of them."""
    sample_seed: int = 0
    """Another seed, other questions."""
    hint: str = ""
    """What stands before each question, beside what the benchmark's declaration says."""
    aggregates: tuple[Aggregate, ...] = ()
    """How scores become one number, beside those that the benchmark declares."""

    @model_validator(mode="before")
    @classmethod
    def _by_what_is_named(cls, data: Any) -> Any:
        if isinstance(data, str):
            own = data == "demo" or not ("/" in data or "." in data)
            data = {"name": data} if own else {"path": data}
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if "name" not in data:
            named = Path(str(data.get("benchmark") or data.get("path") or "")).name
            data["name"] = _NO_NAME.sub("-", named.partition(".")[0]).strip("-._")
        if "kind" not in data:
            data["kind"] = "benchmark" if "benchmark" in data or "path" not in data else "dataset"
        if data["kind"] == "benchmark":
            data.setdefault("benchmark", data["name"])
        if data.get("benchmark") == "demo" and isinstance(data.get("demo") or {}, dict):
            data["demo"] = {**HELD_OUT, **(data.get("demo") or {})}
        return data

    @field_serializer("demo", mode="wrap")
    def _with_its_start(self, value: DemoSpec | None, write: SerializerFunctionWrapHandler) -> Any:
        """A world that begins at scene 0 says so: left out, `start` would be that of the held-out scenes."""
        return write(value) | {"start": value.start} if value is not None else None

    @property
    def source(self) -> SourceSpec:
        """What the readers of pools take: the rows before `start` are read and left out."""
        limit = None if self.limit is None else self.start + self.limit
        fields = {name: getattr(self, name) for name in SourceSpec.model_fields}
        # Test items are what an evaluation is for.
        test_items = self.kind == "benchmark"
        return SourceSpec.model_construct(**fields | {"limit": limit, "test_items": test_items})

    @property
    def is_whole(self) -> bool:
        """Whether every row is asked."""
        return not self.start and self.limit is None and self.sample is None


Shows = Literal["nothing", "media", "observation", "both"]
"""What an examinee gets beside the question; `both`: the media and an observation of them."""


class ExamSpec(JudgeSpec):
    """The perception examination [paper §5]: one model, the same questions, asked in several ways."""

    prompt: str = "exam-question-v1"
    """For the question alone, and with its media."""
    observation_prompt: str = "exam-observation-v1"
    """For the question with an observation, in place of the media or beside them."""
    max_tokens: int = Field(default=1024, ge=16)
    """Tokens of an answer at most."""
    shown: tuple[Shows, ...] = Field(default=("nothing", "media", "observation"), min_length=1)
    """The ways in which each question is asked; `both` shows the media and the observation."""
    observations: str = ""
    """Folder of another result, relative to the plan, whose observations are shown; empty: those of this
    evaluation."""


class EvalPlan(Model):
    """Everything that a person decides about an evaluation, in one YAML file."""

    plan: Literal[1] = 1
    """Version of this format."""
    name: Name = "evaluation"
    """Of the evaluation and of its folder."""
    benchmarks: tuple[EvalPool, ...] = Field(min_length=1)
    """What is asked: names of benchmarks, or their settings."""
    backend: BackendSpec
    """Who is asked."""
    style: Literal["process", "agnostic", "plain"] = "process"
    """What the model is asked for: `process`: a trace with what it sees; `agnostic`: thought and answer;
    `plain`: the answer alone."""
    prompt: str = ""
    """Packaged prompt, or file relative to the plan; empty: the one that fits `style`."""
    trace: GrammarField = Field(default_factory=default_grammar)
    """What a trace is made of (docs/traces.md)."""
    temperature: float = Field(default=0.01, ge=0.0, le=2.0)
    """The paper's [method §4]."""
    top_p: float | None = Field(default=0.001, gt=0.0, le=1.0)
    """The paper's [method §4]; None: the server's default, as for `anthropic`, which takes one of the two."""
    max_tokens: int = Field(default=4096, ge=1)
    """Tokens of an answer at most; one that is cut is counted."""
    seed: int | None = None
    """Sent with each call; None: none."""
    media: MediaSpec = MediaSpec(**PAPER_FRAMES)
    """How frames are sampled; what is left out is the paper's: 32 frames of 256 * 28 * 28 pixels."""
    scoring: Policy = READING
    """How answers are read and scored."""
    question_only: bool = True
    """Ask each question without its media too: what a score is worth stands beside it."""
    question_only_prompt: str = "blind-v1"
    """For these calls."""
    judges: tuple[NamedJudge, ...] = ()
    """Judges of observations and reasoning; their verdicts are columns and figures, and refuse nothing."""
    exam: ExamSpec | None = Field(default=None, exclude_if=lambda value: value is None)
    """The perception examination; None: there is none."""
    tokenizer: str = Field(default="", exclude_if=lambda value: not value)
    """Folder or Hub id of a tokenizer that counts the tokens of segments; empty: words alone are counted."""
    max_missing: Unit = 0.5
    """Share of a benchmark's media files that may be missing; above it nothing is asked."""
    probe: int = Field(default=8, ge=0)
    """Media files of each benchmark that are opened before the first call; all are looked for."""
    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of the intervals."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap samples behind an interval."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars for the whole evaluation, over all its runs."""

    @model_validator(mode="before")
    @classmethod
    def _one_way_to_sample(cls, data: Any) -> Any:
        asked = data.get("backend") if isinstance(data, dict) else None
        alone = isinstance(asked, dict) and asked.get("kind") == "anthropic" and "top_p" not in data
        return {**data, "top_p": None} if alone else data

    @field_validator("media", mode="before")
    @classmethod
    def _as_the_paper(cls, value: Any) -> Any:
        return {**PAPER_FRAMES, **value} if isinstance(value, dict) else value

    @field_validator("judges")
    @classmethod
    def _judges_record(cls, value: tuple[NamedJudge, ...]) -> tuple[NamedJudge, ...]:
        if any(judge.decides == "blind" for judge in value):
            raise ValueError("question_only asks the model itself without media: leave that judge out")
        return tuple(judge.model_copy(update={"does": "record"}) for judge in value)

    @model_validator(mode="after")
    def _fits_a_build(self) -> Self:
        _ = self.recipe
        for step, backend in self.also.items():
            if step in self.recipe.backends:
                raise ValueError(f"a judge cannot be called {step}: that step is called so")
            if self.max_cost is not None and backend.price is None and backend.declared.billed_by:
                raise ValueError(f"max_cost needs {step}.backend.price: its calls are never free")
        return self

    @property
    def also(self) -> dict[str, BackendSpec]:
        """Step -> who is asked, of the steps that no build has."""
        return {"exam": self.exam.backend} if self.exam is not None else {}

    @property
    def prompt_name(self) -> str:
        """What `prompts.load_prompt` takes."""
        return self.prompt or _PROMPTS[self.style]

    @cached_property
    def recipe(self) -> Recipe:
        """The build that asks these questions: an evaluation is a build whose export is a result."""
        return Recipe(
            name=self.name,
            sources=tuple(pool.source for pool in self.benchmarks),
            media=self.media,
            trace=self.trace,
            generate=GenerateSpec(
                backend=self.backend,
                prompt=self.prompt_name,
                temperature=self.temperature,
                top_p=self.top_p,
                max_tokens=self.max_tokens,
                seed=self.seed,
            ),
            verify=VerifySpec(policy=self.scoring),
            judges=self.judges,
            max_cost=self.max_cost,
        )


# --- one graded question ---

Place = Literal["segment", "tag", "cue", "boxed", "bare", ""]
"""Where an answer was found: the answer segment of a whole trace; an answer tag; behind words that announce
it; in a box; the whole text; nowhere."""


class Reply(Model):
    """What a model answered to one question, and what the answer is worth."""

    text: str
    """the completion; empty if there is none"""
    finish: str
    """stop, length, content_filter or other; empty if there is no completion"""
    failed: str
    """reason code if the question got no completion; empty if it did"""
    detail: str
    """the error in words"""
    answer: str | None
    """as it was read out of the completion"""
    place: str
    """where the answer was found: segment, tag, cue, boxed, bare; empty: nowhere"""
    score: Unit | None
    """by the metric of the benchmark; 0 without a completion; None: the reference cannot be used"""
    reason: str
    """why the score is what it is"""
    input_tokens: Int32
    """as the server counted them, pixels included"""
    output_tokens: Int32
    """as the server counted them"""
    key: str
    """sha256 of the request: its key in the journal"""


class TagCell(Model):
    """One tag of a question, as it stands in the column `tags`."""

    name: str
    """task, level, duration ..."""
    value: str
    """of this question"""


class NamedReply(Model):
    """A reply of the perception examination, as it stands in the column `examined`."""

    shown: str
    """what stood in front of the question: nothing, media, observation, or both"""
    model: str
    """who answered"""
    reply: Reply
    """what was answered"""


class EvalRow(Model):
    """One question of an evaluation: a row of `rows/<benchmark>.parquet`."""

    benchmark: str
    """name of its declaration"""
    problem_id: str
    """id in the benchmark"""
    sample_id: str
    """benchmark/problem_id"""
    problem: str
    """the question"""
    problem_type: str
    """as in a data set; empty for a row of the benchmark that cannot be read"""
    data_type: str
    """image, video or text; empty for a row that cannot be read"""
    options: list[str]
    """"A. text" and so on; empty unless multiple choice"""
    reference: str
    """the reference answer"""
    path: str
    """media file below the media root"""
    start_s: float | None
    """where the part of the clip begins"""
    end_s: float | None
    """where it ends"""
    tags: list[TagCell]
    """what the tables go by"""
    reply: Reply
    """the answer of the model that is evaluated"""
    blind: Reply | None
    """the same model asked without media; None: not asked"""
    segments: list[SegmentCell]
    """of the trace; empty if the completion is none"""
    well_formed: bool | None
    """the completion has the form that was asked for; None: no form was asked for, or no completion"""
    fault: str
    """why it has not"""
    segment_words: list[Int32]
    """words of each of them"""
    segment_tokens: list[Int32]
    """tokens of each of them; empty if the plan names no tokenizer"""
    frame_indices: list[Int32]
    """frames that the model saw, in display order"""
    frame_times_s: list[float]
    """their times in seconds from the first shown frame"""
    frame_width: Int32
    """pixels of a frame, as it was sent"""
    frame_height: Int32
    """pixels of a frame, as it was sent"""
    mismatch_rule: bool | None
    """think settles on another answer, by the rule; None: no rule decides"""
    think_option: str | None
    """what the judge says that think settles on; No: on nothing; None: not asked, or no verdict"""
    mismatch_judge: bool | None
    """it differs from the answer; None: not asked, or no verdict"""
    judgements: list[JudgementCell]
    """of each judge of sufficiency and of faithfulness"""
    claims: list[ClaimCell]
    """of the first judge that sees"""
    examined: list[NamedReply]
    """answers of the perception examination"""
