"""The memory of a run, part by part and phase by phase, before anything is loaded."""

from __future__ import annotations

import math
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from videop2r_data.errors import ConfigError, MissingExtraError, first_line
from videop2r_data.schemas import Model
from videop2r_data.trainer.memory.full import advice
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.rl import PERCEPTION_BOUNDS, REASONING_BOUNDS

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs
    from videop2r_data.trainer.memory.count import Ledger
    from videop2r_data.trainer.model.forward import TrainModel

GIB = 2**30
# Assumed, not counted: of a GPU ...
CONTEXT = GIB * 3 // 4  # the CUDA context with cuBLAS and cuDNN
NCCL = GIB
DRIVER = 0.012  # the share of a card, as it is sold, that no process sees: an 80 GB card shows 79.1 GiB
FRAGMENTATION = 0.04  # the share of the peak that the allocator holds in pieces that it cannot use
# ... and of the host.
PROCESS, DECODER = 4 * GIB, GIB // 2
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
        recipe: the run. Its `model.model` is a folder with a config.json, or names a packaged shape.
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
    source, config = _config(recipe, shape)
    server = recipe.stage == "rl" and recipe.sampling.backend == "vllm-server" and gpus > 1
    longest = recipe.sampling.max_new_tokens if recipe.stage == "rl" else 0
    longest = completion or longest or PERCEPTION_BOUNDS[1] + REASONING_BOUNDS[1]
    run = _Run(recipe, config, gpus - server, card=int(card * GIB), lengths=(text, longest), cuda=cuda)
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
        assumed=run.assumed(),
    )
    return plan if plan.fits else plan.model_copy(update={"change": tuple(advice(recipe, plan.peak))})


def shapes() -> dict[str, Any]:
    """Name -> configuration of every packaged shape."""
    found: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "shapes.yaml").read_text("utf-8"))
    return found


def _config(recipe: TrainRecipe, shape: str) -> tuple[str, Any]:
    """Where the sizes come from, and transformers' configuration."""
    from transformers import AutoConfig

    from videop2r_data.trainer.model.forward import check_family

    known, named = shapes(), recipe.model.model.lower()
    folder = Path(recipe.model.model).expanduser()
    if not shape and (folder / "config.json").is_file():
        try:
            config = AutoConfig.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ConfigError(first_line(error), where=str(folder / "config.json")) from None
        check_family(config)
        return str(folder), config
    size = re.search(r"(?<![\w.])(\d+b)(?!\w)", named)
    if not shape and size is not None:
        shape = f"{'qwen3-vl' if 'qwen3' in named else 'qwen2.5-vl'}-{size[1]}"
    if shape not in known:
        raise ConfigError(
            f"no sizes of {shape or recipe.model.model!r}: no folder with a config.json, no packaged shape",
            where="model.model",
            hint=f"name a folder, or give --shape: {', '.join(known)}",
        )
    return f"packaged {shape}", AutoConfig.for_model(**known[shape])


