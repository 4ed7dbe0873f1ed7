"""A training recipe: every decision of a run in one YAML file, checked as a whole. Loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import Field, model_validator

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import (
    Model,
    Name,
    Policy,
    default_grammar,
    expanded,
    is_file,
    parse_mapping,
    parse_set,
    read_settings,
    validate_settings,
)
from videop2r_data.trainer.settings.objectives import OBJECTIVES, TAKEN, names_where, trace_streams
from videop2r_data.trainer.settings.parts import (
    TRACKERS,
    BatchSpec,
    DataSpec,
    EvalSpec,
    OptimSpec,
    PolicySpec,
    RlSpec,
    SaveSpec,
)
from videop2r_data.trainer.settings.rl import (
    AlarmSpec,
    JudgingSpec,
    LossSpec,
    ObjectiveSpec,
    RewardSpec,
    SamplingSpec,
    VllmSpec,
)
from videop2r_data.trainer.settings.section import Section, unless

RECIPE, FINAL = "recipe.yaml", "final"
"""In the folder of a run: its effective recipe, and the model once it is complete."""
Stage = Literal["sft", "rl"]
_RL_ONLY = (
    "rl", "objective", "rewards", "loss", "sampling", "vllm", "judging", "scoring", "reference", "alarms",
)  # fmt: skip
# runs of older versions lack them
_WAIT = {"backend": dict.fromkeys(("server_wait_s", "base_urls", "serve"), True)}
_NO_MATTER: dict[str, Any] = {
    **dict.fromkeys(("name", "output", "trackers", "save", "title", "vllm", "alarms"), True),
    **dict.fromkeys(("evaluation", "evaluating", "eval_every"), True),
    "data": {"source", "media_root", "workers", "ahead", "pass_rate"},
    "batch": {"micro"},
    "optim": {"max_skipped"},
    "judging": dict.fromkeys(
        ("record", "cache", "concurrency", "deadline_s", "max_cost", "on_max_cost"), True
    )
    | {**_WAIT, "faithfulness": _WAIT},
    "model": {"model", "gradient_checkpointing"},
}
"""Settings that do not affect the weights: a run may go on with other values."""


class TrainRecipe(Section):
    """Everything that a person decides about one stage of training."""

    train: Literal[1] = 1
    """Version of this format."""
    extends: str = Field(default="", exclude=True)
    """In a file: a packaged recipe, or another file, whose settings hold where this one says nothing."""
    name: Name
    """Of the run, and of its folder unless `output` says another."""
    stage: Stage
    """`sft`: fine-tuning on traces; `rl`: PA-GRPO and its ablations."""
    title: str = ""
    """Heading of the model card; empty: the name."""
    data: DataSpec
    """What is trained on."""
    model: PolicySpec
    """What is trained."""
    optim: OptimSpec = OptimSpec()
    """AdamW and its learning rate."""
    batch: BatchSpec = BatchSpec()
    """How many rows make a step."""
    steps: int | None = Field(default=None, ge=1)
    """Steps of the run: one update in SFT, one rollout batch in RL. Set this or `epochs`."""
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the data; the demo stream has no end and needs `steps`."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """What is computed in; the weights are held in `model.dtype`. `auto`: bf16 on a GPU that has it."""
    rl: RlSpec = RlSpec()
    """RL: groups, updates and what becomes of collapsed groups."""
    objective: ObjectiveSpec = ObjectiveSpec()
    """RL: which rewards reach which tokens."""
    rewards: RewardSpec = RewardSpec()
    """RL: what is rewarded, and how much."""
    scoring: Policy = Policy()
    """How strict answers are graded: the profile and switches of the validators."""
    loss: LossSpec = LossSpec()
    """RL: clipping, the KL term, and over what the loss is averaged."""
    sampling: SamplingSpec = SamplingSpec()
    """RL: how completions are drawn, and by which engine."""
    vllm: VllmSpec = VllmSpec()
    """Of `sampling.backend: vllm` and `vllm-server`."""
    judging: JudgingSpec = JudgingSpec()
    """A judge that is named is asked under every objective; where perception is not paid, for the log."""
    alarms: AlarmSpec = Field(**unless(AlarmSpec()))
    """RL: whether observations still depend on the clip, measured on a small sample."""
    reference: str = ""
    """Model that the KL term holds on to; empty: where the run starts [paper eq. 6]."""
    evaluation: DataSpec | None = None
    """Held-out questions; needs `eval_every`."""
    evaluating: EvalSpec = EvalSpec()
    """How they are answered and graded."""
    eval_every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0: none."""
    save: SaveSpec = SaveSpec()
    """Checkpoints and recorded samples."""
    trackers: tuple[str, ...] = ()
    """`tensorboard`, `trackio`, `wandb`, beside `metrics.jsonl`, which is always written."""
    seed: int = Field(default=0, ge=0)
    """Of every draw: order of the data, sampling, new weights."""
    output: str = ""
    """The run's folder; empty: `runs/NAME`."""

    @model_validator(mode="before")
    @classmethod
    def _as_the_objective(cls, data: Any) -> Any:
        """Settings that belong to the objective, where the recipe does not say them itself."""
        named = data.get("objective") if isinstance(data, dict) and data.get("stage") == "rl" else None
        name = named.get("name") if isinstance(named, dict) else getattr(named, "name", None)
        if not isinstance(name, str) or name not in OBJECTIVES:
            return data
        filled = dict(data)
        for section, values in OBJECTIVES[name].settings.items():
            own = data.get(section) or {}
            if isinstance(own, Model):
                own = own.model_dump(include=own.model_fields_set)
            filled[section] = {**values, **own} if isinstance(own, dict) else own
        return filled

    def _problems(self) -> Iterator[str]:
        if self.extends:
            yield "extends is for files: load_train_recipe reads them"
        if (self.steps is None) == (self.epochs is None):
            yield "set one of steps and epochs"
        elif self.epochs is not None and self.data.is_demo:
            yield "source: demo never ends: set steps, not epochs"
        yield from self._problems_of_weights()
        yield from self._problems_of_trace()
        yield from self._problems_of_sft() if self.stage == "sft" else self._problems_of_rl()
        if unknown := sorted(set(self.trackers) - set(TRACKERS)):
            yield f"unknown trackers {', '.join(unknown)} (there are {', '.join(TRACKERS)})"
        if bool(self.eval_every) != (self.evaluation is not None):
            yield "evaluation and eval_every belong together: set both or none"

    def _problems_of_weights(self) -> Iterator[str]:
        kind, dtype, whole = self.optim.kind, self.model.dtype, self.model.lora is None
        rounded = kind == "adamw" or (kind == "adamw-8bit" and dtype == "float16")
        # an update of 1e-6 is lost in bf16's 8 bits: the weights would not move
        if whole and dtype != "float32" and rounded:
            yield (
                f"model.dtype {dtype} with all weights trained loses updates of lr {self.optim.lr:g} to "
                "rounding: set model.dtype: float32 (precision: bf16 computes in bf16 over float32 master "
                "weights), or model.dtype: bfloat16 with optim.kind: adamw-master, adamw-host or adamw-8bit, "
                "or train adapters (model.lora)"
            )
        if kind in ("adamw-master", "adamw-host") and (dtype == "float32" or not whole):
            yield f"optim.kind {kind} keeps float32 copies, and what trains is float32: set optim.kind: adamw"

    def _problems_of_trace(self) -> Iterator[str]:
        grammar = self.data.grammar
        if self.data.style == "agnostic" and grammar != default_grammar():
            yield (
                f"style agnostic leaves out the observation of the default trace, and data.trace is "
                f"{grammar.name}: declare a trace without perception, e.g. data.trace: think-answer"
            )
        if taken := sorted(TAKEN.intersection(grammar.streams)):
            yield f"trace {grammar.name}: {', '.join(taken)} name other metrics: rename the stream"

    def _problems_of_sft(self) -> Iterator[str]:
        if extra := [name for name in _RL_ONLY if name in self.model_fields_set]:
            yield f"stage sft has no {', '.join(extra)}: drop them, or set stage: rl"
        if self.data.config != "sft":
            yield "stage sft learns traces: set data.config: sft"

    def _problems_of_rl(self) -> Iterator[str]:
        name, entry = self.objective.name, self.objective.entry
        streams = trace_streams(self.data.grammar)
        if entry.judged(streams) and not self.judging.pays:
            others = names_where(lambda entry: not entry.judged(streams) and bool(entry.earned(streams)))
            yield (
                f"objective {name} pays perception: set judging.kind (backend or demo), or "
                f"judging.reward: self, or choose an objective without it ({others})"
            )
        if not entry.earned(streams):
            yield f"objective {name} pays nothing: trace {self.data.grammar.name} has no such stream"
        if unknown := sorted(set(self.rewards.bounds) - {stream.name for stream in streams}):
            known = ", ".join(stream.name for stream in streams)
            yield f"rewards.bounds of {', '.join(unknown)}: the streams of the trace are {known}"
        if self.data.style == "agnostic" and entry.needs_observation:
            yield (
                f"objective {name!r} pays for observations, and style 'agnostic' has none: "
                f"use {names_where(lambda entry: not entry.needs_observation)}, or style 'process'"
            )
        if self.alarms.seeing and self.judging.kind == "none":
            yield "alarms.seeing asks a judge that sees: set judging.kind (backend or demo)"
        if self.sampling.temperature == 0:
            yield "sampling.temperature 0 makes all rollouts of a group equal: nothing to learn from"
        if self.rl.redraws and entry.shuffles:
            yield f"rl.redraws is not worked out for {name}, whose groups are drawn in pairs: set it to 0"
        if self.rl.redraws and self.rl.ahead:
            yield "rl.redraws asks all processes for the verdicts while rl.ahead draws beside them: set one"
        if self.rl.ahead and self.sampling.backend != "vllm-server":
            shared = {"hf": "those very weights", "vllm": "the GPU and the process of the update"}
            yield (
                f"rl.ahead draws while the weights change, and backend {self.sampling.backend} draws with "
                f"{shared[self.sampling.backend]}: set sampling.backend: vllm-server"
            )
        if self.correction and self.sampling.backend != "hf" and self.sampling.logprobs_mode is None:
            yield (
                "loss.correction compares log-probabilities over the whole vocabulary; vLLM tells none "
                "of a sampling.temperature with a top_p or top_k: set temperature: 1, or top_p: 1, top_k: 0"
            )
        if self.batch.size % self.rl.minibatches:
            yield f"rl.minibatches {self.rl.minibatches} does not divide batch.size {self.batch.size}"

    @property
    def held_out(self) -> DataSpec | None:
        """The held-out questions: their completions are traces of the grammar that is trained."""
        if self.evaluation is None or self.evaluation.grammar == self.data.grammar:
            return self.evaluation
        return self.evaluation.model_copy(update={"trace": self.data.grammar})

    @property
    def models(self) -> Iterator[tuple[str, str, str | None]]:
        """Setting, name and revision of each model that is loaded here."""
        yield "model.model", self.model.model, self.model.revision
        if self.reference:
            yield "reference", self.reference, None
        for field, backend in self.judging.backends.items():
            if backend.declared.libraries:
                yield f"judging.{field}.model", backend.model, backend.revision

    @property
    def correction(self) -> Literal["ratio", "tis"] | None:
        """`loss.correction`; one step ahead is always corrected."""
        return self.loss.correction or ("ratio" if self.rl.ahead else None)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output or f"runs/{self.name}")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that affect the weights; a run goes on only with equal ones. Data have a digest."""
        unused = dict.fromkeys(_RL_ONLY if self.stage == "sft" else (), True)
        return self.model_dump(mode="json", exclude=_NO_MATTER | unused)

    @property
    def digest(self) -> str:
        """sha256 of `identity`, 64 hex digits."""
        return hashlib.sha256(orjson.dumps(self.identity, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """Settings that differ, one line each: `optim.lr: 1.0 -> 2.0`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += differences(one, other, f"{path}{key}.")
        elif one != other:
            lines.append(f"{path}{key}: {one} -> {other}")
    return lines


