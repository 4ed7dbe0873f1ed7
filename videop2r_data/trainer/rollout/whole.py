"""A whole copy of a policy whose weights are cut over ranks (FSDP, ZeRO-3), for drawing rollouts.

Written token by token, a rollout would gather every layer again for each token, and all ranks would have to
go on until the last row of the last of them ends. A copy costs the memory of the weights once more per rank,
and one walk through the weights per update; then every rank draws on its own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

from videop2r_data.backends.chat_input import number_behind_clips
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.patches import multiply_patches
from videop2r_data.trainer.model.unwrap import bare
from videop2r_data.trainer.rollout.vllm_weights import policy_weights


class WholeCopy:
    """The same model, whole on this rank, without gradients.

    Args:
        net: the policy as it was wrapped.
        dtype: type of the copy's weights; None: the policy's.
    """

    def __init__(self, net: Any, dtype: torch.dtype | None = None) -> None:
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        core = bare(net)
        config = deepcopy(core.config)
        weight = next(core.parameters())
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype or weight.dtype)
        try:
            # The constructor itself: the library's loaders would cut this copy too under ZeRO-3.
            with torch.device(weight.device):
                made = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)](config)
        finally:
            torch.set_default_dtype(before)
        number_behind_clips(made)
        multiply_patches(made)
        self.net = made.eval().requires_grad_(False)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load(self, net: Any) -> None:
        """Take over the policy's weights, adapters added in; every rank must call it.

        Raises:
            ConfigError: the policy has weights that the copy has not, or the reverse.
        """
        mine = dict(self.net.named_parameters())
        for name, weight in policy_weights(net):
            if name not in mine:
                raise ConfigError(f"weight {name!r} has no place in a {type(self.net).__name__}")
            mine.pop(name).copy_(weight)
        if mine:
            raise ConfigError(f"the policy lacks {len(mine)} weights of its own kind, first {min(mine)!r}")
