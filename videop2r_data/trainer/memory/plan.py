"""The memory of a run, part by part and phase by phase, before anything is loaded."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from videop2r_data.errors import ConfigError, MissingExtraError, first_line
from videop2r_data.schemas import Model
from videop2r_data.trainer.memory.full import PARTS, advice
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import PERCEPTION_BOUNDS, REASONING_BOUNDS

if TYPE_CHECKING:
    from videop2r_data.trainer.model.forward import TrainModel

GIB = 2**30
CONTEXT = GIB * 3 // 4
"""Of a CUDA context with cuBLAS and cuDNN; not counted but assumed."""
FRAGMENTATION = 0.04
"""Share of the peak that the allocator holds in pieces it cannot use; assumed."""
PROCESS = 4 * GIB
"""Host memory of a training process with its libraries; assumed."""
DECODER = GIB // 2
"""Host memory of a decoder process; assumed."""
_SIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


class MemoryPlan(Model):
    """What a run takes on one GPU and on its host, in bytes.

    The busiest GPU that trains is meant. `phases` are sums of what lives at their largest moment.
    """

    recipe: str
    """Name of the recipe."""
    shape: str
    """Where the sizes of the model come from: a folder, or a packaged shape."""
    weights: int
    """Number of weights, adapters included."""
    trained: int
    """How many of them are trained."""
    gpus: int
    """GPUs of the machine; `training` of them train, the last one is the vLLM server's where there is one."""
    training: int
    """Training processes, one on each GPU."""
    card: int
    """Bytes of one GPU."""
    parts: dict[str, int]
    """Part -> bytes on the GPU."""
    phases: dict[str, int]
    """Phase -> bytes on the GPU, the reserve included."""
    server: int = 0
    """Bytes of the weights on the server's GPU; 0: no server."""
    kv_tokens: int = 0
    """Tokens that vLLM's cache has room for; 0: no vLLM."""
    host: dict[str, int]
    """Part -> bytes in the host's memory, all processes together."""
    change: tuple[str, ...] = ()
    """Settings to lower, if it does not fit."""
    assumed: tuple[str, ...] = Field(default=())
    """What the figures rest on."""

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=lambda name: self.phases[name])

    @property
    def fits(self) -> bool:
        """Whether every phase fits on the GPU, and the server on its own."""
        server = self.server < 0.9 * self.card and (self.kv_tokens > 0 or not self.server)
        return self.phases[self.peak] <= self.card and server


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
        recipe: the run. Its `model.model` is a folder with a config.json, or names a packaged shape.
        gpus: GPUs; more than one train with weights cut over them (FSDP), unless adapters are trained.
        card: GiB of each.
        shape: packaged shape in place of what the recipe names.
        text: tokens of a prompt beside those of its clip.
        completion: tokens of every completion; 0: the longest that the recipe allows, in SFT the upper bounds
            of the length reward.
        cuda: count what CUDA takes beside the tensors; off, the tensors of a run on a CPU are counted.

    Raises:
        ConfigError: no such model, or one of another family.
        MissingExtraError: torch, transformers or peft is not installed.
    """
    try:
        from videop2r_data.trainer.memory import count
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "train") from None
    source, config = _config(recipe, shape)
    server = recipe.stage == "rl" and recipe.sampling.backend == "vllm-server" and gpus > 1
    training = gpus - server
    model = _fake(recipe, config)
    run = _Run(recipe, config, model, training=training, card=int(card * GIB), text=text, cuda=cuda)
    run.completion = completion or run.completion
    ledger = count.count_update(
        model,
        run.inputs(recipe.batch.micro, run.group),
        half=run.half,
        again=run.pieces > 1,
        entropy=recipe.stage == "rl",
    )
    parts = run.parts(ledger)
    phases = run.phases(parts, ledger)
    if not cuda:  # a GPU holds a micro-batch alone
        parts["batches"] = run.batches
        phases = {name: size + parts["batches"] for name, size in phases.items()}
    else:
        parts["reserve"] = CONTEXT + int(FRAGMENTATION * max(phases.values())) + GIB * (training > 1)
        phases = {name: size + parts["reserve"] for name, size in phases.items()}
    plan = MemoryPlan(
        recipe=recipe.name,
        shape=source,
        weights=run.count,
        trained=run.trained,
        gpus=gpus,
        training=training,
        card=run.card,
        parts=parts,
        phases=phases,
        server=run.engine_weights if server else 0,
        kv_tokens=run.kv_tokens(server),
        host=run.host(),
        assumed=run.assumed(),
    )
    return plan if plan.fits else plan.model_copy(update={"change": tuple(advice(recipe, plan.peak))})


def shapes() -> dict[str, Any]:
    """Name -> configuration of every packaged shape."""
    found: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "shapes.yaml").read_text(encoding="utf-8")
    )
    return found


def _config(recipe: TrainRecipe, shape: str) -> tuple[str, Any]:
    """Where the sizes come from, and transformers' configuration."""
    from transformers import AutoConfig

    from videop2r_data.trainer.model.forward import check_family

    known, named = shapes(), recipe.model.model
    folder = Path(named).expanduser()
    if not shape and (folder / "config.json").is_file():
        try:
            config = AutoConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ConfigError(first_line(error), where=str(folder / "config.json")) from None
        check_family(config)
        return str(folder), config
    size = re.search(r"(?<![\w.])(\d+b)(?!\w)", named.lower())
    family = "qwen3-vl" if "qwen3" in named.lower() else "qwen2.5-vl"
    chosen = shape or (f"{family}-{size[1]}" if size else "")
    if chosen not in known:
        raise ConfigError(
            f"no sizes of {shape or named!r}: neither a folder with a config.json nor a packaged shape",
            where="--shape" if shape else "model.model",
            hint=f"name a folder, or give --shape: {', '.join(known)}",
        )
    return f"{chosen} (packaged)", AutoConfig.for_model(**known[chosen])