_RECIPES = Path(__file__).parents[1] / "recipes"
_PATHS = (
    "data.source", "data.media_root", "data.prompt", "data.trace", "data.pass_rate.file", "model.model",
    "evaluation.source", "evaluation.media_root", "evaluation.prompt", "evaluation.trace",
    "evaluation.pass_rate.file", "reference", "judging.cache", "judging.prompt",
    "judging.faithfulness.prompt", "judging.faithfulness.claims_prompt",
)  # fmt: skip
"""Settings that may name a file or folder; in a recipe file they are relative to it."""
_OTHER = {"steps": "epochs", "epochs": "steps"}
_ALLOWED = "p2r-train schema prints what is allowed"


def load_train_recipe(
    name: str | Path, *, sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
) -> TrainRecipe:
    """A packaged recipe by its name, or a file, with changes from the command line.

    Paths that exist become absolute: those of a file from its folder, the others from the working directory.

    Args:
        name: of `list_train_recipes()`, or the path of a YAML file.
        sets: changes as `key.path=value`; the value is read as YAML (`optim.lr=1e-5`, `trackers=[wandb]`).
        flags: changes as `{"key.path": value}`; None leaves a setting alone. They win over `sets`.

    Raises:
        ConfigError: no such recipe, a change of something that is not there, or values that do not fit.
    """
    data, text, where = _read(str(name), Path())
    changes = [parse_set(one) for one in sets]
    changes += [(key, value) for key, value in (flags or {}).items() if value is not None]
    for key, value in changes:
        _put(data, key, value)
    _resolve(data, Path.cwd())
    flagged = f"{where} with the flags of the command" if changes else where
    return validate_settings(
        data, TrainRecipe, where=flagged, what="training recipe", allowed=_ALLOWED, text=text, file=where
    )


