"""The memory of a run, part by part and phase by phase, before anything is loaded."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from videop2r_data.errors import ConfigError, MissingExtraError, first_line
from videop2r_data.files import find_model
from videop2r_data.schemas import Model
from videop2r_data.trainer.memory.full import advice
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import PERCEPTION_BOUNDS, REASONING_BOUNDS

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs

GIB = 2**30
# Assumed, not counted: of a GPU ...
CONTEXT = GIB * 3 // 4  # the CUDA context with cuBLAS and cuDNN
NCCL = GIB
DRIVER = 0.012  # the share of a card, as it is sold, that no process sees: an 80 GB card shows 79.1 GiB
FRAGMENTATION = 0.04  # the share of the peak that the allocator holds in pieces that it cannot use
# ... and of the host.
PROCESS, DECODER = 4 * GIB, GIB // 2
LOADED = 2  # weights that a process reads at a time, as large as the largest: as stored, and as they are held
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


class MemoryPlan(Model):
    """What a run takes on each GPU that trains, and on the host, in bytes."""

    recipe: str
    shape: str
    """Where the sizes of the model come from: a folder, or a packaged shape."""
    weights: int
    """Number of weights, adapters included."""
    trained: int
    """How many of them are trained."""
    training: int
    """GPUs that train, a process on each; the last GPU is the vLLM server's where there is one."""
    card: int
    """Bytes of one GPU."""
    parts: dict[str, int]
    """Part -> bytes on the GPU; logits and activations as at the largest moment of the update."""
    phases: dict[str, int]
    """Phase, by its name in the log (`time/...`) -> bytes at its largest moment, the reserve included."""
    server: int
    """Bytes of the weights on the server's GPU; 0: no server."""
    kv_tokens: int | None
    """Tokens that vLLM's cache has room for; None: no vLLM here."""
    host: dict[str, int]
    """Part -> bytes in the host's memory, all processes together."""
    assumed: tuple[str, ...]
    """What the figures rest on."""
    change: tuple[str, ...] = ()
    """Settings to lower, if it does not fit."""

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=lambda name: self.phases[name])

    @property
    def fits(self) -> bool:
        """Whether every phase fits on the GPU, and vLLM's weights leave room for its cache."""
        return self.phases[self.peak] <= self.card and self.kv_tokens != 0


def plan_memory(
    recipe: TrainRecipe,
    *,
    gpus: int,
    card: float,
    shape: str = "",
    text: int = 400,
    completion: int = 0,
    cuda: bool = True,
) -> MemoryPlan:
    """Count the memory of a run.

    Args:
        recipe: its `model.model` is on this machine, or its name says a packaged shape.
        gpus: several train with weights cut over them (FSDP), unless adapters are trained.
        card: memory of each, GiB.
        shape: packaged shape in place of what the recipe names.
        text: tokens of a prompt beside those of its clip.
        completion: tokens of every completion; 0: the longest that the recipe allows, in SFT the upper bounds
            of the length reward.
        cuda: off: the tensors of a run on a CPU, without a reserve.

    Raises:
        ConfigError: no such model, or one of another family.
        MissingExtraError: torch, transformers or peft is not installed.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    source, config, missing = _config(recipe, shape)
    server = recipe.stage == "rl" and recipe.sampling.backend == "vllm-server" and gpus > 1
    longest = recipe.sampling.max_new_tokens if recipe.stage == "rl" else 0
    longest = completion or longest or PERCEPTION_BOUNDS[1] + REASONING_BOUNDS[1]
    run = _Run(recipe, config, gpus - server, int(card * GIB), (text, longest), cuda)
    parts, phases = run.counted()
    plan = MemoryPlan(
        recipe=recipe.name,
        shape=source,
        weights=run.count,
        trained=run.trained,
        training=gpus - server,
        card=run.card,
        parts=parts,
        phases=phases,
        server=run.engine if server else 0,
        kv_tokens=run.kv_tokens(server),
        host=run.host(),
        assumed=(*missing, *run.assumed()),
    )
    return plan if plan.fits else plan.model_copy(update={"change": tuple(advice(recipe, plan.peak))})


def shapes() -> dict[str, Any]:
    """Name -> configuration of every packaged shape."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "shapes.yaml").read_text("utf-8"))
    return found


