"""From whatever wraps a model to the model, and what its wrapping allows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WRAPPED = ("module", "net", "_fsdp_wrapped_module")
"""Under which name a wrapper (DDP, DeepSpeed; `TrainModel`; FSDP) keeps what it wraps."""


def bare(net: Any) -> Any:
    """The library's own model, with `model` and `lm_head`, inside trainers, wrappers and adapters.

    Takes a `TrainModel`, a net, either of them with adapters or wrapped by DDP, FSDP or DeepSpeed.
    """
    while True:
        inside = _inside(net)
        if hasattr(net, "peft_config") and hasattr(net, "get_base_model"):
            net = net.get_base_model()
        elif inside is None:
            return net
        else:
            net = inside


def adapted(net: Any) -> Any | None:
    """The model with its adapters (peft's wrapper), or None where there are none."""
    while net is not None:
        if hasattr(net, "peft_config") and hasattr(net, "disable_adapter"):
            return net
        net = _inside(net)
    return None


def _inside(net: Any) -> Any | None:
    """What a wrapper holds; None if `net` is none."""
    modules = getattr(net, "_modules", {})
    return next((modules[name] for name in WRAPPED if modules.get(name) is not None), None)


@contextmanager
def adapters_off(net: Any) -> Iterator[None]:
    """Within the block the model is the one that the adapters were put on.

    Raises:
        ValueError: there are no adapters.
    """
    adapters = adapted(net)
    if adapters is None:
        raise ValueError("the model has no adapters to switch off: load a second, frozen copy as reference")
    with adapters.disable_adapter():
        yield


@contextmanager
def inferring(net: Any) -> Iterator[None]:
    """Within the block the model does not train: no dropout, no checkpointing, caches allowed.

    `net` may be wrapped; modes are restored, module by module.
    """
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def sharding(net: Any) -> str | None:
    """How the weights are cut over ranks: "FSDP", "FSDP2", "ZeRO-3", or None if each rank holds them all."""
    for module in net.modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            return "FSDP"
    for weight in net.parameters():
        if hasattr(weight, "ds_id"):
            return "ZeRO-3"
        if hasattr(weight, "full_tensor"):
            return "FSDP2"
    return None