class _Run:
    """A recipe, its model without data, and the arithmetic of both, in bytes on one GPU.

    Args:
        recipe, config: the run, and transformers' configuration of its model.
        training: GPUs that train.
        card: bytes of each.
        lengths: tokens of text in a prompt, and of a completion.
        cuda: as in `plan_memory`.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        config: Any,
        training: int,
        *,
        card: int,
        lengths: tuple[int, int],
        cuda: bool,
    ) -> None:
        from videop2r_data.trainer.memory.count import model_of

        self.recipe, self.text, self.training, self.card = recipe, config.text_config, training, card
        self.lengths, self.cuda = lengths, cuda
        self.model: TrainModel = model_of(recipe, config)
        self.learnt = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.count = sum(weight.numel() for weight in self.model.parameters())
        self.trained = sum(weight.numel() for weight in self.learnt)
        lora, self.rl = recipe.model.lora is not None, recipe.stage == "rl"
        self.base = self.count - self.trained if lora else self.count
        self.cut = 1 if lora else training
        self.group = recipe.rl.group_size if self.rl else 1
        self.share = math.ceil(recipe.batch.size / training)
        self.passes = math.ceil(self.share / recipe.rl.minibatches / recipe.batch.micro)
        self.half = recipe.precision == "bf16" or (recipe.precision == "auto" and cuda)
        self.vllm = self.rl and recipe.sampling.backend == "vllm"
        self.engine = self.base * _SIZES[self._of_policy(recipe.vllm.dtype)]

    def _of_policy(self, dtype: str) -> str:
        return self.recipe.model.dtype if dtype == "policy" else dtype

    @cached_property
    def clip(self) -> ModelInputs:
        """One prompt with one completion."""
        return self.rows(1, 1)

    def rows(self, prompts: int, group: int) -> ModelInputs:
        """The longest rows that the recipe allows."""
        from videop2r_data.trainer.memory.count import example

        text, completion = self.lengths
        media = self.recipe.data.media
        return example(self.model.net, media, prompts=prompts, group=group, text=text, completion=completion)

    def counted(self) -> tuple[dict[str, int], dict[str, int]]:
        """Parts and phases."""
        from videop2r_data.trainer.memory.count import bytes_of, count_update

        recipe, rows = self.recipe, self.rows(self.recipe.batch.micro, self.group)
        ledger = count_update(self.model, rows, half=self.half, again=self.passes > 1, entropy=self.rl)
        own = {
            "weights": bytes_of(self.model.parameters()) // self.cut,
            "gradients": bytes_of(self.learnt) // self.cut,
        }
        held = {name: size // self.cut for name, size in (self._optimizer() | self._reference()).items()}
        if self.cut == 1:
            names = ("autocast copies", "logits", "activations")
            work = {name: ledger.peak[name] for name in names}
            update = ledger.peak.total()
        else:
            work = {"gathered layers": self._gathered(), "activations and logits": ledger.work}
            update = sum(own.values()) + sum(work.values())
        whole = self.base * _SIZES[recipe.model.dtype] if self.cut > 1 else 0
        engine = {"vLLM engine": int(recipe.vllm.memory * self.card)} if self.vllm else {}
        kept, awake = sum(held.values()), sum(engine.values()) if recipe.vllm.sleep == 0 else 0
        # torch's update of all weights is fused on a GPU; others, and on a CPU, need room for one weight
        largest = max((weight.numel() for weight in self.learnt), default=0)
        extra = 0 if self.cuda and recipe.optim.kind == "adamw" else 8 * largest
        phases = {"update": update + kept + awake, "step": sum(own.values()) + kept + extra + awake}
        if whole:  # each process loads all weights, then keeps its part
            phases["load"] = whole
        if self.vllm:
            phases["rollout"] = own["weights"] + kept + engine["vLLM engine"]
        elif self.rl and recipe.sampling.backend == "hf":
            # weights that are cut over GPUs are copied whole to decode
            phases["rollout"] = own["weights"] + whole + kept + self._decoding()
        rest = {"reserve": self._reserve(max(phases.values()))} if self.cuda else {"batches": self._pixels()}
        parts = own | held | work | engine | rest
        return parts, {name: size + sum(rest.values()) for name, size in phases.items()}

    def _optimizer(self) -> dict[str, int]:
        kind = self.recipe.optim.kind
        if kind == "adamw-master":
            return {"optimizer": 8 * self.trained, "float32 copies": 4 * self.trained}
        if kind == "adamw":
            return {"optimizer": sum(2 * w.numel() * w.element_size() for w in self.learnt)}
        if kind == "adamw-host":
            return {}
        # torchao: a byte each, and a float32 scale for 256 of them; small weights keep their own type
        sizes = [(w.numel(), w.element_size()) for w in self.learnt]
        return {
            "optimizer": sum(2 * (n + n // 64 if n >= 4096 and n % 256 == 0 else n * s) for n, s in sizes)
        }

    def _reference(self) -> dict[str, int]:
        recipe = self.recipe
        if not self.rl or recipe.loss.beta == 0 or (recipe.model.lora is not None and not recipe.reference):
            return {}
        return {"reference": self.base * _SIZES[self._of_policy(recipe.model.reference_dtype)]}

    def _gathered(self) -> int:
        """FSDP: the outermost weights and two layers, whole, in the type of the pass; with gradients."""
        from videop2r_data.trainer.model.weights import bare

        core = bare(self.model)
        layer = sum(w.numel() for w in core.model.language_model.layers[0].parameters())
        inside = re.compile(r"\.(layers|blocks)\.")
        rest = sum(w.numel() for name, w in core.named_parameters() if not inside.search(name))
        return int(2 * (2 if self.half else 4) * (rest + 2 * layer))

    def _reserve(self, peak: int) -> int:
        shares = FRAGMENTATION * peak + DRIVER * self.card
        return CONTEXT + (NCCL if self.training > 1 else 0) + int(shares)

    def _pixels(self) -> int:
        """The pixels of a step's batch in float32, whole and in micro-batches."""
        each = sum(part.numel() * part.element_size() for part in self.clip.media.values())
        return int(2 * self.share * each)

    def _decoding(self) -> int:
        """The policy draws: the larger one of reading the prompts, and of the last tokens with the cache."""
        from videop2r_data.trainer.memory.count import count_prefill

        sampling, text = self.recipe.sampling, self.text
        prompts = min(self.share, max(1, sampling.rows // self.group)) if sampling.rows else self.share
        before: Ledger = count_prefill(self.model, self.rows(prompts, 1), half=self.half)
        rows, size = prompts * self.group, 2 if self.half else _SIZES[self.recipe.model.dtype]
        columns = int(self.clip.starts[0])
        last = columns + self.lengths[1]
        while columns < last:  # as the cache grows
            columns += 1 + max(64, columns // 8)
        cache = rows * columns * self._kv(size)
        # of one layer, keys and values for every head; or logits in the types of the sampler
        layer = cache // text.num_hidden_layers * text.num_attention_heads // text.num_key_value_heads
        each = size + 4 + 4 + 4 + 8 + 8 + (20 if sampling.top_k or sampling.top_p < 1 else 0)
        drawing = before.peak["autocast copies"] + cache + max(layer, rows * text.vocab_size * each)
        return int(max(before.peak.total() - before.peak["weights"], drawing))

    def _kv(self, size: int) -> int:
        """Bytes of keys and values of a token, of numbers of `size` bytes."""
        text = self.text
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * text.num_hidden_layers * text.num_key_value_heads * head * size)

    def kv_tokens(self, server: bool) -> int | None:
        """Tokens that fit into vLLM's cache beside its weights and 2 GiB of work; None without vLLM."""
        if not self.vllm and not server:
            return None
        room = (0.9 if server else self.recipe.vllm.memory) * self.card - self.engine - 2 * GIB
        return max(0, int(room / self._kv(2)))

    def host(self) -> dict[str, int]:
        """The host's memory, all training processes together."""
        recipe, media, n = self.recipe, self.recipe.data.media, self.training
        workers = recipe.data.workers or media.workers or 8
        frames = media.frames * media.max_pixels * 3 * recipe.data.ahead
        found = {
            "processes": n * PROCESS,
            "decoders": n * workers * DECODER,
            "frames and pixels": n * (self.share * frames + self._pixels()),
            "weights while they load": n * _SIZES[recipe.model.dtype] * self.base,
        }
        if recipe.optim.kind == "adamw-host":
            found["optimizer and float32 copies"] = n * 12 * self.trained
        if self.vllm and recipe.vllm.sleep == 1:
            found["sleeping vLLM"] = n * self.engine
        return found

    def assumed(self) -> tuple[str, ...]:
        """What the figures rest on."""
        prompt, (text, completion) = int(self.clip.starts[0]), self.lengths
        lines = [
            f"every prompt has {prompt:,} tokens ({text} of text), every completion {completion:,}",
            f"a pass has {self.recipe.batch.micro * self.group} rows, an update {self.passes} passes",
        ]
        if self.cut > 1:
            lines.append(f"weights, gradients, optimizer and reference are cut over {self.cut} GPUs (FSDP)")
        if self.cuda:
            lines.append(
                f"the reserve is assumed, not counted: {CONTEXT / GIB:g} GiB of CUDA context, {DRIVER:.1%} "
                f"of the card that no process sees, {FRAGMENTATION:.0%} of the peak between pieces of memory"
                + (f", {NCCL / GIB:g} GiB of NCCL" if self.training > 1 else "")
            )
        return tuple(lines)
