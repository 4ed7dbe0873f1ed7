"""Settings that both stages share: data, model, optimizer, batches, saving, evaluation. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field, field_validator

from videop2r_data.files import built_grammar
from videop2r_data.schemas import (
    DemoSpec,
    GrammarField,
    MediaSpec,
    Model,
    Policy,
    TraceGrammar,
    default_grammar,
    validate_settings,
)
from videop2r_data.trainer.settings.rl import SamplingSpec
from videop2r_data.trainer.settings.section import Section, unless

TRACKERS = ("tensorboard", "trackio", "wandb")
VISION_TARGETS = ("qkv", "proj", "gate_proj", "up_proj", "down_proj", "linear_fc1", "linear_fc2")
"""The linear layers of a block of the vision tower, in Qwen2.5-VL and Qwen3-VL."""
RUN = "run.json"
"""In the folder of a run: what it is made of, its grammar included unless it is the default."""
_PROMPTS = {"process": "generate-v1", "agnostic": "generate-agnostic-v1"}


class OptimSpec(Section):
    """AdamW and its learning rate."""

    kind: Literal["adamw", "adamw-master", "adamw-host", "adamw-8bit"] = Field(**unless("adamw"))
    """What AdamW keeps. `adamw`: two means of the weights' type. Of bfloat16 weights, `adamw-master`: float32
    copy and means; `adamw-host`: the same on the host, where updates are computed too; `adamw-8bit`: means of
    8 bits, weights rounded by chance (torchao)."""
    lr: float = Field(default=1e-6, gt=0)
    """Highest learning rate. 1e-6 is that of the recipes the paper follows [method §4]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of gradient and squared gradient."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the squared gradient's mean."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On weights; norms and biases are left alone unless `decay_all`."""
    decay_all: bool = False
    """Decay norms and biases too."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up, to `lr * floor` at the last step."""
    warmup: float = Field(default=0.0, ge=0)
    """Steps over which the rate rises from 0; below 1 it is a share of all steps."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Share of `lr` that is left at the last step."""
    max_grad_norm: float = Field(default=5.0, gt=0)
    """Gradients are scaled down to this norm [method §4]."""
    max_skipped: int = Field(ge=1, **unless(8))
    """Updates in a row whose gradient or loss is not finite; all are skipped, then the run stops."""

    def _problems(self) -> Iterator[str]:
        if not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas must lie in [0, 1), got {self.betas}"


class BatchSpec(Model):
    """How much goes into one optimizer step, over all processes, and into one forward pass."""

    size: int = Field(default=8, ge=1)
    """Examples of one step over all processes, whose number divides it: sequences in SFT, prompts (each with
    its whole group) in RL."""
    micro: int = Field(default=1, ge=1)
    """Examples of one forward and backward pass of one process; changes memory and speed, not the result."""


class SaveSpec(Model):
    """What is kept of a run while it goes on."""

    every: int = Field(default=100, ge=0)
    """Steps between checkpoints; 0: only at the end and when the run is stopped."""
    keep: int = Field(default=2, ge=0)
    """Newest checkpoints that stay; 0: all."""
    samples_every: int = Field(default=10, ge=0)
    """RL: steps between records of sampled completions in `samples.jsonl`; 0: never."""
    samples: int = Field(default=2, ge=1)
    """Groups recorded each time."""


class RlSpec(Model):
    """How rollouts become updates."""

    group_size: int = Field(default=8, ge=2)
    """Rollouts per prompt, G [method §4]."""
    minibatches: int = Field(default=1, ge=1)
    """Equal parts of a rollout batch, each an update of its own; divides the prompts of every process."""
    iterations: int = Field(default=1, ge=1)
    """Passes over the same rollouts; with one pass over one part the ratio to the old policy is 1."""
    redraws: int = Field(ge=0, **unless(0))
    """Dynamic sampling: rounds a step in which groups of equal rewards give way to other questions."""
    ahead: bool = Field(**unless(False))
    """One step ahead: the next step's rollouts are drawn while this one is updated, by the weights that it
    began with, and corrected (`loss.correction`). Needs `sampling.backend: vllm-server`."""

    @property
    def updates(self) -> int:
        """Optimizer updates per rollout batch."""
        return self.minibatches * self.iterations


