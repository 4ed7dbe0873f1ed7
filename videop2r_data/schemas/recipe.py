"""The recipe: everything that a person decides about a build, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.policy import Policy

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]


class ColumnMapping(Model):
    """Which column of a foreign data set holds what; None: the field has no column there."""

    problem_id: str | None = "problem_id"
    problem: str = "problem"
    problem_type: str | None = "problem_type"
    data_type: str | None = "data_type"
    options: str | None = "options"
    solution: str = "solution"
    path: str | None = "path"
    data_source: str | None = "data_source"


class SourceSpec(Model):
    """One pool of questions."""

    name: Name
    kind: Literal["video-r1", "official", "dataset", "demo"]
    path: str = ""
    """File, folder or glob; for `dataset` a Hub id or a folder; relative to the recipe. Unused for `demo`."""
    media_root: str = ""
    """Folder that the rows' `path` is relative to; relative to the recipe."""
    columns: ColumnMapping = ColumnMapping()
    """For `dataset`."""
    problem_type: str | None = None
    """For rows without a column for it."""
    data_type: str | None = None
    """For rows without a column for it."""
    config: str | None = None
    """For `dataset`: its configuration."""
    split: str = "train"
    """For `dataset`."""
    revision: str | None = None
    """For a Hub id: commit or tag. A moving branch makes a build irreproducible."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first rows."""
    license: str = ""
    """Licence of the questions and media, for the card."""
    demo: DemoSpec | None = None
    """For `demo`."""

    @model_validator(mode="after")
    def _kind_has_its_fields(self) -> Self:
        if self.kind != "demo" and not self.path:
            raise ValueError(f"source {self.name!r}: kind {self.kind!r} needs a path")
        return self


class DemoSpec(Model):
    """Settings of the synthetic world."""

    rows: int = Field(default=240, ge=1)
    seed: int = 0
    defect_rate: float = Field(default=0.35, ge=0.0, le=1.0)
    """Share of rows whose trace carries a planted defect."""
    side: int = Field(default=112, ge=16)
    """Height and width of a frame, pixels."""
    frames: int = Field(default=24, ge=2)
    """Frames of a clip."""
    fps: int = Field(default=8, ge=1)
    max_objects: int = Field(default=3, ge=1, le=3)
    noise: bool = False
    """Off: the background is one exact colour."""
    background: Literal["zero", "varied"] = "zero"
    """`zero`: the colour that Qwen's normalisation maps to (almost) 0; `varied`: another grey in each scene."""
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
    """Questions name their scene (`In clip 17, ...`): the `demo` backend finds the scene by it."""


class MediaLimits(Model):
    """What a file may cost before it costs its row."""

    max_bytes: int = Field(default=4 * 2**30, ge=1)
    max_side: int = Field(default=8192, ge=1)
    """Source width or height, pixels."""
    max_duration_s: float = Field(default=6 * 3600.0, gt=0)
    max_packets: int = Field(default=2_000_000, ge=1)
    max_bad_packets: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of packets that fail to decode above which the clip is refused."""
    wall_s: float = Field(default=120.0, gt=0)
    """Seconds of wall-clock for one file, then its decoder process is killed."""
    memory_mb: int = Field(default=4096, ge=256)
    """Address space of a decoder process."""


class MediaSpec(Model):
    """How frames are sampled."""

    decoder: Literal["pyav", "decord"] = "pyav"
    frames: int = Field(default=16, ge=1, le=2048)
    """N, uniformly spaced; a clip with fewer shown frames gives each of them once."""
    max_pixels: int = Field(default=128 * 28 * 28, ge=28 * 28)
    """Pixel budget of one frame, after resizing."""
    min_pixels: int = Field(default=4 * 28 * 28, ge=1)
    factor: int = Field(default=28, ge=1)
    """Sides are multiples of it (Qwen2.5-VL: 28, Qwen3-VL: 32)."""
    image_max_pixels: int | None = Field(default=None, ge=28 * 28)
    """Pixel budget of an image; None: that of a frame."""
    encoding: Literal["jpeg", "png"] = "jpeg"
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality."""
    workers: int = Field(default=0, ge=0)
    """Decoder processes; 0: one per core. Changes no output."""
    limits: MediaLimits = MediaLimits()

    @property
    def wire(self) -> str:
        """How frames are encoded on the wire, e.g. `jpeg-95`."""
        return f"jpeg-{self.quality}" if self.encoding == "jpeg" else "png"


class Price(Model):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float | None = Field(default=None, ge=0)
    """None: as `input`."""
    cache_write: float | None = Field(default=None, ge=0)
    """None: as `input`."""
    batch_factor: float = Field(default=0.5, ge=0, le=1)
    """Share of the price that a batched call costs."""


