"""The model inside its wrappers; its whole weights under the names of the checkpoint, one by one or saved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videop2r_data.errors import ConfigError

# Wrappers.


WRAPPED = ("module", "net", "_fsdp_wrapped_module")
"""Attributes in which DDP and DeepSpeed, `TrainModel` and FSDP keep the model that they wrap."""


def bare(net: Any) -> Any:
    """The transformers model, with `model` and `lm_head`, inside wrappers and adapters."""
    while True:
        adapters = hasattr(net, "peft_config") and hasattr(net, "get_base_model")
        inside = net.get_base_model() if adapters else _inside(net)
        if inside is None:
            return net
        net = inside


def adapted(net: Any) -> Any | None:
    """The model with its adapters (peft's wrapper), or None where there are none."""
    while net is not None and not (hasattr(net, "peft_config") and hasattr(net, "disable_adapter")):
        net = _inside(net)
    return net


def _inside(net: Any) -> Any | None:
    """The model inside a wrapper; None if `net` is not one."""
    modules = getattr(net, "_modules", {})
    return next((modules[name] for name in WRAPPED if modules.get(name) is not None), None)


@contextmanager
def inferring(net: Any) -> Iterator[None]:
    """Within the block the model is in eval mode: no dropout, no gradient checkpointing, caches allowed."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def sharding(net: Any) -> str | None:
    """How the weights are sharded: "FSDP", "FSDP2", "ZeRO-3", or None if each rank holds them whole."""
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in net.modules()):
        return "FSDP"
    for weight in net.parameters():
        if hasattr(weight, "ds_id"):
            return "ZeRO-3"
        if hasattr(weight, "full_tensor"):
            return "FSDP2"
    return None


# Whole weights under the names of the checkpoint, one at a time, as vLLM's `load_weights` wants them. All
# wrappers are off, adapters added into copies of the matrices that they adapt, and sharded weights gathered,
# which is collective: every rank must run through the whole iterator, in step.
#
# The sum of base and adapter in bfloat16 is rounded once, while the policy adds the two products. So rollouts
# of a LoRA policy come from a model that differs from it in the last bits, as with every engine that merges
# adapters.


_WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
_ADAPTER = re.compile(r"\.(?:lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)\.")


def checkpoint_name(name: str) -> str | None:
    """The name that a parameter of the policy has in a checkpoint; None for a parameter of an adapter.

    >>> checkpoint_name("model.layers.0._checkpoint_wrapped_module.mlp.up_proj.base_layer.weight")
    'model.layers.0.mlp.up_proj.weight'
    >>> checkpoint_name("model.visual.blocks.0.attn.qkv.lora_A.default.weight")
    """
    if _ADAPTER.search(name):
        return None
    return _WRAPPERS.sub("", name).replace(".base_layer.", ".")


def weight_metas(net: Any, dtype: Any = None) -> list[tuple[str, Any, tuple[int, ...]]]:
    """Names, types and full shapes, in the order of `policy_weights`; nothing is gathered."""
    return [
        (name, dtype or p.dtype, tuple(getattr(p, "ds_shape", None) or p.shape))
        for name, p, _ in _parameters(net)
    ]


def policy_weights(net: Any, dtype: Any = None) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the policy, adapters merged, whole: its name in the checkpoint and a detached tensor.

    Where nothing had to be merged, gathered or converted to `dtype` the tensor shares the policy's memory: do
    not write to it.

    Raises:
        ConfigError: an adapter of a kind that cannot be merged as a sum.
    """
    whole: AbstractContextManager[Any] = nullcontext()
    if sharding(net) == "FSDP":
        from torch.distributed.fsdp import FullyShardedDataParallel

        outermost = next(m for m in net.modules() if isinstance(m, FullyShardedDataParallel))
        whole = FullyShardedDataParallel.summon_full_params(outermost, writeback=False)
    with torch.no_grad(), whole:
        for name, parameter, layer in _parameters(net):
            with _gathered(parameter, layer):
                weight = _full(parameter.detach())
                if layer is not None and name.endswith(".weight"):
                    weight = _merged(weight, layer, name)
                if dtype is not None:
                    weight = weight.to(dtype)
                if hasattr(parameter, "ds_id"):
                    weight = weight.clone()  # gathered memory is given back when the block ends
            yield name, weight


def _parameters(net: Any) -> Iterator[tuple[str, Any, Any]]:
    """Checkpoint name, parameter, and the adapted layer that it is the base of, if any."""
    core = bare(net)
    layers = [m for m in core.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
    owners = {id(p): m for m in layers for p in m.base_layer.parameters(recurse=False)}
    for name, parameter in core.named_parameters():
        if (known := checkpoint_name(name)) is not None:
            yield known, parameter, owners.get(id(parameter))


def _merged(weight: Tensor, layer: Any, name: str) -> Tensor:
    """Base plus the sum of its active adapters, scale included, in float32, rounded once."""
    if layer.disable_adapters or layer.merged:
        return weight
    out, variants = weight.float(), getattr(layer, "lora_variant", {})
    for adapter in (name for name in layer.active_adapters if name in layer.lora_A):
        if variants.get(adapter) is not None or getattr(layer, "fan_in_fan_out", False):
            raise ConfigError(
                f"the adapter of {name} is no plain LoRA: it cannot be merged for vLLM",
                hint="use plain LoRA adapters, or rollout backend 'hf'",
            )
        low, high = _full(layer.lora_A[adapter].weight), _full(layer.lora_B[adapter].weight)
        delta = high.float().flatten(1) @ low.float().flatten(1)
        out = out + delta.view_as(out) * layer.scaling[adapter]
    return out.to(weight.dtype)


def _full(tensor: Any) -> Any:
    """A weight sharded by FSDP2, gathered; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if callable(gather) else tensor


def _gathered(parameter: Any, layer: Any) -> AbstractContextManager[Any]:
    """ZeRO-3: within the block the weight and those of its adapters are whole."""
    adapters = () if layer is None else (layer.lora_A, layer.lora_B)
    parts = [parameter, *(part for module in adapters for part in module.parameters())]
    parts = [part for part in parts if hasattr(part, "ds_id")]
    if not parts:
        return nullcontext()
    import deepspeed  # type: ignore[import-not-found, unused-ignore]

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parts)
    return context


# Saving.


def save_policy(
    net: Any, processor: Any, folder: Path, *, merge: bool = True, state: Mapping[str, Tensor] | None = None
) -> None:
    """Weights, config, tokenizer and processor.

    Args:
        net: the policy, wrapped or not. Its weights are left as they are.
        processor, folder: what is saved beside them; where to, made if need be.
        merge: add adapters to the weights they sit on, so that the folder is a whole model; else the folder
            holds the adapters alone (peft reads it).
        state: of sharded weights, gathered by every rank; None: gathered here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters, core = adapted(net), bare(net)
    core.config.use_cache = True  # training switched it off, and the config is saved for use in generation
    saved: Any = core if merge or adapters is None else adapters
    if state is None and saved is core:
        state = dict(policy_weights(net))
    try:
        saved.save_pretrained(folder, state_dict=state)
    finally:
        core.config.use_cache = False
    processor.save_pretrained(folder)