class PassRateSpec(Section):
    """Which questions are neither too easy nor too hard: rows whose pass rate lies outside are left out."""

    low: float = Field(default=0.0, ge=0, le=1)
    """Lowest share of right answers, inclusive."""
    high: float = Field(default=1.0, ge=0, le=1)
    """Highest one, inclusive."""
    column: str = "pass_rate"
    """Column of the data that holds the share, a number from 0 to 1."""
    file: str = ""
    """A JSON object of `sample_id` (else `problem_id`) and share, in place of the column."""

    def _problems(self) -> Iterator[str]:
        if self.low > self.high:
            yield f"low {self.low:g} above high {self.high:g}: swap them"


class DataSpec(Section):
    """Which examples, in which order, with which frames; one for training, another for held-out questions."""

    source: str = Field(min_length=1)
    """Folder that `p2r-data build` made, a data file (parquet, jsonl, json, also .gz), a Hub id
    (`owner/name`), or `demo`: the endless synthetic stream, drawn in memory."""
    config: Literal["sft", "rl"] = "sft"
    """`sft`: rows with a trace to learn; `rl`: questions alone."""
    split: str = "train"
    """For a Hub id."""
    revision: str | None = None
    """For a Hub id: commit or tag. None: the newest commit, looked up once and recorded in `run.json`."""
    media_root: str = ""
    """Folder that the rows' `path` is relative to. Empty: as `p2r-data build` noted beside its folder."""
    start: int = Field(default=0, ge=0)
    """First row (of the demo stream: first scene). Two specs with disjoint ranges share no example."""
    limit: int | None = Field(default=None, ge=1)
    """Rows from `start` on; None: all of them (the demo stream never ends)."""
    pass_rate: PassRateSpec | None = Field(**unless(None))
    """Leave out rows by how often they were answered right; a row without a rate is left out too."""
    style: Literal["process", "agnostic"] = "process"
    """`process`: learn observation, thought, answer; `agnostic`: thought and answer alone [paper Table 2]."""
    prompt: str = ""
    """Name of a packaged prompt or a file; empty: the one that fits `style`."""
    trace: GrammarField | None = Field(**unless(None))
    """What a trace is made of: a packaged grammar, a YAML file or the grammar itself (docs/traces.md). None:
    as the lock of the build in `source` says, else VideoP2R's."""
    demo: DemoSpec = DemoSpec(numbered=False, rotated=False)
    """The world of `source: demo`; `rows`, `questions` and `defect_rate` mean nothing to the stream."""
    media: MediaSpec = MediaSpec()
    """Frames and pixel budget: `factor` must be that of the model's processor (patch size * merge size)."""
    shuffle: bool = True
    """A new order each epoch, from the run's seed. Off: the order of the file."""
    tail: Literal["drop", "carry"] = "drop"
    """The last of an epoch, too few for a batch: left out (others each epoch), or completed from the next."""
    bucket: int = Field(default=0, ge=0)
    """Batches whose examples are sorted by estimated length among themselves: less padding; 0: off."""
    workers: int = Field(default=0, ge=0)
    """Decoder processes of this training process; 0: `media.workers`, else one per core."""
    ahead: int = Field(default=2, ge=1)
    """Batches that are decoded ahead; bounds the loader's memory."""

    @field_validator("demo", mode="before")
    @classmethod
    def _as_the_default(cls, value: Any) -> Any:
        # what a recipe leaves unsaid of the world is as in the default here, not as in a build's world
        return {"numbered": False, "rotated": False, **value} if isinstance(value, dict) else value

    def _problems(self) -> Iterator[str]:
        if self.is_demo and (self.media_root or self.revision or self.pass_rate):
            yield "source: demo is drawn in memory: it has no media_root, no revision and no pass_rate"

    @property
    def is_demo(self) -> bool:
        """Whether the examples are the endless synthetic stream."""
        return self.source == "demo"

    @property
    def prompt_name(self) -> str:
        """What `prompts.load_prompt` takes."""
        return self.prompt or _PROMPTS[self.style]

    @property
    def grammar(self) -> TraceGrammar:
        """What a trace is made of: `trace`, else what the lock beside the data declares, else the default.

        Raises:
            ConfigError, SourceError: the lock cannot be read, or its grammar is none.
        """
        return self.trace or built_grammar(Path(self.source).expanduser()) or default_grammar()


