"""What a vLLM worker on a CPU lacks: a second packing of an output layer that shares the embedding's weight.

On CPUs vLLM keeps a packed copy of each matrix and renews it when the matrix is handed over. An output layer
that shares the embedding's weight gets none handed over, so its copy would stay the old one: new layers below
an old output layer (seen with vLLM 0.32; GPUs keep no copy).
"""

from __future__ import annotations

from typing import Any

EXTENSION = "videop2r_data.trainer.rollout.vllm_worker.PackingWorker"
"""For vLLM's `--worker-extension-cls`."""


class PackingWorker:
    """Mixed into vLLM's worker; its methods can be called through `/collective_rpc`."""

    model_runner: Any

    def pack_head_again(self) -> None:
        """Renew the packed copy of the output layer from its weight."""
        pack_head_again(self.model_runner.model)


def pack_head_again(model: Any) -> None:
    """Renew the packed copy of the output layer of a model of vLLM."""
    for layer in model.modules():
        if type(layer).__name__ == "ParallelLMHead":
            layer.quant_method.process_weights_after_loading(layer)