class BackendSpec(Model):
    """Which model answers, and how to reach it."""

    kind: Literal["openai", "vllm", "anthropic", "transformers", "demo"]
    model: str = Field(min_length=1)
    """Model id, or a local folder for `vllm` and `transformers`."""
    base_url: str | None = None
    """For `openai` (`http://host:8000/v1`) and `anthropic`."""
    api_key_env: str | None = None
    """Environment variable that holds the key; the key itself never stands in a recipe."""
    batch: bool = False
    """Anthropic Message Batches: half the price, hours of delay."""
    cache_prompt: bool = True
    """Anthropic prompt caching of the system prompt."""
    revision: str | None = None
    """Model revision, recorded in the lock."""
    concurrency: int = Field(default=64, ge=1, le=4096)
    """Calls in flight at most; the limiter may go lower."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    """Deadline of one try."""
    retries: int = Field(default=6, ge=0)
    """Tries after the first, for transient errors."""
    price: Price | None = None
    """None: free (your own server)."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Constructor arguments for `vllm` and `transformers` (e.g. `tensor_parallel_size: 8`)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch and self.kind != "anthropic":
            raise ValueError(f"batch: true needs kind anthropic, not {self.kind!r}")
        if self.kind == "openai" and not self.base_url:
            raise ValueError("kind openai needs base_url, e.g. http://localhost:8000/v1")
        return self


class GenerateSpec(Model):
    """Step 1."""

    backend: BackendSpec
    prompt: str = "generate-v1"
    """Name of a packaged prompt, or path of a text file."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    max_tokens: int = Field(default=1024, ge=1)
    seed: int | None = None
    attempts: int = Field(default=1, ge=1, le=64)
    """Tries per question; the first that passes every step is kept."""
    temperature_step: float = Field(default=0.3, ge=0.0, le=1.0)
    """Attempt i is sampled at `temperature + i * temperature_step` (2.0 at most)."""


class WordBounds(Model):
    """Bounds of a segment's length in words, both inclusive."""

    min: int = Field(default=0, ge=0)
    max: int | None = Field(default=None, ge=1)


class LengthSpec(Model):
    """Optional length check of the verify step."""

    observation: WordBounds = WordBounds()
    think: WordBounds = WordBounds()
    answer: WordBounds = WordBounds()


class VerifySpec(Model):
    """Step 2."""

    policy: Policy = Policy()
    threshold: float = Field(default=0.6, ge=0.0, le=1.0)
    """Scores below it are dropped [paper §7.2]."""
    think_answer_consistency: bool | None = None
    """Drop a trace whose think segment settles on another option; None: on for `robust`, off for `paper`."""
    length: LengthSpec = LengthSpec()

    @property
    def checks_consistency(self) -> bool:
        """The effective setting."""
        if self.think_answer_consistency is None:
            return self.policy.profile == "robust"
        return self.think_answer_consistency


class JudgeSpec(Model):
    """Step 3."""

    backend: BackendSpec
    prompt: str = "judge-v1"
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    max_tokens: int = Field(default=512, ge=16)


class Recipe(Model):
    """Everything that a person decides about a build."""

    recipe: Literal[1] = 1
    """Version of this format."""
    name: Name
    """Name of the data set and of its folder."""
    title: str = ""
    description: str = ""
    license: str = "apache-2.0"
    synthetic: bool = False
    """Marks every row and the card."""
    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    media: MediaSpec = MediaSpec()
    generate: GenerateSpec
    verify: VerifySpec = VerifySpec()
    judge: JudgeSpec | None = None
    """None: step 3 is skipped, and the card says so."""
    target: int | None = Field(default=None, ge=1)
    """Stop after this many accepted rows, in pool order."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars for the whole build, over all its runs."""

    @field_validator("sources")
    @classmethod
    def _names_are_unique(cls, value: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        names = [s.name for s in value]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"source names must differ, repeated: {', '.join(twice)}")
        return value


SourceSpec.model_rebuild()
Recipe.model_rebuild()


def parse_recipe(text: str, *, where: str) -> Recipe:
    """Read a recipe from YAML text.

    Raises:
        ConfigError: every error of the file at once, each with its field.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"not YAML: {error}", where=where, hint="p2r-data init writes a valid recipe"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(
            "a recipe is a YAML mapping", where=where, hint="p2r-data init writes a valid recipe"
        )
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(recipe)'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            f"{len(lines)} error(s) in the recipe\n" + "\n".join(lines),
            where=where,
            hint="p2r-data schema recipe prints what is allowed",
        ) from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: the file is missing, not UTF-8 or not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recipe: {error}", where=str(path)) from None
    return parse_recipe(text, where=str(path))
