"""A training recipe: every decision of a run in one YAML file. Reading it loads no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from pydantic import Field, model_validator

from videop2r_data.schemas import Model, Name, Policy
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.specs import EvalSpec
from videop2r_data.trainer.judging.specs import JudgingSpec
from videop2r_data.trainer.model.specs import PolicySpec
from videop2r_data.trainer.process.specs import LossSpec, ObjectiveSpec, RewardSpec
from videop2r_data.trainer.rollout.specs import SamplingSpec
from videop2r_data.trainer.rollout.vllm_specs import VllmSpec
from videop2r_data.trainer.run.specs import BatchSpec, OptimSpec, RlSpec, SaveSpec
from videop2r_data.trainer.run.trackers import TRACKERS

Stage = Literal["sft", "rl"]
_RL_ONLY = ("rl", "objective", "rewards", "loss", "sampling", "vllm", "judging", "scoring", "reference")
_NO_MATTER = ("name", "output", "trackers", "save", "title", "eval_every", "evaluation", "evaluating", "vllm")
"""Settings that change nothing about the weights: a run may go on under others."""
_NO_MATTER_IN = {
    "data": ("source", "media_root", "workers", "ahead"),
    "batch": ("micro",),
    "judging": ("cache", "concurrency", "deadline_s", "max_cost", "on_max_cost"),
    "model": ("model", "gradient_checkpointing"),
}


class TrainRecipe(Model):
    """Everything that a person decides about one stage of training."""

    train: Literal[1] = 1
    """Version of this format."""
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

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = [*self._length(), *self._precision(), *self._stage(), *self._names()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _length(self) -> list[str]:
        if (self.steps is None) == (self.epochs is None):
            return ["set one of steps and epochs"]
        if self.epochs is not None and self.data.is_demo:
            return ["source: demo never ends: set steps, not epochs"]
        return []

    def _precision(self) -> list[str]:
        """An update of 1e-6 is far below half a unit in the last of bf16's 8 bits: weights stand still."""
        if self.model.lora is None and self.model.dtype != "float32":
            return [
                f"model.dtype {self.model.dtype} with all weights trained loses updates of lr "
                f"{self.optim.lr:g} to rounding: set model.dtype: float32 (precision: bf16 computes in bf16 "
                "over float32 master weights), or train adapters (model.lora)"
            ]
        return []

    def _stage(self) -> list[str]:
        found = []
        if self.stage == "sft":
            extra = [name for name in _RL_ONLY if name in self.model_fields_set]
            if extra:
                found.append(f"stage sft has no {', '.join(extra)}: drop them, or set stage: rl")
            if self.data.config != "sft":
                found.append("stage sft learns traces: set data.config: sft")
            return found
        if self.objective.uses_perception and self.judging.kind == "none":
            found.append(
                f"objective {self.objective.name} pays perception: set judging.kind (backend or demo), or "
                "choose an objective without it (grpo, t-grpo, no-perception)"
            )
        try:
            self.objective.check_style(self.data.style)
        except ValueError as error:
            found.append(str(error))
        if self.sampling.temperature == 0:
            found.append("sampling.temperature 0 makes all rollouts of a group equal: nothing to learn from")
        if self.batch.size % self.rl.minibatches:
            found.append(f"rl.minibatches {self.rl.minibatches} does not divide batch.size {self.batch.size}")
        return found

    def _names(self) -> list[str]:
        unknown = sorted(set(self.trackers) - set(TRACKERS))
        found = (
            [f"unknown trackers {', '.join(unknown)} (there are {', '.join(TRACKERS)})"] if unknown else []
        )
        if bool(self.eval_every) != (self.evaluation is not None):
            found.append("evaluation and eval_every belong together: set both or none")
        return found

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.output or f"runs/{self.name}")

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that decide what the weights become; a run goes on only under equal ones.

        Where files lie does not count: the data are compared by their digest.
        """
        data = self.model_dump(mode="json", exclude_defaults=False)
        out = {key: value for key, value in data.items() if key not in _NO_MATTER}
        if self.stage == "sft":
            out = {key: value for key, value in out.items() if key not in _RL_ONLY}
        for part, names in _NO_MATTER_IN.items():
            if isinstance(out.get(part), dict):
                out[part] = {key: value for key, value in out[part].items() if key not in names}
        judge = out.get("judging", {}).get("backend")
        if isinstance(judge, dict):
            del judge["server_wait_s"]  # patience, which runs of older versions do not name
        return out

    @property
    def digest(self) -> str:
        """sha256 of `identity`, 64 hex digits."""
        return hashlib.sha256(orjson.dumps(self.identity, option=orjson.OPT_SORT_KEYS)).hexdigest()


def differences(old: dict[str, Any], new: dict[str, Any], path: str = "") -> list[str]:
    """Settings that differ, one line each.

    >>> differences({"optim": {"lr": 1.0}, "seed": 0}, {"optim": {"lr": 2.0}, "seed": 0})
    ['optim.lr: 1.0 -> 2.0']
    """
    lines = []
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        where = f"{path}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            lines += differences(one, other, where + ".")
        elif one != other:
            lines.append(f"{where}: {one} -> {other}")
    return lines