def _read(name: str, base: Path, *, inner: tuple[str, ...] = ()) -> tuple[dict[str, Any], str, str]:
    """Settings of a recipe, packaged or a file from `base`, over those that it extends; its own text; what to
    call it in errors. `inner` is what extends it."""
    path = base / name
    if is_file(path):
        text, where, base = read_settings(path), str(path), path.resolve().parent
    elif name in (known := list_train_recipes()):
        text, where, base = train_recipe_text(name), f"packaged recipe {name}", Path.cwd()
    else:
        raise ConfigError(
            f"no training recipe {name!r}: neither a file nor one of {', '.join(known)}",
            where=f"{inner[-1]}, extends" if inner else None,
            hint="p2r-train recipes lists them, p2r-train init NAME writes one to start from",
        )
    if where in inner:
        raise ConfigError("a recipe that extends itself", where=where, hint="drop one `extends`")
    data = parse_mapping(
        text, where=where, what="training recipe", valid="p2r-train init NAME writes a valid recipe"
    )
    _resolve(data, base)
    if data.get("extends") and isinstance(data["extends"], str):
        below, _, _ = _read(data.pop("extends"), base, inner=(*inner, where))
        for end in _OTHER.keys() & data.keys():
            below.pop(_OTHER[end], None)
        data = _over(below, data)
    return data, text, where


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings over others, section by section; one of another `kind` shares nothing with the one below."""
    out = dict(below)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            same = value.get("kind", under.get("kind")) == under.get("kind")
            value = _over(under, value) if same else value  # noqa: PLW2901 - its new value
        out[key] = value
    return out


def recipe_yaml(recipe: TrainRecipe) -> str:
    """The settings that are not the defaults, as YAML that loads to an equal recipe."""
    data = {"train": recipe.train, **recipe.model_dump(mode="json", exclude_defaults=True)}
    # what an objective brings is said even where it is the default: left out, it would be the objective's
    for section, values in recipe.objective.entry.settings.items():
        said = {name: getattr(getattr(recipe, section), name) for name in values}
        data[section] = {**data.get(section, {}), **said}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def _put(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a nested value; sections that the recipe leaves to their defaults are made."""
    *parts, last = key.split(".")
    place = data
    for part in parts:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise ConfigError(f"{part} holds no settings", where=key, hint=_ALLOWED)
    if key in _OTHER and value is not None:
        data.pop(_OTHER[key], None)
    place[last] = value


def _resolve(data: dict[str, Any], base: Path) -> None:
    """Make paths absolute that exist under `base`; names of other things (Hub ids, prompts) stay."""
    for *parts, last in (path.split(".") for path in _PATHS):
        place: Any = data
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        value = place.get(last) if isinstance(place, dict) else None
        if isinstance(value, str | Path) and str(value) and not Path(value).is_absolute():
            found = base / expanded(value)
            # a folder that is called as a packaged grammar is no grammar
            if found.is_file() if last == "trace" else found.exists():
                place[last] = str(found.resolve())


def list_train_recipes() -> list[str]:
    """Names of the packaged training recipes, in alphabetical order."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def train_recipe_text(name: str) -> str:
    """A packaged training recipe as YAML text, comments included; ConfigError: there is none of this name."""
    known = list_train_recipes()
    if name not in known:
        raise ConfigError(
            f"no packaged training recipe {name!r}, there are: {', '.join(known)}",
            hint="give one of these names, or the path of a recipe file",
        )
    return (_RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def accelerate_configs() -> dict[str, Path]:
    """Name -> file of every packaged config, in alphabetical order."""
    return {path.stem: path for path in sorted((_RECIPES.parent / "accelerate").glob("*.yaml"))}
