"""What a vLLM engine must leave alone in a process that it shares with the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """The global generators of Python, numpy and torch go on afterwards as if nothing had been drawn.

    A starting engine seeds them all.
    """
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


def free_memory() -> None:
    """Give the device's memory back."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
