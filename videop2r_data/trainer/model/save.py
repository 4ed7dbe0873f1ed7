"""Write a policy as a folder that `from_pretrained` reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from videop2r_data.trainer.model.unwrap import adapted, bare, sharding
from videop2r_data.trainer.rollout.vllm_weights import policy_weights


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
            holds the adapters alone (peft reads it).
        state: where the ranks of a distributed run hold only parts of the weights: `merged_weights(net)`,
            which every rank must call before one of them saves. None: gathered here.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters, core = adapted(net), bare(net)
    core.config.use_cache = True  # training switched it off; readers of the folder generate
    try:
        if adapters is not None and not merge:
            adapters.save_pretrained(folder, state_dict=state)
        else:
            core.save_pretrained(folder, state_dict=state if state is not None else merged_weights(net))
    finally:
        core.config.use_cache = False
    processor.save_pretrained(folder)
    return folder


def merged_weights(net: Any) -> dict[str, Tensor]:
    """The weights of the bare model by its own names, adapters added in; `net` is left as it is.

    Weights that are cut over ranks (FSDP, ZeRO-3) are gathered, one at a time, into the memory of the host:
    every rank must call this.
    """
    cut = sharding(net) is not None
    # a copy even on the CPU: gathered memory is given back at the end of the walk
    return {name: weight.to("cpu", copy=True) if cut else weight for name, weight in policy_weights(net)}
