"""Load a checkpoint as the policy to train, or as the frozen reference of the KL term."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from videop2r_data.backends import number_behind_clips
from videop2r_data.errors import ConfigError, MissingExtraError, first_line
from videop2r_data.trainer.model.forward import TokenLogProbs, TrainModel, check_family
from videop2r_data.trainer.model.weights import adapted, inferring
from videop2r_data.trainer.settings.parts import VISION_TARGETS, LoraSpec, PolicySpec

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs


# The first layer of the vision tower is a convolution whose windows neither overlap nor slide: a matrix
# product. Convolution libraries have no good path for that shape: three times slower than the product on a
# CPU, and with bfloat16 on some GPUs thousands of times (transformers issue 45750).


class PatchProduct(nn.Conv3d):  # type: ignore[misc]
    """A `Conv3d` over inputs of exactly its kernel's size; same weights, same names."""

    def forward(self, patches: Tensor) -> Tensor:
        """[patches, channels, times, side, side] to [patches, width, 1, 1, 1]."""
        out = functional.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
        return out[:, :, None, None, None]


def multiply_patches(net: Any) -> None:
    """Replace the patch convolution of a loaded model by one product; other patch layers are left alone."""
    embed = getattr(net.model.visual, "patch_embed", None)
    layer: Any = getattr(embed, "proj", None)
    if type(layer) is nn.Conv3d and layer.stride == layer.kernel_size and not any(layer.padding):
        # The class is replaced, not the bound method: a deep copy of the model would else use the original's
        # weights.
        layer.__class__ = PatchProduct


# Attention within parts of one long sequence: the windows and frames of the vision tower, or the rows of a
# micro-batch without padding. transformers calls the tower's kernel for each part in a loop, unless the
# kernel's name holds "flash": then it is called once, with the borders.


_WINDOWS = "windows_as_flash"


def attend_parts(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    is_causal: bool | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in which each part sees itself alone; one call for all parts of a length.

    Args:
        module: says whether attention is causal, where `is_causal` does not.
        query, key, value: [1, heads, T, width]; keys and values may have fewer heads.
        cu_seq_lens_q: [parts + 1] borders in T; None: transformers' own attention, with the mask.

    Returns:
        [1, T, heads, width], and no weights.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        more |= {"is_causal": is_causal, "scaling": scaling, "dropout": dropout}
        found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return found
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    lengths = cu_seq_lens_q.diff()
    # the parts in the order of their lengths
    order = torch.argsort(torch.repeat_interleave(lengths, lengths), stable=True)
    sorts = bool((lengths.diff() < 0).any())
    rows = [x[0].transpose(0, 1) for x in (query, key, value)]
    rows = [x[order] for x in rows] if sorts else rows
    known = list(zip(*(x.tolist() for x in lengths.unique(return_counts=True)), strict=True))
    parts = []
    sizes = [length * count for length, count in known]
    for (length, count), *some in zip(known, *(x.split(sizes) for x in rows), strict=True):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in some)
        gqa = q.shape[1] != k.shape[1]
        one = functional.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=gqa
        )
        parts.append(one.transpose(1, 2).flatten(0, 1))
    out = torch.cat(parts)
    return (out[torch.argsort(order)] if sorts else out)[None], None


@dataclass(frozen=True, slots=True)
class Policy:
    """A loaded checkpoint; its net has the adapters that the spec asks for, and is in training mode."""

    net: Any
    processor: Any
    tokenizer: Any

    @property
    def positions(self) -> int | None:
        """Tokens of prompt and completion together; None: the configuration does not say."""
        found = getattr(self.net.config.get_text_config(), "max_position_embeddings", None)
        return found if isinstance(found, int) else None


def load_policy(spec: PolicySpec, device: torch.device | str = "cpu", *, seed: int = 0) -> Policy:
    """Load weights and processor, ready to train; `seed`: of the initial weights of adapters.

    Raises:
        ConfigError: no such model, of another family, or a setting that does not fit it.
        MissingExtraError: adapters are asked for and peft is not installed.
    """
    net = prepared(_load_net(spec, device), spec, seed=seed)
    from transformers import AutoProcessor

    hint = "the folder needs tokenizer and preprocessor files beside the weights"
    with _loading(f"the processor of {spec.model!r}", hint):
        processor = AutoProcessor.from_pretrained(spec.model, revision=spec.revision, trust_remote_code=False)
    return Policy(net, processor, processor.tokenizer)


