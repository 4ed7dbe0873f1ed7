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
    free, whole, held = (sizes[name] for name in ("MemAvailable", "MemTotal", "VmRSS"))
    return f"host: {free:.2f} of {whole:.2f} GiB free, {held:.2f} in this process"


def said(error: MemoryFullError, recipe: TrainRecipe, step: int | None) -> MemoryFullError:
    """The error of `guarded` with settings to lower, and what is left of the run: its newest checkpoint, of
    `step`, or None."""
    left = "there is no checkpoint yet"
    if step is not None:
        newest = f"its checkpoint of step {step:,}"
        left = f"the run goes on from {newest} (with --anyway, if weights are affected)"
    lines = "\n    ".join(advice(recipe, error.part))
    return MemoryFullError(
        error.message,
        part=error.part,
        where=str(recipe.folder),
        hint=f"lower one of these, p2r-train plan counts what it saves; {left}:\n    {lines}",
    )


def advice(recipe: TrainRecipe, part: str) -> list[str]:
    """Settings that would lower the memory of a part, those first that change no result."""
    told = _on_the_host(recipe) if part == "host" else _on_the_device(recipe, part)
    return [text for text, applies in told.items() if applies]


def _on_the_host(recipe: TrainRecipe) -> dict[str, bool]:
    data, moments = recipe.data, recipe.optim.kind == "adamw-host"
    moved = recipe.stage == "rl" and recipe.sampling.backend == "vllm" and recipe.vllm.sleep == 1
    return {
        f"data.ahead: 1, now {data.ahead}": data.ahead > 1,
        f"data.workers: 1, now {data.workers or 'one per core'}": True,
        "optim.kind: adamw-master, or adamw-8bit: nothing of the optimizer in the host's memory": moments,
        "vllm.sleep: 2: the engine's weights are dropped, not moved to the host": moved,
    }


def _on_the_device(recipe: TrainRecipe, part: str) -> dict[str, bool]:
    """First what changes time alone; then settings of weights where all are trained; then lengths, frames."""
    model, media, kind = recipe.model, recipe.data.media, recipe.optim.kind
    micro, group, rl = recipe.batch.micro, recipe.rl.group_size, recipe.stage == "rl"
    engine = recipe.sampling.backend if rl else ""
    room = part == "engine" or (part == "rollout" and engine == "vllm")
    awake = engine == "vllm" and recipe.vllm.sleep == 0 and not room
    drawn = part == "rollout" and engine == "hf" and not 0 < recipe.sampling.rows <= group
    whole, sharded = model.lora is None, "accelerate launch --config_file fsdp-8gpu.yaml"
    full, half = whole and model.dtype == "float32", whole and model.dtype != "float32"
    second = full and rl and recipe.loss.beta > 0 and model.reference_dtype in ("policy", "float32")
    return {
        f"vllm.memory, now {recipe.vllm.memory:g} of the device": room,
        "vllm.sleep: 1: the engine gives its memory up while weights are updated": awake,
        f"sampling.rows: {group}: one group is drawn at a time": drawn,
        f"batch.micro: {micro // 2}, now {micro}": micro > 1,
        "model.gradient_checkpointing: true": not model.gradient_checkpointing,
        "model.reference_dtype: bfloat16: half of the reference": second,
        "optim.kind: adamw-8bit: 2 bytes a weight in place of 8 (needs torchao)": full and kind == "adamw",
        "model.dtype: bfloat16 with optim.kind: adamw-host: 4 bytes a weight on the device": full,
        "optim.kind: adamw-host: nothing of the optimizer on the device": half and kind != "adamw-host",
        "model.lora.rank: 64: adapters in place of all weights": whole,
        f"more GPUs: {sharded} cuts weights and optimizer over them": whole,
        f"sampling.max_new_tokens, now {recipe.sampling.max_new_tokens}": rl,
        f"data.media.frames, now {media.frames}, or data.media.max_pixels, now {media.max_pixels}": True,
    }
