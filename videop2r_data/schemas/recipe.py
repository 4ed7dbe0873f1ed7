"""The recipe: everything that a person decides about a build, in one YAML file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.grammar import Role, TraceGrammar, default_grammar, load_grammar
from videop2r_data.schemas.judges import BackendSpec, JudgeSpec, Name, NamedJudge, names_differ
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.parser import trace_parser
from videop2r_data.schemas.rows import Extra, sft_row_of
from videop2r_data.schemas.verdict import Policy, Unit
from videop2r_data.schemas.yaml_file import parse_yaml, read_settings

# --- what goes in: pools of questions, the synthetic world ---


class ColumnMapping(Model):
    """Which column of a foreign data set holds what; None: the field has no column there.

    A dot steps into a column that holds fields of its own: `row.question`. A column whose name has a dot in
    it is found first.
    """

    problem_id: str | None = "problem_id"
    """Id of the question: text or a whole number; None: `row-<n>`."""
    problem: str = "problem"
    """The question."""
    problem_type: str | None = "problem_type"
    """`multiple choice`, `numerical` ...; None: `problem_type` of the source holds for all rows."""
    data_type: str | None = "data_type"
    """`video`, `image` or `text`; None: `data_type` of the source holds for all rows."""
    options: str | tuple[str, ...] | None = "options"
    """The options of multiple choice: one column, or a list of columns with an option each (`[a0, a1]`). The
    column of `problem` itself: the options are the last lines of the question, `(A) x` or `Option 1: x`."""
    solution: str = "solution"
    """The reference answer; for multiple choice a letter, an option's text, or a number (`answer_base`)."""
    path: str | None = "path"
    """The media file: a path below `media_root`, or embedded `{bytes, path}` as `datasets` writes it; or a
    path made of columns: `clips/{video_id}.mp4`."""
    data_source: str | None = "data_source"
    """Which data set the question came from originally; kept in the row, for cards and licences."""
    tags: dict[str, str] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Tag -> column: what tables of an evaluation go by (task, level, duration ...)."""
    start: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Where the part of the clip that the question is about begins, seconds; a column that holds
    `[start, end]` says both."""
    end: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Where that part ends, seconds."""


class DemoSpec(Model):
    """Settings of the synthetic world."""

    rows: int = Field(default=240, ge=1)
    """Questions."""
    seed: int = 0
    """Another seed, another world."""
    start: int = Field(default=0, ge=0, exclude_if=lambda value: value == 0)
    """Number of the first scene: worlds of one seed without a common scene share nothing."""
    defect_rate: float = Field(default=0.35, ge=0.0, le=1.0)
    """Share of rows whose trace carries a planted defect."""
    invention_rate: float = Field(default=0.0, ge=0.0, le=1.0, exclude_if=lambda value: value == 0.0)
    """Share of the other rows whose trace invents what it saw, leaks its answer, hedges or repeats itself."""
    side: int = Field(default=112, ge=16)
    """Height and width of a frame, pixels."""
    frames: int = Field(default=24, ge=2)
    """Frames of a clip."""
    fps: int = Field(default=8, ge=1)
    """Frames per second of a clip."""
    max_objects: int = Field(default=3, ge=1, le=3)
    """Coloured shapes in a scene at most."""
    noise: bool = False
    """Off: the background is one exact colour."""
    background: Literal["zero", "varied"] = "zero"
    """`zero`: the colour that Qwen's normalisation maps to (almost) 0; `varied`: a grey per scene."""
    mediums: tuple[Literal["video", "image", "text"], ...] = Field(
        default=("video", "image", "text"), min_length=1
    )
    """Which data types there are."""
    tasks: tuple[str, ...] = ()
    """Question kinds (`direction`, `count` ...) or problem types (`OCR` ...) to ask; empty: all of them."""
    questions: int = Field(default=3, ge=1, le=8)
    """Questions about one scene at most; they share its clip."""
    rotated: bool = True
    """Some files are stored turned, with a display matrix or an EXIF orientation that turns them back."""
    numbered: bool = True
    """Questions name their scene (`In clip 17, ...`). Off, the `demo` backend finds a scene by its file."""
    exact: bool = Field(default=False, exclude_if=lambda value: value is False)
    """Clips are stored without loss (PNG in MP4, which browsers do not play): what a model was taught on
    pixels straight from the scene, small ones above all, is then asked on the same pixels."""


