"""Whom a recipe asks: the settings of a backend, and of the judges of step 3."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.calls import BACKENDS, BackendKind, MediaRecord, known_kind
from videop2r_data.schemas.grammar import Role
from videop2r_data.schemas.verdict import Unit

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]


WEIGHTS = "weights-"
"""Begins the `revision` of a folder that is known by a digest of its files."""


class Price(Model):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    """Tokens that are sent."""
    output: float = Field(ge=0)
    """Tokens that are written."""
    cache_read: float | None = Field(default=None, ge=0)
    """None: as `input`."""
    cache_write: float | None = Field(default=None, ge=0)
    """None: a quarter more than `input`, as Anthropic charges."""
    batch_factor: float = Field(default=0.5, ge=0, le=1)
    """Share of the price that a batched call costs."""


def _list_kinds(schema: dict[str, Any]) -> None:
    schema["enum"] = list(BACKENDS)


class BackendSpec(Model):
    """Which model answers, and how to reach it."""

    kind: Annotated[str, AfterValidator(known_kind), Field(json_schema_extra=_list_kinds)]
    """`openai`: any OpenAI-compatible server; `anthropic`: Claude; `gemini`: Gemini; `vllm` and
    `transformers`: in this process; `demo`: the synthetic world."""
    model: str = Field(min_length=1)
    """Model id, or a local folder for `vllm` and `transformers`."""
    base_urls: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """For `openai`: servers of the same model, each call asks the least loaded one: see docs/cluster.md."""
    base_url: str | None = Field(default_factory=lambda data: next(iter(data.get("base_urls", ())), None))
    """For `openai` (`http://host:8000/v1`), `anthropic` and `gemini`; not asked beside `base_urls`."""
    serve: str = Field(default="", exclude_if=lambda value: not value)
    """For `openai`: options of the `vllm serve` that `p2r-data build --serve` starts for this model, such as
    `--tensor-parallel-size 2 --max-model-len 16384`."""
    api_key_env: str | None = None
    """Environment variable that holds the key; the key itself never stands in a recipe."""
    batch: bool = False
    """The batch API of Anthropic, OpenAI or Gemini: half the price, hours of delay."""
    cache_prompt: bool = True
    """Anthropic prompt caching of the system prompt."""
    revision: str | None = None
    """Model revision, recorded in the lock."""
    concurrency: int = Field(default=64, ge=1, le=4096)
    """Calls in flight at most, at each server; the limiter may go lower."""
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
    `body` (more fields of the request), `max_tokens_field` and `video`: see docs/recipes.md; for `gemini`
    `body` and `video: file` (a clip goes as its own file): see docs/batches.md; for judges of kind `demo`
    `error_rate` and `error_seed`: see docs/demo-world.md."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.base_urls or self.serve) and (self.batch or not self.declared.needs_address):
            raise ValueError("base_urls and serve are for kind openai, without batch")
        shlex.split(self.serve)
        if self.batch and not self.declared.batches:
            takers = " or ".join(name for name, kind in BACKENDS.items() if kind.batches)
            raise ValueError(f"batch: true needs kind {takers}, not {self.kind!r}")
        if self.batch and self.sends_files:
            raise ValueError("extra.video: file takes batch: false: a batch may outlive the uploaded clips")
        if self.declared.needs_address and not self.base_url:
            raise ValueError(f"kind {self.kind} needs base_url, e.g. http://localhost:8000/v1")
        return self

    @property
    def sends_files(self) -> bool:
        """Whether clips go as their own files, of which the server takes frames itself."""
        return self.kind == "gemini" and self.extra.get("video") == "file"

    def wire_of(self, media: MediaRecord | None, encoded: str) -> str:
        """`media_encoding` of a request to this model, whose frames would be sent as `encoded`."""
        return "file" if self.sends_files and media is not None and media.data_type == "video" else encoded

    @property
    def identity(self) -> str:
        """`model` of its requests: of weights that are known by their digest that, wherever they lie."""
        revision = self.revision or ""
        return revision if revision.startswith(WEIGHTS) else self.model

    @property
    def calls_at_once(self) -> int:
        """Calls in flight at most, at all servers together."""
        return self.concurrency * max(1, len(self.base_urls))

    @property
    def declared(self) -> BackendKind:
        """What is known of backends of this kind before one is made."""
        return BACKENDS[self.kind]


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


Decides = Literal["sufficiency", "faithfulness", "blind", "conclusion"]
"""What a judge says: whether the answer follows from the observation; whether the observation's claims are
true of the media; whether the question can be answered without either; what the reasoning settles on."""
_DEFAULTS: dict[Decides, dict[str, Any]] = {
    "sufficiency": {"prompt": "judge-v1", "max_tokens": 512, "does": "filter"},
    "faithfulness": {"prompt": "faithfulness-v1", "max_tokens": 2048, "does": "filter"},
    "blind": {"prompt": "blind-v1", "max_tokens": 512, "does": "record"},
    "conclusion": {"prompt": "think-option-v1", "max_tokens": 512, "does": "record"},
}
"""What a judge is set to where its settings do not say, by what it decides."""
_FITS: dict[str, tuple[Decides, ...]] = {
    "panel": ("sufficiency", "faithfulness"),
    "need": ("sufficiency", "faithfulness"),
    "unsure_to": ("sufficiency", "faithfulness"),
    "reads": ("sufficiency", "faithfulness", "conclusion"),
    "claims_prompt": ("faithfulness",),
    "frames": ("faithfulness",),
    "min_score": ("faithfulness", "blind"),
}
"""Setting -> the judges that it belongs to."""


class NamedJudge(JudgeSpec):
    """One judge of a list."""

    name: Name
    """In tables, in the lock and in the column `judgements`."""
    decides: Decides = "sufficiency"
    """`sufficiency`: does the answer follow from the observation; `faithfulness`: is each claim of the
    observation true of the media; `blind`: can the question be answered from its text alone; `conclusion`:
    which answer does the reasoning settle on, read without anything else."""
    prompt: str = "judge-v1"
    """As in `judge`; where it is left out, the packaged prompt of what the judge decides."""
    claims_prompt: str | None = None
    """Prompt that takes an observation apart, for `faithfulness`; None: `claims-v1`."""
    max_tokens: int = Field(default=512, ge=16)
    """Tokens of a reply at most; 2048 for `faithfulness`, which has a line for each claim."""
    panel: tuple[BackendSpec, ...] = ()
    """More models that are asked the same as `backend`."""
    need: int | None = Field(default=None, ge=1)
    """Votes of the panel, `backend` among them, that a verdict takes; None: more than half."""
    unsure_to: BackendSpec | None = None
    """A dearer model that decides where the others give no verdict, differ, or cannot see a claim."""
    confirm: bool = False
    """`unsure_to` is asked where the others refuse or give no verdict, and not where they differ: what it
    does not refuse too is not refused."""
    reads: tuple[str, ...] = ()
    """Segments of the trace that it reads, by their names; empty: those with the role perception, or
    reasoning for `conclusion`."""
    does: Literal["filter", "record"] = "filter"
    """`filter`: what it refuses is no accepted row; `record`: its verdict is a column and nothing else. Where
    it is left out, `blind` and `conclusion` record and the others filter; `conclusion` only records, since a
    rule of step 2 filters."""
    min_score: Unit | None = None
    """`faithfulness`: share of supported claims below which the row is refused too; None: only a
    contradicted claim refuses. `blind`: score from which the blind answer is right; None: that of
    `verify.threshold`."""
    frames: int | None = Field(default=None, ge=1, le=2048)
    """Frames that a judge of `faithfulness` sees; None: those that the generator saw."""

    @model_validator(mode="before")
    @classmethod
    def _by_what_it_decides(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = _DEFAULTS.get(data.get("decides", "sufficiency"), {})
        return {key: value for key, value in known.items() if key not in data} | data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for setting, judges in _FITS.items():
            if getattr(self, setting) not in (None, ()) and self.decides not in judges:
                what = " or ".join(judges)
                raise ValueError(f"judge {self.name!r}: {setting} belongs to a judge of {what}")
        if self.decides == "conclusion" and self.does == "filter":
            why = "verify.think_answer_consistency refuses traces whose reasoning settles on another answer"
            raise ValueError(f"judge {self.name!r}: a judge of conclusion records; {why}")
        votes = 1 + len(self.panel)
        if self.need is not None and not self.panel:
            raise ValueError(f"judge {self.name!r}: need counts votes: name more models in panel")
        if self.need is not None and self.need > votes:
            raise ValueError(f"judge {self.name!r}: need is {self.need}, with {votes} models to vote")
        if self.confirm and self.unsure_to is None:
            raise ValueError(f"judge {self.name!r}: confirm says when unsure_to is asked: name that model")
        if self.decides == "faithfulness" and self.votes_needed * 2 <= votes:
            why = "a claim could be supported and contradicted at once"
            raise ValueError(f"judge {self.name!r}: need must be more than half of {votes}: else {why}")
        if self.name == "generate":
            raise ValueError("a judge cannot be called generate: step 1 is called so")
        return self

    @property
    def role(self) -> Role | None:
        """The segments that it reads where `reads` does not say; None: none at all."""
        found = {"blind": None, "conclusion": Role.REASONING}
        return found.get(self.decides, Role.PERCEPTION)

    @property
    def votes_needed(self) -> int:
        """Votes for a verdict."""
        return self.need or (1 + len(self.panel)) // 2 + 1

    @property
    def backends(self) -> dict[str, BackendSpec]:
        """Step -> settings of what answers it: the judge's name, `name/2` and so on for its panel, and
        `name/unsure` for the model that it turns to."""
        found = {self.name: self.backend}
        found |= {f"{self.name}/{n}": spec for n, spec in enumerate(self.panel, 2)}
        return found | ({f"{self.name}/unsure": self.unsure_to} if self.unsure_to else {})

    @property
    def models(self) -> dict[str, Self]:
        """Step -> its model as a judge of its own; of several, the first is called `name/1`."""
        alone: dict[str, Any] = {"panel": (), "need": None, "unsure_to": None}
        first = f"{self.name}/1" if len(self.backends) > 1 else self.name
        return {
            step: self.model_copy(
                update=alone | {"backend": spec, "name": first if step == self.name else step}
            )
            for step, spec in self.backends.items()
        }

    def with_backends(self, change: Callable[[BackendSpec], BackendSpec]) -> Self:
        """The judge with every backend changed."""
        update: dict[str, Any] = {
            "backend": change(self.backend),
            "panel": tuple(map(change, self.panel)),
            "unsure_to": change(self.unsure_to) if self.unsure_to else None,
        }
        return self.model_copy(update=update)


def judges_of_text(
    judges: Sequence[NamedJudge], name: str | None = None, *, where: str = ""
) -> list[NamedJudge]:
    """The models that can be asked about an observation alone, each as a judge of its own.

    Args:
        judges: of a recipe.
        name: of one judge, then all of its models; or of one model: `NAME/1`, `NAME/2`, `NAME/unsure`. None:
            of every judge of sufficiency.
        where: for the error.

    Raises:
        ConfigError: there is none, or the named one needs the clip, or other segments than the observation.
    """
    named = [
        (judge, model)
        for judge in judges
        for model in judge.models.values()
        if name in (None, judge.name, model.name)
    ]
    found = [model for judge, model in named if judge.decides == "sufficiency" and not judge.reads]
    if found:
        return found
    if name is not None and named:
        judge = named[0][0]
        what = f"reads {', '.join(judge.reads)}" if judge.reads else f"decides {judge.decides}"
        raise ConfigError(
            f"judge {name!r} {what}: an observation alone is not enough to ask it",
            where=where,
            hint="a build asks it, and with does: record it refuses nothing; its verdicts are in the column "
            "judgements, and judge-eval --dataset measures those on the clip",
        )
    which = f" {name!r}" if name is not None else " of sufficiency"
    has = f"it has {', '.join(judge.name for judge in judges)}; " if judges else ""
    raise ConfigError(
        f"the recipe has no judge{which}", where=where, hint=f"{has}give a judge's own settings"
    )


def names_differ(judges: Iterable[NamedJudge]) -> None:
    """ValueError if two judges have one name."""
    names = [judge.name for judge in judges]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the names of judges must differ, repeated: {', '.join(twice)}")
