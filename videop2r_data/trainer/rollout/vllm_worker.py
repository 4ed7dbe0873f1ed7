"""Workarounds for vLLM 0.32 in a trainer: stale output layer on CPUs, reseeded generators, process group.

On CPUs vLLM keeps a packed copy of each matrix and renews it when the matrix is handed over. An output layer
that shares the embedding's weight is not handed over, so its packed copy would stay that of the old policy:
new layers below an old output layer. GPUs keep no such copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Restore the global generators after the block: a starting engine seeds them all."""
    import random

    import numpy as np
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def own_groups_only() -> Iterator[None]:
    """Within the block an engine that stops leaves the trainer's process group standing.

    An engine assumes that it owns its process, and destroys the default group of torch.distributed.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        yield
        return
    from vllm.distributed.parallel_state import destroy_model_parallel
    from vllm.v1.engine import core

    original = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = destroy_model_parallel
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory = original
