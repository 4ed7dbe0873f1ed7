"""The recipe: everything that a person decides about a build, in one YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.inputs import ColumnMapping, DemoSpec, MediaLimits, MediaSpec, Name, SourceSpec
from videop2r_data.schemas.policy import Policy
from videop2r_data.schemas.yaml_file import parse_yaml, read_text

__all__ = [
    "BackendSpec",
    "ColumnMapping",
    "DemoSpec",
    "GenerateSpec",
    "JudgeSpec",
    "LengthSpec",
    "MediaLimits",
    "MediaSpec",
    "Name",
    "Price",
    "Recipe",
    "SourceSpec",
    "VerifySpec",
    "WordBounds",
    "load_recipe",
    "parse_recipe",
]


TODO = "# TODO (init):"
"""What `p2r-data init --from-data` writes in front of something that a person has to say."""


class Price(Model):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    """Tokens that are sent."""
    output: float = Field(ge=0)
    """Tokens that are written."""
    cache_read: float | None = Field(default=None, ge=0)
    """None: as `input`."""
    cache_write: float | None = Field(default=None, ge=0)
    """None: as `input`."""
    batch_factor: float = Field(default=0.5, ge=0, le=1)
    """Share of the price that a batched call costs."""


class BackendSpec(Model):
    """Which model answers, and how to reach it."""

    kind: Literal["openai", "vllm", "anthropic", "transformers", "demo"]
    """`openai`: any OpenAI-compatible server; `anthropic`: Messages and Message Batches; `vllm` and
    `transformers`: in this process; `demo`: the synthetic world."""
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
    """Calls begun within a minute at most; None: no limit but `concurrency`."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Tokens of the calls begun within a minute at most; None: no limit."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Deadline of one try."""
    retries: int = Field(default=6, ge=0)
    """Tries after the first, for transient errors."""
    server_wait_s: float = Field(default=600.0, ge=0)
    """Seconds to wait for a server that cannot be reached; 0: a failed try like any other."""
    price: Price | None = None
    """None: free (your own server)."""
    terms: str = ""
    """Licence or terms of use of what this model writes, for the card."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """For `vllm` and `transformers` constructor arguments (`tensor_parallel_size: 8`); for `openai` the keys
    `body` (more fields of the request), `max_tokens_field` and `video`: see docs/recipes.md."""

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

    @property
    def checks_leaks(self) -> bool:
        """The effective setting of `observation_leaks`."""
        if self.observation_leaks is None:
            return self.policy.profile == "robust"
        return self.observation_leaks

    @property
    def checks_consistency(self) -> bool:
        """The effective setting of `think_answer_consistency`."""
        if self.think_answer_consistency is None:
            return self.policy.profile == "robust"
        return self.think_answer_consistency


class JudgeSpec(Model):
    """Step 3."""

    backend: BackendSpec
    """Which model judges the observations; it gets no media."""
    prompt: str = "judge-v1"
    """Name of a packaged prompt, or path of a text file, relative to the recipe: see docs/prompts.md."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the verdict."""
    max_tokens: int = Field(default=512, ge=16)
    """Tokens of a verdict with its reason at most."""


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
    generate: GenerateSpec
    """Step 1: a model writes the traces."""
    verify: VerifySpec = VerifySpec()
    """Step 2: form and answer of a trace are checked."""
    judge: JudgeSpec | None = None
    """Step 3: a model judges the observations; None: skipped, and the card says so."""
    target: int | None = Field(default=None, ge=1)
    """Stop after this many accepted rows, in pool order."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars for the whole build, over all its runs."""

    @model_validator(mode="after")
    def _a_limit_needs_prices(self) -> Self:
        """A limit that nothing counts against would be no limit."""
        if self.max_cost is None:
            return self
        backends = {"generate": self.generate.backend}
        if self.judge is not None:
            backends["judge"] = self.judge.backend
        for step, backend in backends.items():
            if backend.price is None and backend.kind == "anthropic":
                raise ValueError(f"max_cost needs {step}.backend.price: Anthropic's calls are never free")
        if all(backend.price is None for backend in backends.values()):
            raise ValueError(
                "max_cost needs a price in generate.backend or judge.backend: without one, no limit holds"
            )
        return self

    @field_validator("sources")
    @classmethod
    def _names_are_unique(cls, value: tuple[SourceSpec, ...]) -> tuple[SourceSpec, ...]:
        names = [s.name for s in value]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"source names must differ, repeated: {', '.join(twice)}")
        return value


def parse_recipe(text: str, *, where: str) -> Recipe:
    """Read a recipe from YAML text.

    Raises:
        ConfigError: every error of the file at once, each with its field.
    """
    refuse_unfinished(text, where)
    return parse_yaml(
        text,
        Recipe,
        where=where,
        valid="p2r-data init writes a valid recipe",
        allowed="p2r-data schema recipe prints what is allowed",
    )


def refuse_unfinished(text: str, where: str) -> None:
    """Name every line that `p2r-data init --from-data` left for a person to fill in.

    Raises:
        ConfigError: there is one.
    """
    lines = enumerate(text.splitlines(), 1)
    left = [f"  {where}:{n}: {line.partition(TODO)[2].strip()}" for n, line in lines if TODO in line]
    if left:
        raise ConfigError(
            f"{len(left)} thing(s) to fill in, which p2r-data init could not see\n" + "\n".join(left),
            where=where,
            hint=f"write what is asked for, and delete the line `{TODO} ...`",
        )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        ConfigError: the file is missing, not UTF-8 or not valid.
    """
    return parse_recipe(read_text(path), where=str(path))