class SourceSpec(Model):
    """One pool of questions."""

    name: Name
    """Of the pool; `sample_id` begins with it."""
    kind: Literal["video-r1", "official", "dataset", "demo", "benchmark"]
    """`dataset`: CSV, TSV, JSON, Parquet, Arrow, `save_to_disk`, `imagefolder` or the Hub; `video-r1`: JSON
    in the layout of Video-R1; `official`: the parts of the official release; `demo`: the synthetic world;
    `benchmark`: a declared benchmark, see docs/benchmarks.md."""
    path: str = ""
    """File, folder or glob; for `dataset` also a Hub id; relative to the recipe. Unused for `demo`; for
    `benchmark` its row files, and empty the data set on the Hub that its declaration names."""
    media_root: str = ""
    """Folder that the rows' `path` is relative to; relative to the recipe."""
    path_prefix: str = Field(default="", exclude_if=lambda value: not value)
    """Cut off the front of each row's `path`, where rows name the folders of another machine."""
    benchmark: str = Field(default="", exclude_if=lambda value: not value)
    """For `benchmark`: name of a packaged declaration, or a YAML file relative to the recipe."""
    layout: str = Field(default="", exclude_if=lambda value: not value)
    """For `benchmark`: the form of its row files; empty: by looking at them."""
    test_items: bool = Field(default=False, exclude_if=lambda value: value is False)
    """For `benchmark`: questions that models are measured by shall go into this data set. Whoever trains on
    it can no longer be measured by them."""
    columns: ColumnMapping = ColumnMapping()
    """Which column holds what."""
    answer_base: Literal[0, 1, "text", "letter"] | None = None
    """What a whole number means as the answer of a multiple-choice row: an index from 0, an index from 1, or
    the text of an option. None: read from the pool as a whole; a pool that leaves it open is refused.
    `letter`: every answer is a letter, also where an option's text is one; or an option with it, `B. x`."""
    problem_type: str | None = None
    """For rows without a column for it."""
    data_type: str | None = None
    """For rows without a column for it."""
    config: str | None = None
    """For `dataset`: its configuration."""
    split: str = "train"
    """For `dataset`: its split, where it has several."""
    revision: str | None = None
    """For a Hub id: commit or tag. A moving branch makes a build irreproducible."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first rows."""
    license: str = ""
    """Licence of the questions and media, for data sets that neither `licenses` nor the registry names."""
    licenses: dict[str, str] = Field(default_factory=dict)
    """For a pool that gathers several data sets: `data_source` -> its licence; counts before the registry."""
    demo: DemoSpec | None = None
    """For `demo`."""

    @property
    def has_parts(self) -> bool:
        """Whether its questions may be about a part of their clip."""
        # A benchmark's columns stand in its declaration.
        return self.kind == "benchmark" or (self.columns.start, self.columns.end) != (None, None)

    @model_validator(mode="after")
    def _kind_has_its_fields(self) -> Self:
        if self.kind not in ("demo", "benchmark") and not self.path:
            raise ValueError(f"source {self.name!r}: kind {self.kind!r} needs a path")
        if (self.kind == "benchmark") != bool(self.benchmark):
            told = "needs `benchmark`, a name" if self.kind == "benchmark" else "has no `benchmark`"
            raise ValueError(f"source {self.name!r}: kind {self.kind!r} {told}")
        return self


# --- the three steps, and the recipe as a whole ---