def run_grammar(run: Path) -> TraceGrammar:
    """The grammar of a run's completions, else the default; ConfigError: what the folder tells is none."""
    try:
        found = orjson.loads((run / RUN).read_bytes())["data"]["trace"]
    except (OSError, ValueError, LookupError, TypeError):
        return default_grammar()
    return validate_settings(found, TraceGrammar, where=str(run / RUN), what="trace grammar")


class LoraSpec(Model):
    """Low-rank adapters instead of full weights; the reference is then the base itself."""

    rank: int = Field(default=64, ge=1)
    """Of every adapter."""
    alpha: float = Field(default=128.0, gt=0)
    """Scale: an adapter adds `alpha / rank` times its product."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapters. Above 0 two passes over the same tokens differ."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers of the language model that get an adapter."""
    vision: bool = False
    """Adapters in the blocks of the vision tower too."""


class PolicySpec(Section):
    """A checkpoint to train."""

    model: str = Field(min_length=1)
    """Folder, or id on the Hub."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; None: its main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the weights in memory. float32 can be computed with in bf16; bfloat16 with all weights trained
    needs another `optim.kind`."""
    reference_dtype: Literal["policy", "float32", "bfloat16", "float16"] = Field(**unless("policy"))
    """RL: type of the frozen reference, where it is a second model; `policy`: `dtype`."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel."""
    vision_attention: Literal["windows", "sdpa", "eager", "flash_attention_2"] | None = Field(**unless(None))
    """That of the vision tower; None: as `attn`. `sdpa` and `eager`: one call for each window and frame;
    `windows`: `sdpa`, one call for all windows of a length; `flash_attention_2`: one for all (package
    flash-attn)."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: much less memory, about a third more time."""
    freeze_vision: bool = False
    """Leave the vision tower and its merger as they are."""
    share_prompts: bool = True
    """Run the prompt of a group once, not once per rollout; needs `sdpa` or `eager`."""
    padding_free: bool = Field(**unless(False))
    """Rows of a micro-batch as one sequence without padding; needs `sdpa` or `flash_attention_2`. Shared
    prompts have their own layout."""
    lora: LoraSpec | None = None
    """None: all weights are trained."""

    def _problems(self) -> Iterator[str]:
        if self.padding_free and self.attn == "eager":
            yield "attn: eager knows no rows without padding: set attn: sdpa, or padding_free: false"
        if self.lora is not None and self.lora.vision and self.freeze_vision:
            yield "lora.vision puts adapters into the vision tower, freeze_vision forbids it: drop one"


class EvalSpec(Model):
    """How held-out questions are answered and graded."""

    sampling: SamplingSpec = SamplingSpec(temperature=0.01, top_p=0.001, max_new_tokens=1024)
    """How answers are drawn: as the paper does [method §4]; the longest completion is ours."""
    batch: int = Field(default=8, ge=1)
    """Questions that are answered at a time, per process; changes speed and memory, not the rows."""
    seed: int = Field(default=0, ge=0)
    """Of the draws; every question has its own, whatever its batch or process."""
    scoring: Policy = Policy()
    """How strict answers are graded."""
    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of the confidence intervals."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap samples behind the interval of a mean."""
