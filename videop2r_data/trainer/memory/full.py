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
    told = _on_the_host(recipe) if part == "host" else _on_the_device(recipe, part)
    return [text for applies, text in told if applies]


def _on_the_host(recipe: TrainRecipe) -> list[tuple[bool, str]]:
    data, kind = recipe.data, recipe.optim.kind
    moved = recipe.stage == "rl" and recipe.sampling.backend == "vllm" and recipe.vllm.sleep == 1
    return [
        (data.ahead > 1, f"data.ahead: 1, now {data.ahead}"),
        (True, f"data.workers: 1, now {data.workers or 'one per core'}"),
        (
            kind == "adamw-host",
            "optim.kind: adamw-master, or adamw-8bit: nothing of the optimizer in the host's memory",
        ),
        (moved, "vllm.sleep: 2: the engine's weights are dropped, not moved to the host"),
    ]


def _on_the_device(recipe: TrainRecipe, part: str) -> list[tuple[bool, str]]:
    """Time alone is what the first settings change; those of weights follow, then lengths and frames."""
    model, media, kind = recipe.model, recipe.data.media, recipe.optim.kind
    micro, group, rows = recipe.batch.micro, recipe.rl.group_size, recipe.sampling.rows
    rl, whole, full = recipe.stage == "rl", model.lora is None, model.dtype == "float32"
    engine = recipe.sampling.backend if rl else ""
    room = engine == "vllm" and part == "rollout"
    awake = engine == "vllm" and recipe.vllm.sleep == 0
    second = rl and recipe.loss.beta > 0 and model.reference_dtype in ("policy", "float32")
    return [
        (part == "engine" or room, f"vllm.memory, now {recipe.vllm.memory:g} of the device"),
        (
            awake and part not in ("engine", "rollout"),
            "vllm.sleep: 1: the engine gives its memory up while weights are updated",
        ),
        (
            part == "rollout" and engine == "hf" and not 0 < rows <= group,
            f"sampling.rows: {group}: one group is drawn at a time",
        ),
        (micro > 1, f"batch.micro: {micro // 2}, now {micro}"),
        (not model.gradient_checkpointing, "model.gradient_checkpointing: true"),
        (whole and full and second, "model.reference_dtype: bfloat16: half of the reference"),
        (
            whole and full and kind == "adamw",
            "optim.kind: adamw-8bit: 2 bytes a weight in place of 8 (needs torchao)",
        ),
        (
            whole and full,
            "model.dtype: bfloat16 with optim.kind: adamw-host: 4 bytes a weight on the device",
        ),
        (
            whole and not full and kind != "adamw-host",
            "optim.kind: adamw-host: nothing of the optimizer on the device",
        ),
        (whole, "model.lora.rank: 64: adapters in place of all weights"),
        (
            whole,
            "more GPUs: accelerate launch --config_file fsdp-8gpu.yaml cuts weights and optimizer over them",
        ),
        (rl, f"sampling.max_new_tokens, now {recipe.sampling.max_new_tokens}"),
        (True, f"data.media.frames, now {media.frames}, or data.media.max_pixels, now {media.max_pixels}"),
    ]