INIT_TODO = "# TODO (init):"
"""What `p2r-data init --from-data` writes in front of something that a person has to say."""


class GenerateSpec(Model):
    """Step 1."""

    backend: BackendSpec
    """Which model writes the traces."""
    prompt: str = "generate-v1"
    """Name of a packaged prompt, or path of a text file, relative to the recipe: see docs/prompts.md."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the first attempt."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Nucleus sampling; None: the server's default."""
    max_tokens: int = Field(default=1024, ge=1)
    """Tokens of a trace at most; a longer one is cut off and dropped."""
    seed: int | None = None
    """Sent with each call; None: none for the first attempt."""
    attempts: int = Field(default=1, ge=1, le=64)
    """Tries per question; the first that passes every step is kept."""
    temperature_step: float = Field(default=0.3, ge=0.0, le=1.0)
    """Attempt i is sampled at `temperature + i * temperature_step` (2.0 at most)."""


def _read_trace(value: Any, info: ValidationInfo) -> Any:
    """A grammar by its name, or from a file relative to the recipe; a mapping is the grammar itself."""
    if not isinstance(value, str):
        return value
    try:
        return load_grammar(value, base=(info.context or {}).get("base"))
    except ConfigError as error:
        raise ValueError(error.message) from None


def _compiles(value: TraceGrammar) -> TraceGrammar:
    try:
        trace_parser(value)
    except ConfigError as error:
        raise ValueError(error.message) from None
    sft_row_of(value)  # its segments become columns
    return value


GrammarField = Annotated[
    TraceGrammar,
    BeforeValidator(_read_trace),
    AfterValidator(_compiles),
    Field(exclude_if=lambda value: value == default_grammar()),
]
"""A trace grammar in a file of settings; left out of what is written down while it is the default."""


class WordBounds(Model):
    """Bounds of a segment's length in words, both inclusive."""

    min: int = Field(default=0, ge=0)
    """Fewest words."""
    max: int | None = Field(default=None, ge=1)
    """Most words; None: any number."""


class LengthSpec(Model):
    """Optional length check of the verify step."""

    observation: WordBounds = WordBounds()
    """Words of the observation."""
    think: WordBounds = WordBounds()
    """Words of the think segment."""
    answer: WordBounds = WordBounds()
    """Words of the answer."""
    segments: dict[str, WordBounds] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Words of segments of another grammar, by their names."""


class VerifySpec(Model):
    """Step 2."""

    policy: Policy = Policy()
    """How answers are scored."""
    threshold: float = Field(default=0.6, ge=0.0, le=1.0)
    """Scores below it are dropped [paper §7.2]."""
    think_answer_consistency: bool | None = None
    """Drop a trace whose think segment settles on another option; None: on for `robust`, off for `paper`."""
    observation_leaks: bool | None = None
    """Drop a trace whose observation states the answer as an answer, or says nothing; None: on for `robust`,
    off for `paper`."""
    length: LengthSpec = LengthSpec()
    """Bounds of the segments; without any, no length is refused."""
    field_values: bool | None = Field(default=None, exclude_if=lambda value: value is None)
    """Drop a trace with a typed value that cannot be: outside the clip or the frame, an end before its start;
    None: on for `robust`, off for `paper`. See docs/traces.md."""
    evidence_iou: Unit | None = Field(default=None, exclude_if=lambda value: value is None)
    """Where the reference is an interval or a box: drop a trace of which no span or box, outside the answer,
    has this intersection over union with it; None: not asked."""

    @property
    def checks_values(self) -> bool:
        """The effective setting of `field_values`."""
        robust = self.policy.profile == "robust"
        return robust if self.field_values is None else self.field_values

    @property
    def checks_leaks(self) -> bool:
        """The effective setting of `observation_leaks`."""
        robust = self.policy.profile == "robust"
        return robust if self.observation_leaks is None else self.observation_leaks

    @property
    def checks_consistency(self) -> bool:
        """The effective setting of `think_answer_consistency`."""
        robust = self.policy.profile == "robust"
        return robust if self.think_answer_consistency is None else self.think_answer_consistency


Signal = Literal["identity", "file", "frames", "text", "both"]
"""An id in a file name; equal files; alike frames at alike times; a question with its options; a question and
its clip, which one of the first three finds, together."""


class LeaveOut(Model):
    """Rows of the pool that a build leaves out."""

    rows: str
    """Parquet file or JSON lines with a column `sample_id`, as `p2r-data overlap` writes it; relative to the
    recipe."""
    signals: tuple[Signal, ...] = ("identity", "file", "frames", "both")
    """Where the file has a column `signal`: rows found by one of these."""
    benches: tuple[str, ...] = ()
    """Where the file has a column `bench`: rows found in one of these evaluation sets; empty: in any."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"rows": data} if isinstance(data, str) else data