def _config(recipe: TrainRecipe, shape: str) -> tuple[str, Any, tuple[str, ...]]:
    """Where the sizes come from, transformers' configuration, and what is to be said of a missing folder."""
    from transformers import AutoConfig

    from videop2r_data.trainer.model.forward import check_family

    known, spec, missing = shapes(), recipe.model, ""
    hint = f"name a folder, or give --shape: {', '.join(known)}"
    if not shape:
        named = spec.model.lower()
        if size := re.search(r"(?<![\w.])(\d+b)(?!\w)", named):
            shape = f"{'qwen3-vl' if 'qwen3' in named else 'qwen2.5-vl'}-{size[1]}"
        try:
            here = find_model(spec.model, where="model.model", revision=spec.revision)
        except ConfigError as error:
            if Path(spec.model).expanduser().is_dir():
                raise
            here, missing = False, error.message
        if here:
            try:
                config = AutoConfig.from_pretrained(
                    spec.model, revision=spec.revision, local_files_only=True, trust_remote_code=False
                )
            except (OSError, ValueError) as error:
                raise ConfigError(first_line(error), where=spec.model) from None
            check_family(config)
            return spec.model, config, ()
    if shape not in known:
        why = missing or "no folder with a config.json, no packaged shape"
        raise ConfigError(f"no sizes of {shape or spec.model!r}: {why}", where="model.model", hint=hint)
    lines = (f"{missing}: the sizes are those of its name",) if missing else ()
    return f"packaged {shape}", AutoConfig.for_model(**known[shape]), lines