def prepared(net: Any, spec: PolicySpec, *, seed: int = 0) -> Any:
    """A bare model made ready to train: what is frozen, recomputed or adapted; in training mode."""
    from transformers import AttentionInterface

    if spec.vision_attention == "windows":
        AttentionInterface.register(_WINDOWS, attend_parts)
        net.model.visual.config._attn_implementation = _WINDOWS
    if spec.padding_free and spec.attn == "sdpa":
        # by the kernel's own name: generation and a recomputed forward pass find it too
        AttentionInterface.register("sdpa", attend_parts)
    number_behind_clips(net)
    multiply_patches(net)
    if spec.freeze_vision:
        net.model.visual.requires_grad_(False)
    if spec.gradient_checkpointing:
        # the first of these is the name in newer versions of the library, the second in older ones
        enable = getattr(net, "activation_checkpointing_enable", None) or net.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    net.config.use_cache = False
    if spec.lora is not None:
        net = add_adapters(net, spec.lora, seed=seed)
    return net.train()


def load_reference(
    spec: PolicySpec, device: torch.device | str = "cpu", *, temperature: float = 1.0
) -> TrainModel:
    """A second, frozen copy of the checkpoint, without adapters, as the reference of full fine-tuning."""
    spec = spec.model_copy(update={"lora": None, "gradient_checkpointing": False, "freeze_vision": False})
    net = prepared(_load_net(spec, device), spec).eval().requires_grad_(False)
    options = {"share_prompts": spec.share_prompts, "padding_free": spec.padding_free}
    return TrainModel(net, temperature=temperature, **options)


def add_adapters(net: Any, spec: LoraSpec, *, seed: int = 0) -> Any:
    """Freeze the weights and put low-rank adapters on the linear layers that the spec names.

    Their initial weights are drawn from `seed`; the global generators are left as they were.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: no layer has one of these names.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingExtraError("peft", "train") from None
    parts = [rf"(?:.*\.)?language_model\.layers\..*\.({'|'.join(map(re.escape, spec.targets))})"]
    if spec.vision:
        parts.append(rf"(?:.*\.)?visual\.blocks\..*\.({'|'.join(map(re.escape, VISION_TARGETS))})")
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules="|".join(parts),
        task_type="CAUSAL_LM",
    )
    try:
        devices = [net.device] if net.device.type == "cuda" else []
        with warnings.catch_warnings(), torch.random.fork_rng(devices=devices):
            # peft draws from the global generator: equal adapters on every rank, and in every run of a recipe
            torch.manual_seed(seed)
            # peft 0.21 asks for an attribute that transformers 5.23 has renamed
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return get_peft_model(net, config)
    except ValueError as error:
        raise ConfigError(f"no adapter fits: {first_line(error)}", hint="check lora.targets") from error


@contextmanager
def _loading(what: str, hint: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"transformers cannot load {what}: {first_line(error)}", hint=hint) from error


def kernels(spec: PolicySpec) -> dict[str, str]:
    """Attention of the model and its parts, as transformers takes it; `prepared` does the rest."""
    vision = spec.vision_attention or spec.attn
    return {"": spec.attn, "text_config": spec.attn, "vision_config": vision.replace("windows", "sdpa")}


def _load_net(spec: PolicySpec, device: torch.device | str) -> Any:
    try:
        from transformers import AutoConfig, AutoModelForImageTextToText
        from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
    except ImportError:
        raise MissingExtraError("transformers", "train") from None
    # From the mapped file each weight goes to the device by itself: no process has all of them in the host's
    # memory. ZeRO-3 cuts them as they come, and refuses a map.
    places = {} if is_deepspeed_zero3_enabled() else {"device_map": torch.device(device)}
    with _loading(repr(spec.model), "check model, revision, attn and vision_attention of the policy"):
        safe = {"revision": spec.revision, "trust_remote_code": False}
        check_family(AutoConfig.from_pretrained(spec.model, **safe))
        net = AutoModelForImageTextToText.from_pretrained(
            spec.model,
            **safe,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=kernels(spec),
            **places,
        )
    return net.to(device)


# The reference.


class Reference:
    """Log-probabilities of the model before RL: of `frozen`, else of the policy without its adapters.

    Raises:
        ConfigError: no second model, and no adapters either.
    """

    def __init__(self, model: Any, frozen: Any = None) -> None:
        self._model, self._frozen = model, frozen
        self._adapters: Any = adapted(model)
        if frozen is None and self._adapters is None:
            raise ConfigError(
                "the policy has no adapters, so its reference must be a second, frozen copy",
                hint="load one with load_reference, train with LoRA, or set the KL weight to 0",
            )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def logps(self, inputs: ModelInputs) -> TokenLogProbs:
        """The policy's forward pass with the weights of the reference, without gradient."""
        told: TokenLogProbs
        if self._frozen is not None:
            told = self._frozen(inputs)
        else:
            with inferring(self._model), self._adapters.disable_adapter():
                told = self._model(inputs)
        return told
