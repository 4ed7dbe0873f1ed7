"""Log-probabilities of the model before RL: the policy with its adapters off, or a second copy that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.model.forward import TokenLogProbs
from videop2r_data.trainer.model.unwrap import adapted, adapters_off, inferring

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs


class Reference:
    """The reference model.

    Args:
        model: the policy, a `TrainModel` as it was wrapped.
        frozen: `load_reference(...)`, for full fine-tuning; None: switch the policy's adapters off.

    Raises:
        ConfigError: no second model, and no adapters either.
    """

    def __init__(self, model: Any, frozen: Any = None) -> None:
        if frozen is None and adapted(model) is None:
            raise ConfigError(
                "the policy has no adapters, so its reference must be a second, frozen copy",
                hint="load one with load_reference, train with LoRA, or set the KL weight to 0",
            )
        self._model = model
        self._frozen = frozen

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def logps(self, inputs: ModelInputs) -> TokenLogProbs:
        """As the policy's forward, without gradient."""
        if self._frozen is not None:
            told: TokenLogProbs = self._frozen(inputs)
            return told
        with inferring(self._model), adapters_off(self._model):
            told = self._model(inputs)
        return told
