"""Arithmetic of a Qwen2.5-VL step, and what the machine can do: the two sides of model FLOPs utilisation.

    python -m benchmarks._gpu_flops        # prints the machine as one line of JSON

MFU is the share of the device's arithmetic that the *model* needs: FLOPs of the forward and backward passes
that the mathematics asks for, over seconds times the device's highest rate. What is computed twice to save
memory (gradient checkpointing, logits of the loss) is not counted as work. [Chowdhery et al. 2022, PaLM,
arXiv 2204.02311, appendix B: there 6 N + 12 L H Q T a token, N weights, L layers, H heads of size Q, T long]

Here, in multiplications (2 FLOPs each), for prompts of P tokens with completions of C tokens and their clips:

- every matrix of a layer once for each token, prompts counted once for their group: sum(P) + sum(C) tokens;
- the output layer for completion tokens only, which are all that the loss reads;
- attention for the pairs of tokens that see each other, P (P + 1) / 2 in a prompt, C P + C (C + 1) / 2 of a
  completion (PaLM's 12 L H Q T counts all T x T pairs: ours is lower);
- the vision tower: its matrices for each patch, its pairs within windows and, in the full layers, frames.

A backward pass costs two forward passes where all weights train (gradients of inputs and of weights), and one
where adapters train (gradients of inputs; the adapters' own products are left out, about 2 % at rank 64). The
frozen tower of adapters has no backward pass. Drawing a completion costs what its forward pass costs.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, NamedTuple

PEAK_TFLOPS = (
    ("H200", 989.4),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.5),
    ("H100", 989.4),
    ("A100", 311.9),
)
"""Part of a device's name -> dense bfloat16 TFLOP/s of NVIDIA's data sheets; the first match counts."""

PACKAGES = ("torch", "transformers", "accelerate", "peft", "torchao", "bitsandbytes", "vllm")


class Pass(NamedTuple):
    """What one forward pass reads.

    Attributes:
        prompts: tokens of each distinct prompt.
        completions: tokens of each completion, `len(completions) / len(prompts)` in a row for each prompt.
        grids: (time, height, width) in patches of each image or clip.
    """

    prompts: Sequence[int]
    completions: Sequence[int]
    grids: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Multiplications of a model's forward pass.

    Attributes:
        token: of a token in the layers of the language model.
        head: of a token in the output layer.
        pair: of a pair of tokens in attention, all layers together.
        patch: of a patch in the vision tower, without the merger.
        merged: of `merge` ** 2 patches in the merger.
        patch_pair: of a pair of patches in attention, one layer.
        windowed, full: layers of the tower of each kind.
        window: side of a window in patches.
        merge: sides of patches that become one token.
    """

    token: int
    head: int
    pair: int
    patch: int
    merged: int
    patch_pair: int
    windowed: int
    full: int
    window: int
    merge: int

    @staticmethod
    def of(config: Any) -> Sizes:
        """From the configuration of a Qwen2.5-VL."""
        text, vision = config.text_config, config.vision_config
        hidden, heads, layers = text.hidden_size, text.num_attention_heads, text.num_hidden_layers
        size = getattr(text, "head_dim", None) or hidden // heads
        attention = hidden * size * 2 * (heads + text.num_key_value_heads)
        width, merge = vision.hidden_size, vision.spatial_merge_size
        pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        full = len(vision.fullatt_block_indexes)
        block = 4 * width**2 + 3 * width * vision.intermediate_size
        wide = width * merge**2
        return Sizes(
            token=layers * (attention + 3 * hidden * text.intermediate_size),
            head=hidden * text.vocab_size,
            pair=layers * 2 * heads * size,
            patch=pixels * width + vision.depth * block,
            merged=wide * wide + wide * vision.out_hidden_size,
            patch_pair=2 * width,
            windowed=vision.depth - full,
            full=full,
            window=vision.window_size // vision.patch_size,
            merge=merge,
        )

    def language(self, done: Pass) -> float:
        """FLOPs of the language model's forward pass."""
        group = len(done.completions) // max(1, len(done.prompts))
        pairs = sum(p * (p + 1) // 2 for p in done.prompts)
        pairs += sum(c * done.prompts[i // group] + c * (c + 1) // 2 for i, c in enumerate(done.completions))
        drawn = sum(done.completions)
        return 2.0 * (self.token * (sum(done.prompts) + drawn) + self.head * drawn + self.pair * pairs)

    def vision(self, done: Pass) -> float:
        """FLOPs of the vision tower's forward pass."""
        total = 0
        for t, h, w in done.grids:
            patches = t * h * w
            total += patches * self.patch + patches // self.merge**2 * self.merged
            inside = self._squares(h) * self._squares(w)
            total += t * self.patch_pair * (self.windowed * inside + self.full * (h * w) ** 2)
        return 2.0 * total

    def _squares(self, side: int) -> int:
        """Sum of the squares of the windows' sides along a side: windows at the edge are smaller."""
        whole, rest = divmod(side, self.window)
        return int(whole * self.window**2 + rest**2)

    def forward(self, done: Pass) -> float:
        """FLOPs of a forward pass: of the reference, and of drawing these completions."""
        return self.language(done) + self.vision(done)

    def update(self, done: Pass, *, adapters: bool) -> float:
        """FLOPs of a forward and backward pass."""
        if adapters:
            return 2 * self.language(done) + self.vision(done)
        return 3 * self.forward(done)


def peak_tflops(name: str) -> float | None:
    """Dense bfloat16 TFLOP/s of a device by its name; None: not in the table.

    >>> peak_tflops("NVIDIA H100 80GB HBM3"), peak_tflops("NVIDIA H100 PCIe"), peak_tflops("Some CPU")
    (989.4, 756.5, None)
    """
    return next((rate for part, rate in PEAK_TFLOPS if part in name), None)


def mfu(flops: float, seconds: float, tflops: float) -> float | None:
    """Share of the device's rate that the model's arithmetic took; None where nothing was timed.

    >>> mfu(494.7e12, 1.0, 989.4)
    0.5
    """
    return round(flops / (seconds * tflops * 1e12), 4) if seconds > 0 and tflops > 0 else None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where figures were taken.

    Attributes:
        device: the accelerator, or the processor.
        cuda: whether it is a GPU.
        memory_gib: of the device.
        peak: TFLOP/s that MFU is a share of: the data sheet's where it is known, else `measured`.
        peak_from: `data sheet` or `measured`.
        measured: TFLOP/s of a large square matrix product here, in the type that training computes in.
    """

    device: str
    cuda: bool
    memory_gib: float
    peak: float
    peak_from: str
    measured: float

    @staticmethod
    def told(text: str) -> Machine:
        """From the line of JSON that this module prints."""
        data = json.loads(text)
        return Machine(**{field.name: data[field.name] for field in fields(Machine)})


def look_at_machine() -> Machine:
    """Time a matrix product (8192 on a GPU in bfloat16, 1024 on a CPU in float32; random numbers) and look up
    the device."""
    import torch

    cuda = torch.cuda.is_available()
    side, kind = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    left, right = (torch.randn(side, side, device="cuda" if cuda else "cpu").to(kind) for _ in range(2))
    spent = []
    for _ in range(13):
        began = time.perf_counter()
        left @ right
        if cuda:
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    measured = round(2 * side**3 / median(spent[3:]) / 1e12, 3)
    if cuda:
        name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
    else:
        name, memory = platform.processor() or platform.machine(), 0
    known = peak_tflops(name) if cuda else None
    source = "data sheet" if known else "measured"
    return Machine(name, cuda, round(memory / 2**30, 1), known or measured, source, measured)


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def driver() -> str:
    """Version of NVIDIA's driver; empty without one."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    print(json.dumps({**asdict(look_at_machine()), "driver": driver(), "versions": versions()}))