def _fake(recipe: TrainRecipe, config: Any) -> TrainModel:
    """The policy, made of tensors without data."""
    import torch
    from transformers import AutoModelForImageTextToText

    from videop2r_data.trainer.memory import count
    from videop2r_data.trainer.model.forward import TrainModel
    from videop2r_data.trainer.model.load import prepared

    spec = recipe.model
    with torch.device("meta"):
        # Flash attention has no fake kernel; the kernels of sdpa keep the same things for the backward pass.
        net = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, spec.dtype), attn_implementation="sdpa"
        )
        net = prepared(net, spec)
    count.without_data(net)
    share = spec.share_prompts and spec.attn != "flash_attention_2"
    return TrainModel(net, temperature=recipe.sampling.temperature, share_prompts=share)


class _Run:
    """A recipe with its model: the arithmetic of its parts, in bytes on one GPU."""

    def __init__(
        self,
        recipe: TrainRecipe,
        config: Any,
        model: TrainModel,
        *,
        training: int,
        card: int,
        text: int,
        cuda: bool,
    ) -> None:
        self.recipe, self.config, self.model = recipe, config, model
        self.training, self.card, self.text, self.cuda = training, card, text, cuda
        weights = [*model.parameters()]
        self._learnt = [weight for weight in weights if weight.requires_grad]
        self.count = sum(weight.numel() for weight in weights)
        self.trained = sum(weight.numel() for weight in self._learnt)
        self.rl = recipe.stage == "rl"
        self.group = recipe.rl.group_size if self.rl else 1
        self.share = math.ceil(recipe.batch.size / training)
        self.pieces = math.ceil(self.share / recipe.rl.minibatches / recipe.batch.micro)
        self.half = recipe.precision == "bf16" or (recipe.precision == "auto" and cuda)
        self.cut = training if recipe.model.lora is None else 1
        self.completion = (
            recipe.sampling.max_new_tokens if self.rl else PERCEPTION_BOUNDS[1] + REASONING_BOUNDS[1]
        )
        dtype = recipe.model.dtype if recipe.vllm.dtype == "policy" else recipe.vllm.dtype
        self.engine_weights = self._whole * _SIZES[dtype]

    @property
    def _whole(self) -> int:
        """Weights of the model without adapters."""
        return self.count if self.recipe.model.lora is None else self.count - self.trained

    def inputs(self, prompts: int, group: int) -> Any:
        """The longest rows that the recipe allows."""
        from videop2r_data.trainer.memory import count

        media = self.recipe.data.media
        return count.example(
            self.model.net,
            frames=media.frames,
            tokens=media.max_pixels // media.factor**2,
            text=self.text,
            completion=self.completion,
            prompts=prompts,
            group=group,
        )

    @property
    def batches(self) -> int:
        """The pixels of a step's batch in float32, whole and in micro-batches."""
        media = self.inputs(1, 1).media
        return 2 * self.share * sum(part.numel() * part.element_size() for part in media.values())

    def parts(self, ledger: Any) -> dict[str, int]:
        """What lives on the GPU; logits and activations as at the peak of the update."""
        from videop2r_data.trainer.memory import count

        recipe, peak = self.recipe, ledger.peak
        found = {
            count.WEIGHTS: count.bytes_of(self.model.parameters()) // self.cut,
            count.GRADIENTS: count.bytes_of(self._learnt) // self.cut,
        }
        means, copies = self._optimizer()
        found["optimizer"] = means // self.cut
        if recipe.optim.kind == "adamw-master":
            found["float32 copies"] = copies
        if self.rl and recipe.loss.beta > 0 and (recipe.model.lora is None or recipe.reference):
            chosen = recipe.model.reference_dtype
            size = _SIZES[recipe.model.dtype if chosen == "policy" else chosen]
            found["reference"] = self._whole * size // self.cut
        if self.cut == 1:
            found[count.COPIES] = peak[count.COPIES]
            found |= {name: peak[name] for name in count.WORK}
        else:
            found["gathered layers"] = self._gathered()
            found["activations and logits"] = ledger.work
        if self.rl and recipe.sampling.backend == "vllm":
            found["vLLM engine"] = int(recipe.vllm.memory * self.card)
        return found

    def _optimizer(self) -> tuple[int, int]:
        """Bytes of AdamW's means, and of float32 copies, on the GPU."""
        kind = self.recipe.optim.kind
        if kind == "adamw-host":
            return 0, 0
        if kind == "adamw-master":
            return 8 * self.trained, 4 * self.trained
        if kind == "adamw":
            return sum(2 * weight.numel() * weight.element_size() for weight in self._learnt), 0
        # torchao: a byte each, and a float32 scale for 256 of them; small weights keep means of their own type
        return sum(
            2 * (n + n // 64 if n >= 4096 and n % 256 == 0 else n * weight.element_size())
            for weight in self._learnt
            for n in [weight.numel()]
        ), 0

    def _gathered(self) -> int:
        """FSDP: the outermost weights whole, and two layers, in the type that is computed in; with gradients."""
        core = self._core()
        layer = sum(w.numel() for w in core.model.language_model.layers[0].parameters())
        rest = sum(
            w.numel() for name, w in core.named_parameters() if not re.search(r"\.(layers|blocks)\.", name)
        )
        return 2 * (2 if self.half else 4) * (rest + 2 * layer)

    def _core(self) -> Any:
        from videop2r_data.trainer.model.weights import bare

        return bare(self.model)

    def phases(self, parts: dict[str, int], ledger: Any) -> dict[str, int]:
        """What each phase takes at its largest moment, named as in the log of a run (`time/...`)."""
        held = sum(parts.get(name, 0) for name in ("optimizer", "float32 copies", "reference"))
        engine = parts.get("vLLM engine", 0)
        awake = engine if self.recipe.vllm.sleep == 0 else 0
        weights, gradients = parts["weights"], parts["gradients"]
        pass_ = (
            ledger.peak.total()
            if self.cut == 1
            else weights + gradients + parts["gathered layers"] + ledger.work
        )
        largest = max((weight.numel() for weight in self._learnt), default=0) // self.cut
        # fused on a GPU; on a CPU, and of float32 copies, one weight at a time
        extra = 0 if self.recipe.optim.kind == "adamw" and self.cuda else 8 * largest
        found = {
            "update": pass_ + held + awake,
            "step": weights + gradients + held + extra + awake,
        }
        if self.rl and engine:
            found["rollout"] = weights + held + engine
        elif self.rl and self.recipe.sampling.backend == "hf":
            # sharded weights are copied whole, to decode without gathering
            whole = 0 if self.cut == 1 else self._whole * _SIZES[self.recipe.model.dtype]
            found["rollout"] = weights + whole + held + self._decoding()
        return {PARTS[name]: size for name, size in found.items()}

    def _decoding(self) -> int:
        """The policy draws: the larger one of prefill, and of the last tokens with their cache."""
        from videop2r_data.trainer.memory import count

        rows = self.recipe.sampling.rows
        prompts = min(self.share, max(1, rows // self.group)) if rows else self.share
        before = count.count_prefill(self.model, self.inputs(prompts, 1), half=self.half, group=self.group)
        held = before.peak[count.COPIES]
        sampling, text = self.recipe.sampling, self.config.text_config
        rows, size = prompts * self.group, 2 if self.half else _SIZES[self.recipe.model.dtype]
        prompt = int(self.inputs(1, 1).starts[0])
        columns = prompt
        while columns < prompt + self.completion:  # as the cache grows
            columns += 1 + max(64, columns // 8)
        heads = text.num_attention_heads
        layer = 2 * rows * columns * self._head * size
        cache = layer * text.num_key_value_heads * text.num_hidden_layers
        # of one layer, keys and values for every head; then logits in the types of the sampler
        each = size + 4 + 4 + 4 + 8 + 8 + (20 if sampling.top_k or sampling.top_p < 1 else 0)
        last = cache + max(layer * heads, rows * text.vocab_size * each)
        return max(before.peak.total() - before.peak[count.WEIGHTS], held + last)

    @property
    def _head(self) -> int:
        text = self.config.text_config
        return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)

    def kv_tokens(self, server: bool) -> int:
        """Tokens that fit into vLLM's cache beside its weights and 2 GiB of work; 0 without vLLM."""
        if not self.rl or self.recipe.sampling.backend == "hf":
            return 0
        text = self.config.text_config
        each = 2 * text.num_hidden_layers * text.num_key_value_heads * self._head * 2
        room = (0.9 if server else self.recipe.vllm.memory) * self.card - self.engine_weights - 2 * GIB
        return max(0, int(room / each))

    def host(self) -> dict[str, int]:
        """The host's memory, all training processes together."""
        recipe, n = self.recipe, self.training
        media, workers = recipe.data.media, recipe.data.workers or recipe.data.media.workers or 8
        frames = media.frames * media.max_pixels * 3
        found = {
            "processes": n * PROCESS,
            "decoders": n * workers * DECODER,
            "frames and pixels": n * (self.share * frames * recipe.data.ahead + self.batches),
            "weights while they load, or are saved": _SIZES[recipe.model.dtype] * self._whole,
        }
        if recipe.optim.kind == "adamw-host":
            found["optimizer and float32 copies"] = n * 12 * self.trained
        if self.rl and recipe.sampling.backend == "vllm" and recipe.vllm.sleep == 1:
            found["sleeping vLLM"] = n * self.engine_weights
        return found

    def assumed(self) -> tuple[str, ...]:
        """What the figures rest on."""
        prompt = int(self.inputs(1, 1).starts[0])
        lines = [
            f"every prompt has {prompt:,} tokens ({self.text} of text), every completion {self.completion:,}",
            f"a pass of {self.recipe.batch.micro} x {self.group} rows, {self.pieces} passes in an update",
        ]
        if self.cuda:
            lines.append(
                f"not counted but assumed: {CONTEXT / GIB:g} GiB of CUDA context, {FRAGMENTATION:.0%} of the "
                "peak lost between pieces of memory"
            )
        if self.cut > 1:
            lines.append(f"weights, gradients, optimizer and reference are cut over {self.cut} GPUs (FSDP)")
        return tuple(lines)