class Recipe(Model):
    """Everything that a person decides about a build."""

    recipe: Literal[1] = 1
    """Version of this format."""
    name: Name
    """Name of the data set and of its folder."""
    title: str = ""
    """Heading of the card; empty: the name."""
    description: str = ""
    """First paragraph of the card."""
    license: str = "apache-2.0"
    """Licence of the traces, for the card."""
    version: str = Field(default="1.0.0", pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")
    """Of the data set, for the card and for tags."""
    changelog: tuple[str, ...] = ()
    """What each version brought, the newest first, for the card."""
    synthetic: bool = False
    """Marks every row and the card."""
    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    """Pools of questions, in the order in which they are read."""
    media: MediaSpec = MediaSpec()
    """How frames are sampled."""
    trace: GrammarField = Field(default_factory=default_grammar)
    """What a trace is made of: the name of a packaged grammar, a YAML file relative to the recipe, or the
    grammar itself: see docs/traces.md."""
    generate: GenerateSpec
    """Step 1: a model writes the traces."""
    verify: VerifySpec = VerifySpec()
    """Step 2: form and answer of a trace are checked."""
    judge: JudgeSpec | None = None
    """Step 3: a model judges the observations; None: skipped, and the card says so."""
    judges: tuple[NamedJudge, ...] = Field(default=(), exclude_if=lambda value: not value)
    """Step 3 with several judges, asked in this order until one refuses: see docs/evidence.md. `judge` is the
    short form of one."""
    leave_out: LeaveOut | None = Field(default=None, exclude_if=lambda value: value is None)
    """Rows that an evaluation set has too and that are not asked: a file of `p2r-data overlap`, or settings
    with it: see docs/overlap.md."""
    target: int | None = Field(default=None, ge=1)
    """Stop after this many accepted rows, in pool order."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars for the whole build, over all its runs."""

    @model_validator(mode="after")
    def _a_limit_needs_prices(self) -> Self:
        """A limit that nothing counts against would be no limit."""
        if self.max_cost is None:
            return self
        backends = self.backends
        for step, backend in backends.items():
            if backend.price is None and backend.declared.billed_by:
                owner = backend.declared.billed_by
                raise ValueError(f"max_cost needs {step}.backend.price: {owner}'s calls are never free")
        if all(backend.price is None for backend in backends.values()):
            raise ValueError(
                "max_cost needs a price in generate.backend or judge.backend: without one, no limit holds"
            )
        return self

    @model_validator(mode="after")
    def _checks_fit(self) -> Self:
        unknown = [name for name in self.verify.length.segments if name not in self.trace.named]
        if unknown:
            has = ", ".join(self.trace.named)
            raise ValueError(f"verify.length.segments names {', '.join(unknown)}; a trace has {has}")
        if self.media.look is not None and any(spec.sends_files for spec in self.backends.values()):
            raise ValueError("media.look and extra.video: file: a file is shown as it is, whatever look says")
        if self.verify.evidence_iou is not None and not trace_parser(self.trace).templates:
            raise ValueError(f"verify.evidence_iou: traces of {self.trace.name} have no typed fields")
        return self

    @model_validator(mode="after")
    def _judges_fit(self) -> Self:
        if self.judge is not None and self.judges:
            raise ValueError("judge and judges: name them all in judges")
        names_differ(self.judges)
        known = self.trace.named
        for role in (Role.PERCEPTION, Role.REASONING):
            reads = [judge.name for judge in self.all_judges if judge.role is role and not judge.reads]
            if reads and not self.trace.of_role(role):
                raise ValueError(
                    f"{', '.join(reads)}: traces of {self.trace.name} have no {role} segment to read; "
                    "name segments in reads, or leave the judge out"
                )
        for judge in self.judges:
            unknown = [name for name in judge.reads if name not in known]
            if unknown:
                has = ", ".join(known)
                raise ValueError(f"judge {judge.name!r} reads {', '.join(unknown)}; a trace has {has}")
            if any(backend.batch for backend in judge.backends.values()):
                raise ValueError(f"judge {judge.name!r}: batch: true takes one judge alone, as `judge`")
        return self

    @property
    def extra(self) -> Extra:
        """Columns of its data set that not every data set has."""
        return Extra(
            judged=bool(self.judges),
            parts=any(source.has_parts for source in self.sources),
            clips=not self.media.shows_ends,
        )

    @property
    def all_judges(self) -> tuple[NamedJudge, ...]:
        """The judges of step 3, in order; `judge` is a list of one."""
        return (NamedJudge(name="judge", **dict(self.judge)),) if self.judge is not None else self.judges

    @property
    def backends(self) -> dict[str, BackendSpec]:
        """Step -> settings of what answers it, for the steps that the recipe has."""
        found = {"generate": self.generate.backend}
        return found | {step: spec for judge in self.all_judges for step, spec in judge.backends.items()}

    def with_backends(self, change: Callable[[BackendSpec], BackendSpec]) -> Self:
        """The recipe with every backend changed."""
        update: dict[str, Any] = {
            "generate": self.generate.model_copy(update={"backend": change(self.generate.backend)}),
            "judges": tuple(judge.with_backends(change) for judge in self.judges),
        }
        if self.judge is not None:
            update["judge"] = self.judge.model_copy(update={"backend": change(self.judge.backend)})
        return self.model_copy(update=update)

    @field_validator("sources")
    @classmethod
    def _names_are_unique(cls, value: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        names = [s.name for s in value]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"source names must differ, repeated: {', '.join(twice)}")
        tests = [s.name for s in value if s.kind == "benchmark" and not s.test_items]
        if tests:
            raise ValueError(
                f"source {', '.join(tests)}: test items of a benchmark. A model that is trained on them can "
                "no longer be measured by them, nor can one that is trained on what such a model writes; if "
                "that is meant, set test_items: true on the source"
            )
        return value


def parse_recipe(text: str, *, where: str, base: Path | None = None) -> Recipe:
    """Read a recipe from YAML text; `base` is the folder that its files are relative to.

    Raises:
        ConfigError: every error of the file at once, each with its field.
    """
    # what `p2r-data init --from-data` left for a person to fill in
    lines = enumerate(text.splitlines(), 1)
    left = [f"\n  {where}:{n}: {x.partition(INIT_TODO)[2].strip()}" for n, x in lines if INIT_TODO in x]
    if left:
        raise ConfigError(
            f"{len(left)} thing(s) to fill in, which p2r-data init could not see{''.join(left)}",
            where=where,
            hint=f"write what is asked for, and delete the line `{INIT_TODO} ...`",
        )
    return parse_yaml(
        text,
        Recipe,
        where=where,
        valid="p2r-data init writes a valid recipe",
        allowed="p2r-data schema recipe prints what is allowed",
        base=base,
    )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: the file is missing, not UTF-8 or not valid.
    """
    return parse_recipe(read_settings(path), where=str(path), base=path.parent)
