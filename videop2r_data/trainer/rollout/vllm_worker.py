"""What vLLM 0.32 lacks on a CPU: a new output layer after an update.

On CPUs vLLM keeps a packed copy of each matrix and renews it when the matrix is handed over. An output layer
that shares the embedding's weight is not handed over, so its packed copy would stay that of the old policy:
new layers below an old output layer. GPUs keep no such copy.
"""

from __future__ import annotations

from typing import Any


def pack_head_again(model: Any) -> None:
    """Renew the packed copy of the output layer of a model of vLLM."""
    for layer in model.modules():
        if type(layer).__name__ == "ParallelLMHead":
            layer.quant_method.process_weights_after_loading(layer)


class PackingWorker:
    """Mixed into vLLM's worker; its methods can be called through `/collective_rpc`."""

    model_runner: Any

    def pack_head_again(self) -> None:
        """Renew the packed copy of the output layer from its weight."""
        pack_head_again(self.model_runner.model)
