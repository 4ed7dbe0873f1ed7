"""Write a policy as a folder that `from_pretrained` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from videop2r_data.trainer.model.unwrap import adapted, bare


def save_policy(
    net: Any,
    processor: Any,
    folder: Path,
    *,
    merge: bool = True,
    state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Weights, config, tokenizer and processor.

    Args:
        net: the policy, wrapped or not. Its weights are left as they are.
        processor: saved beside them.
        folder: made if need be.
        merge: add adapters to the weights they sit on, so that the folder is a whole model; else the folder
            holds the adapters alone (peft reads it) .
        state: the full weights of `net`'s bare model by name, where the ranks of a distributed run hold only
            parts (`Accelerator.get_state_dict`); None: those of `net`.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters, core = adapted(net), bare(net)
    core.config.use_cache = True  # training switched it off; readers of the folder generate
    try:
        if adapters is not None and not merge:
            adapters.save_pretrained(folder, state_dict=state)
        elif adapters is not None:
            core.save_pretrained(folder, state_dict=merged_weights(net))
        else:
            core.save_pretrained(folder, state_dict=state)
    finally:
        core.config.use_cache = False
    processor.save_pretrained(folder)
    return folder


def merged_weights(net: Any) -> dict[str, Tensor]:
    """The weights of the bare model by its own names, adapters added in; `net` is left as it is.

    The sums are computed as peft's own merge does, one layer at a time, on copies.
    """
    core = bare(net)
    weights: dict[str, Tensor] = {}
    layers = {name: module for name, module in core.named_modules() if hasattr(module, "get_delta_weight")}
    for name, weight in core.state_dict().items():
        owner = next((o for o in layers if name.startswith(o + ".")), None)
        if owner is None:
            weights[name] = weight
        elif name.startswith(owner + ".base_layer."):
            weights[name.replace(".base_layer.", ".")] = _merged(layers[owner], name, weight)
    return weights


def _merged(layer: Any, name: str, weight: Tensor) -> Tensor:
    if not name.endswith(".base_layer.weight"):
        return weight
    total = weight.detach().clone()
    for adapter in layer.active_adapters:
        total += layer.get_delta_weight(adapter).to(total)
    return total