@dataclass
class _Run:
    """A recipe, its model without data, and the arithmetic of both, in bytes on one of the GPUs that train;
    `lengths`: tokens of text in a prompt, and of a completion."""

    recipe: TrainRecipe
    config: Any
    training: int
    card: int
    lengths: tuple[int, int]
    cuda: bool

    def __post_init__(self) -> None:
        from videop2r_data.trainer.memory.count import model_of

        recipe = self.recipe
        self.model = model_of(recipe, self.config)
        weights = list(self.model.parameters())
        self.learnt = [weight for weight in weights if weight.requires_grad]
        self.count, self.trained = (sum(w.numel() for w in some) for some in (weights, self.learnt))
        self.largest = max(weight.numel() for weight in weights)
        lora, self.rl = recipe.model.lora is not None, recipe.stage == "rl"
        self.base = self.count - self.trained if lora else self.count
        self.cut = 1 if lora else self.training
        self.bytes = _SIZES[recipe.model.dtype]
        # of the weights where they are held whole beside their parts: FSDP
        self.whole = self.base * self.bytes if self.cut > 1 else 0
        self.group = recipe.rl.group_size if self.rl else 1
        self.share = math.ceil(recipe.batch.size / self.training)
        self.passes = math.ceil(self.share / recipe.rl.minibatches / recipe.batch.micro)
        self.half = recipe.precision == "bf16" or (recipe.precision == "auto" and self.cuda)
        self.vllm = self.rl and recipe.sampling.backend == "vllm"
        self.engine = self._of_policy(recipe.vllm.dtype)
        self.clip = self.rows(1, 1)
        # the pixels of a step's batch, in float32
        self.pixels = self.share * sum(part.nbytes for part in self.clip.media.values())

    def _of_policy(self, dtype: str) -> int:
        """Bytes of the weights before training, in a type of their own or in the policy's."""
        return int(self.base * (self.bytes if dtype == "policy" else _SIZES[dtype]))

    def rows(self, prompts: int, group: int) -> ModelInputs:
        """The longest rows that the recipe allows."""
        from videop2r_data.trainer.memory.count import example

        return example(self.model.net, self.recipe.data.media, prompts, group, self.lengths)

    def counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """Parts and phases."""
        from videop2r_data.trainer.memory.count import count_update

        recipe, rows = self.recipe, self.rows(self.recipe.batch.micro, self.group)
        ledger = count_update(self.model, rows, half=self.half, again=self.passes > 1, entropy=self.rl)
        gradients = sum(weight.nbytes for weight in self.learnt)
        own = {"weights": ledger.parts["weights"] // self.cut, "gradients": gradients // self.cut}
        held = {name: size // self.cut for name, size in self._held().items()}
        if self.cut == 1:
            work = {name: ledger.peak[name] for name in ("autocast copies", "logits", "activations")}
            update = ledger.peak.total()
        else:
            work = {"gathered layers": self._gathered(), "activations and logits": ledger.work}
            update = sum(own.values()) + sum(work.values())
        engine = {"vLLM engine": int(recipe.vllm.memory * self.card)} if self.vllm else {}
        kept = sum(held.values())
        # on a CPU: pixels whole and in micro-batches; on a GPU they are in the host's memory
        batches = {} if self.cuda else {"batches": 2 * self.pixels}
        beside = kept + sum(batches.values()) + (sum(engine.values()) if recipe.vllm.sleep == 0 else 0)
        # torch's update of all weights is fused on a GPU; others, and on a CPU, need room for one weight
        fused = self.cuda and recipe.optim.kind == "adamw"
        extra = 0 if fused else 8 * max((weight.numel() for weight in self.learnt), default=0)
        phases = {"update": update + beside, "step": sum(own.values()) + beside + extra}
        if self.whole:  # each process loads all weights, then keeps its part
            phases["load"] = self.whole
        if self.vllm:
            phases["rollout"] = own["weights"] + kept + engine["vLLM engine"]
        elif self.rl and recipe.sampling.backend == "hf":
            # weights that are cut over GPUs are copied whole to decode
            phases["rollout"] = own["weights"] + self.whole + kept + self._drawing()
        if not self.cuda:
            return own | held | work | engine | batches, phases
        shares = FRAGMENTATION * max(phases.values()) + DRIVER * self.card
        reserve = CONTEXT + (NCCL if self.training > 1 else 0) + int(shares)
        parts = own | held | work | engine | {"reserve": reserve}
        return parts, {name: size + reserve for name, size in phases.items()}

    def _held(self) -> dict[str, int]:
        """Optimizer and reference, before they are cut."""
        recipe, kind = self.recipe, self.recipe.optim.kind
        sizes = [(weight.numel(), weight.element_size()) for weight in self.learnt]
        found: dict[str, int] = {}
        if kind == "adamw-master":
            found = {"optimizer": 8 * self.trained, "float32 copies": 4 * self.trained}
        elif kind == "adamw-8bit":
            # torchao: a byte each, and a float32 scale for 256 of them; small weights keep their own type
            each = (n + n // 64 if n >= 4096 and n % 256 == 0 else n * size for n, size in sizes)
            found = {"optimizer": 2 * sum(each)}
        elif kind == "adamw":
            found = {"optimizer": 2 * sum(n * size for n, size in sizes)}
        second = recipe.model.lora is None or bool(recipe.reference)
        if self.rl and recipe.loss.beta > 0 and second:
            found["reference"] = self._of_policy(recipe.model.reference_dtype)
        return found

    def _gathered(self) -> int:
        """FSDP: the outermost weights and two layers, whole, in the type of the pass; with gradients."""
        from videop2r_data.trainer.model.weights import bare

        core = bare(self.model)
        layer = sum(w.numel() for w in core.model.language_model.layers[0].parameters())
        inside = re.compile(r"\.(layers|blocks)\.")
        rest = sum(w.numel() for name, w in core.named_parameters() if not inside.search(name))
        return int(2 * (2 if self.half else 4) * (rest + 2 * layer))

    def _drawing(self) -> int:
        """What the policy takes beside its weights while it draws."""
        from videop2r_data.trainer.memory.count import count_rollouts

        spec = self.recipe.sampling
        prompts = min(self.share, max(1, spec.rows // self.group)) if spec.rows else self.share
        peak = count_rollouts(self.model, self.rows(prompts, 1), spec, group=self.group, half=self.half).peak
        # on a CPU a part of the prompts has its pixels beside those of all
        batch = 0 if self.cuda or prompts == self.share else self.pixels
        return int(peak.total() - peak["weights"] + batch)

    def kv_tokens(self, server: bool) -> int | None:
        """Tokens for which vLLM has room beside its weights and 2 GiB of work; None: no vLLM."""
        if not self.vllm and not server:
            return None
        text = self.config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        token = 2 * 2 * text.num_hidden_layers * text.num_key_value_heads * head
        room = (0.9 if server else self.recipe.vllm.memory) * self.card - self.engine - 2 * GIB
        return max(0, int(room / token))

    def host(self) -> dict[str, int]:
        """The host's memory, all training processes together."""
        recipe, media, n = self.recipe, self.recipe.data.media, self.training
        workers = recipe.data.workers or media.workers or 8
        frames = media.frames * media.max_pixels * 3 * recipe.data.ahead
        # whole, in micro-batches, and those of the next step where that is drawn already
        pixels = (2 + recipe.rl.ahead) * self.pixels
        found = {
            "processes": n * PROCESS,
            "decoders": n * workers * DECODER,
            "frames and pixels": n * (self.share * frames + pixels),
            "weights while they load": n * LOADED * (2 + self.bytes) * self.largest,
            "whole weights while they are saved": self.whole,  # by one process
        }
        if recipe.optim.kind == "adamw-host":
            found["optimizer and float32 copies"] = n * 12 * self.trained
        if self.vllm and recipe.vllm.sleep == 1:
            found["sleeping vLLM"] = n * self.engine
        return found

    def assumed(self) -> tuple[str, ...]:
        """What the figures rest on."""
        prompt, (text, completion) = int(self.clip.starts[0]), self.lengths
        rows, passes = self.recipe.batch.micro * self.group, self.passes
        lines = [
            f"every prompt has {prompt:,} tokens ({text} of text), every completion {completion:,}",
            f"a pass has {rows} rows, an update {passes} {'pass' if passes == 1 else 'passes'}",
        ]
        if self.cut > 1:
            lines.append(f"weights, gradients, optimizer and reference are cut over {self.cut} GPUs (FSDP)")
        if self.cuda:
            lines.append(
                f"the reserve is assumed, not counted: {CONTEXT / GIB:g} GiB of CUDA context, {DRIVER:.1%} "
                f"of the card that no process sees, {FRAGMENTATION:.0%} of the peak between pieces of memory"
                + (f", {NCCL / GIB:g} GiB of NCCL" if self.training > 1 else "")
            )
        lines.append(
            "not counted: evaluation, what the judge takes, and the host's cache of the files of weights, "
            "which all processes share"
        )
        return tuple(lines)
