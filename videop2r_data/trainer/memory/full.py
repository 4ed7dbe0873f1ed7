"""Out of memory: which part of the work, how much was asked and free, and which setting to lower."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import MemoryFullError

if TYPE_CHECKING:
    from videop2r_data.trainer.settings.recipe import TrainRecipe

PARTS = {
    "load": "loading the model",
    "reference": "loading the reference",
    "engine": "starting the rollout engine",
    "data": "preparing the batch",
    "rollout": "drawing rollouts",
    "logps": "the log-probabilities of reference and old policy",
    "judge": "the judge's verdicts",
    "update": "the forward and backward pass",
    "step": "the optimizer's step",
    "sync": "handing the weights to the rollout engine",
    "eval": "the evaluation",
    "save": "saving",
}
"""Key -> how a message calls it."""
_GIB = 2**30
_ASKED = re.compile(r"allocate ([\d.]+) ?([KMG]i)?B|allocate (\d+) bytes")
_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@contextmanager
def guarded(part: str) -> Iterator[None]:
    """Within the block a lack of memory, of a device or of the host, is said as one of `part`.

    Raises:
        MemoryFullError: in place of torch's errors and of MemoryError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not host and not any(word in str(error) for word in _WORDS):
            raise
        asked = _asked(str(error))
        raise MemoryFullError(
            f"out of memory in {PARTS[part]}: {asked} asked; {_state(host)}", part="host" if host else part
        ) from error


def _asked(text: str) -> str:
    """What an allocator's message says was asked for.

    >>> _asked("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ...")
    '2.50 GiB'
    >>> _asked("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5368709120 bytes.")
    '5.00 GiB'
    """
    found = _ASKED.search(text)
    if found is None:
        return "an unknown amount"
    return f"{int(found[3]) / _GIB:.2f} GiB" if found[3] else f"{found[1]} {found[2] or ''}B"


def _state(host: bool) -> str:
    """What is free and what is held, of the device or the host."""
    import torch

    if torch.cuda.is_available() and not host:
        free, whole = torch.cuda.mem_get_info()
        held, kept = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        return (
            f"GPU: {free / _GIB:.2f} of {whole / _GIB:.2f} GiB free, {held / _GIB:.2f} in tensors of this "
            f"process, {(kept - held) / _GIB:.2f} kept for more"
        )
    sizes: dict[str, float] = {}
    for path in ("/proc/meminfo", "/proc/self/status"):
        with suppress(OSError):
            sizes |= {k: int(v) / 2**20 for k, v in re.findall(r"(\w+):\s+(\d+) kB", Path(path).read_text())}
    if not {"MemAvailable", "MemTotal", "VmRSS"} <= sizes.keys():
        return "memory of the host"
    return (
        f"host: {sizes['MemAvailable']:.2f} of {sizes['MemTotal']:.2f} GiB free, "
        f"{sizes['VmRSS']:.2f} in this process"
    )


def said(error: MemoryFullError, recipe: TrainRecipe, step: int | None) -> MemoryFullError:
    """The error with what to do: settings to lower, and what is left of the run.

    Args:
        error: of `guarded`.
        recipe: of the run.
        step: of its newest checkpoint; None: there is none.
    """
    left = (
        "there is no checkpoint yet"
        if step is None
        else f"the run goes on from its checkpoint of step {step:,} (with --anyway, if weights are affected)"
    )
    lines = "\n    ".join(advice(recipe, error.part))
    return MemoryFullError(
        error.message,
        part=error.part,
        where=str(recipe.folder),
        hint=f"lower one of these, p2r-train plan counts what it saves; {left}:\n    {lines}",
    )


def advice(recipe: TrainRecipe, part: str) -> list[str]:
    """Settings that would lower the memory of a part, those first that change no result."""
    found = [*_free_of_charge(recipe, part)]
    if part == "host":
        return found or ["fewer processes on this machine, or one with more memory"]
    if recipe.model.lora is None:
        found += _of_weights(recipe)
    if recipe.stage == "rl":
        found.append(f"sampling.max_new_tokens, now {recipe.sampling.max_new_tokens}")
    media = recipe.data.media
    found.append(f"data.media.frames, now {media.frames}, or data.media.max_pixels, now {media.max_pixels}")
    return found


def _free_of_charge(recipe: TrainRecipe, part: str) -> Iterator[str]:
    """Settings that change time alone."""
    data, batch, vllm, group = recipe.data, recipe.batch, recipe.vllm, recipe.rl.group_size
    engine = recipe.stage == "rl" and recipe.sampling.backend
    if part == "host":
        if data.ahead > 1:
            yield f"data.ahead: 1, now {data.ahead}"
        yield f"data.workers: 1, now {data.workers or 'one per core'}"
        if recipe.optim.kind == "adamw-host":
            yield "optim.kind: adamw-master, or adamw-8bit: nothing of the optimizer in the host's memory"
        if engine == "vllm" and vllm.sleep == 1:
            yield "vllm.sleep: 2: the engine's weights are dropped, not moved to the host"
        return
    if part == "engine" or (part == "rollout" and engine == "vllm"):
        yield f"vllm.memory, now {vllm.memory:g} of the device"
    elif engine == "vllm" and vllm.sleep == 0:
        yield "vllm.sleep: 1: the engine gives its memory up while weights are updated"
    if part == "rollout" and engine == "hf" and not 0 < recipe.sampling.rows <= group:
        yield f"sampling.rows: {group}: one group is drawn at a time"
    if batch.micro > 1:
        yield f"batch.micro: {batch.micro // 2}, now {batch.micro}"
    if not recipe.model.gradient_checkpointing:
        yield "model.gradient_checkpointing: true"


def _of_weights(recipe: TrainRecipe) -> Iterator[str]:
    """Settings of weights, reference and optimizer, where all weights are trained."""
    model, kind = recipe.model, recipe.optim.kind
    full = model.dtype == "float32"
    if (
        recipe.stage == "rl"
        and recipe.loss.beta > 0
        and full
        and model.reference_dtype in ("policy", "float32")
    ):
        yield "model.reference_dtype: bfloat16: half of the reference"
    if full and kind == "adamw":
        yield "optim.kind: adamw-8bit: 2 bytes a weight in place of 8 (needs torchao)"
    if full:
        yield "model.dtype: bfloat16 with optim.kind: adamw-host: 4 bytes a weight on the device"
    elif kind != "adamw-host":
        yield "optim.kind: adamw-host: nothing of the optimizer on the device"
    yield "model.lora.rank: 64: adapters in place of all weights"
    yield "more GPUs: accelerate launch --config_file fsdp-8gpu.yaml cuts weights and optimizer over them"
