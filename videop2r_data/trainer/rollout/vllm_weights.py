"""The policy's weights, one by one, whole, and under the names of its checkpoint.

vLLM's `load_weights` knows those names. Here wrappers are taken off (DDP, FSDP, DeepSpeed, `torch.compile`),
adapters are added into copies of the matrices that they adapt (the policy itself is not touched), and weights
that are cut over ranks are gathered, one at a time. Gathering is a collective: every rank must walk through
the whole iterator, in step.

A sum of base and adapter in bfloat16 is rounded once; the policy adds the two products instead. So rollouts
of a LoRA policy come from a model that differs from it in the last bits, as with every engine that merges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.unwrap import bare, sharding

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.")
_ADAPTER = re.compile(r"\.(?:lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)\.")


class Meta(NamedTuple):
    """What is known of a weight without gathering it: its name, type and full shape."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


def checkpoint_name(name: str) -> str | None:
    """The name that a parameter of the policy has in a checkpoint; None for a parameter of an adapter.

    >>> checkpoint_name("model.layers.0._checkpoint_wrapped_module.mlp.up_proj.base_layer.weight")
    'model.layers.0.mlp.up_proj.weight'
    >>> checkpoint_name("model.visual.blocks.0.attn.qkv.lora_A.default.weight")
    """
    if _ADAPTER.search(name):
        return None
    return _WRAPPERS.sub("", name).replace(".base_layer.", ".")


def weight_metas(net: Any, dtype: Any = None) -> list[Meta]:
    """Names, types and full shapes, in the order of `policy_weights`; nothing is gathered."""
    return [Meta(name, dtype or p.dtype, _shape(p)) for name, p, _ in _parameters(net)]


def policy_weights(net: Any, dtype: Any = None) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the policy, adapters merged, whole.

    Args:
        net: the policy, wrapped or not.
        dtype: torch type to hand weights out in; None: their own.

    Yields:
        Name in the checkpoint and detached tensor; where nothing had to be merged, gathered or converted it
        *is* the policy's memory: read it, do not write.

    Raises:
        ConfigError: an adapter of a kind that cannot be merged as a sum.
    """
    import torch

    whole: AbstractContextManager[Any] = nullcontext()
    if sharding(net) == "FSDP":
        from torch.distributed.fsdp import FullyShardedDataParallel

        whole = FullyShardedDataParallel.summon_full_params(_fsdp_root(net), writeback=False)
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
    layers = {id(m): m for m in core.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")}
    owners = {id(p): m for m in layers.values() for p in m.base_layer.parameters(recurse=False)}
    for name, parameter in core.named_parameters():
        known = checkpoint_name(name)
        if known is not None:
            yield known, parameter, owners.get(id(parameter))


def _merged(weight: Tensor, layer: Any, name: str) -> Tensor:
    """Base plus the sum of its active adapters, scale included, in float32, rounded once."""
    if layer.disable_adapters or layer.merged:
        return weight
    out = weight.float()
    for adapter in layer.active_adapters:
        if adapter not in layer.lora_A:
            continue
        variant = getattr(layer, "lora_variant", {}).get(adapter)
        if variant is not None or getattr(layer, "fan_in_fan_out", False):
            raise ConfigError(
                f"the adapter of {name} is no plain LoRA: it cannot be merged for vLLM",
                hint="use plain LoRA adapters, or rollout backend 'hf'",
            )
        low, high = _full(layer.lora_A[adapter].weight), _full(layer.lora_B[adapter].weight)
        delta = high.float().flatten(1) @ low.float().flatten(1)
        out = out + delta.view_as(out) * layer.scaling[adapter]
    return out.to(weight.dtype)


def _full(tensor: Any) -> Any:
    """A cut weight (FSDP2) gathered; any other as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if callable(gather) else tensor


def _gathered(parameter: Any, layer: Any) -> AbstractContextManager[Any]:
    """ZeRO-3: the weight, and those of its adapters, whole within the block."""
    parts = [parameter]
    if layer is not None:
        parts += [p for module in (layer.lora_A, layer.lora_B) for p in module.parameters()]
    parts = [p for p in parts if hasattr(p, "ds_id")]
    if not parts:
        return nullcontext()
    import deepspeed  # type: ignore[import-not-found, unused-ignore]

    context: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parts)
    return context


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", None) or parameter.shape)


def _fsdp_root(net: Any) -> Any:
    """The outermost module that FSDP wrapped."""
    return next(m for m in net.modules() if type(m).__name__ == "FullyShardedDataParallel")
