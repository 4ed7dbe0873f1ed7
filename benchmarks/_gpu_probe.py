"""One training run with clocks, counts of its arithmetic and its peak memory, for `gpu_step.py`.

    python -m benchmarks._gpu_probe RECIPE.yaml FIGURES.json [--profile TABLE.txt]

It is the real run (`videop2r_data.trainer.train`), with clocks around drawing and its first token, and a
note of what each forward pass read. It stops after the last step, before anything is saved: the states of a
large model would cost more time and disk than the steps. The device is waited for at each mark, which a run
without the probe does not do; marks are few (a handful a step, one for each micro-batch).

Memory: on a GPU the most that torch had allocated between two marks, on a CPU the highest resident set of the
process; `start` is what it held before anything was loaded (libraries).
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks._gpu_flops import Pass, Sizes
from videop2r_data.trainer import Row, load_train_recipe, train
from videop2r_data.trainer.model import TrainModel
from videop2r_data.trainer.rollout import HfEngine

SHOWN = 25
"""Lines of a profile."""


class FinishedError(Exception):
    """The last step is done: leave before anything is saved."""


class Memory:
    """The highest use of memory in each phase, in bytes."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        self.peaks: dict[str, int] = {}
        self.mark("start")

    def mark(self, phase: str) -> None:
        """What was used since the last mark belongs to this phase."""
        if self.cuda:
            torch.cuda.synchronize()
            used = torch.cuda.max_memory_allocated()
        else:
            used = _highest_resident()
        self.peaks[phase] = max(self.peaks.get(phase, 0), used)
        self._reset()

    def _reset(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            with suppress(OSError):  # not every kernel allows it: then the peaks only grow
                Path("/proc/self/clear_refs").write_text("5")


def _highest_resident() -> int:
    """Bytes of the highest resident set since it was last reset."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Meter:
    """Watches a run step by step; `steps` holds one entry for each.

    Args:
        sizes: of the model.
        adapters: whether adapters are trained.
        profile: where the table of the profiler goes; None: no profile.
    """

    def __init__(self, sizes: Sizes, *, adapters: bool, profile: Path | None = None) -> None:
        self.sizes, self.adapters, self.memory = sizes, adapters, Memory()
        self.steps: list[dict[str, Any]] = []
        self.now: dict[str, float] = {}
        self.last, self._profile = 0, profile
        self._profiler: Any = None
        self.top: list[dict[str, Any]] = []

    def add(self, name: str, value: float) -> None:
        """Add to a figure of the step under way."""
        self.now[name] = self.now.get(name, 0.0) + value

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The model is loaded, and its reference: what was used until here is loading."""
        self.last = steps
        self.memory.mark("load")

    def row(self, row: Row) -> None:
        """A step has ended.

        Raises:
            FinishedError: it was the last one.
        """
        if "loss" not in row:
            return
        self.memory.mark("update")
        times = {name[5:-2]: row[name] for name in row if name.startswith("time/")}
        self.steps.append({"times": times, "tokens_per_s": row["tokens_per_s"], **self.now})
        self.now = {}
        if row["step"] == self.last:
            self._end_profile()
            raise FinishedError
        if self._profile is not None and self._profiler is None:
            self._profiler = torch.profiler.profile()
            self._profiler.start()

    def note(self, text: str) -> None:
        """Nothing to measure."""

    def _end_profile(self) -> None:
        if self._profiler is None or self._profile is None:
            return
        self._profiler.stop()
        where = "self_device_time_total" if self.memory.cuda else "self_cpu_time_total"
        found = self._profiler.key_averages()
        self._profile.write_text(found.table(sort_by=where, row_limit=SHOWN, max_name_column_width=60))
        whole = sum(getattr(one, where) for one in found) or 1
        self.top = [
            {"name": one.key, "calls": one.count, "share": round(getattr(one, where) / whole, 4)}
            for one in sorted(found, key=lambda one: -getattr(one, where))[:SHOWN]
        ]


def read_pass(inputs: Any) -> Pass:
    """What a forward pass of `ModelInputs` reads."""
    grids = [
        tuple(grid)
        for name in ("image_grid_thw", "video_grid_thw")
        if name in inputs.media
        for grid in inputs.media[name].tolist()
    ]
    return Pass(inputs.starts[:: inputs.repeat].tolist(), inputs.lengths.tolist(), grids)


@contextmanager
def measured(meter: Meter) -> Iterator[None]:
    """Within the block forward passes and rollouts are noted in the meter."""
    nets: list[Any] = []

    def forward(run: Callable[..., Any], model: Any, inputs: Any, **options: Any) -> Any:
        """A pass, counted as one of the update or of the reference."""
        told = run(model, inputs, **options)
        done = read_pass(inputs)
        if torch.is_grad_enabled():
            meter.add("update_flops", meter.sizes.update(done, adapters=meter.adapters))
            meter.add("prompts", len(done.prompts))
            meter.add("prompt_tokens", sum(done.prompts))
            meter.add("completions", len(done.completions))
            meter.add("completion_tokens", sum(done.completions))
            meter.memory.mark("update")
        else:
            meter.add("reference_flops", meter.sizes.forward(done))
            meter.memory.mark("reference")
        return told

    def sync(run: Callable[..., Any], engine: Any, net: Any) -> Any:
        nets[:] = [net]
        return run(engine, net)

    def generate(run: Callable[..., Any], engine: Any, prompts: Any, **options: Any) -> Any:
        """A rollout, with the time of its first token."""
        meter.memory.mark("between")
        first: list[float] = []

        def note_first(*_: Any) -> None:
            if not first:
                _wait()
                first.append(time.perf_counter())

        head = next((m for n, m in nets[0].named_modules() if n.split(".")[-1] == "lm_head"), None)
        hook = None if head is None else head.register_forward_hook(note_first)
        began = time.perf_counter()
        rolled = run(engine, prompts, **options)
        _wait()
        ended = time.perf_counter()
        if hook is not None:
            hook.remove()
        meter.memory.mark("rollout")
        meter.add("prefill_s", (first or [began])[0] - began)
        meter.add("decode_s", ended - (first or [began])[0])
        whole = prompts.with_completions([one.ids for one in rolled], options["group_size"])
        meter.add("rollout_flops", meter.sizes.forward(read_pass(whole)))
        return rolled

    with (
        mock.patch.object(TrainModel, "forward", _around(TrainModel.forward, forward)),
        mock.patch.object(HfEngine, "generate", _around(HfEngine.generate, generate)),
        mock.patch.object(HfEngine, "sync", _around(HfEngine.sync, sync)),
    ):
        yield


def _around(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    """`inner`, called by `outer` as its first argument."""

    @functools.wraps(inner)
    def both(*args: Any, **named: Any) -> Any:
        return outer(inner, *args, **named)

    return both


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Run a recipe and write what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("figures", type=Path)
    parser.add_argument("--profile", type=Path, default=None)
    args = parser.parse_args()
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as folder:
        recipe = load_train_recipe(args.recipe, flags={"output": folder})
        sizes = Sizes.of(AutoConfig.from_pretrained(recipe.model.model))
        meter = Meter(sizes, adapters=recipe.model.lora is not None, profile=args.profile)
        with measured(meter), suppress(FinishedError):
            train(recipe, watchers=[meter])
    figures = {"steps": meter.steps, "peak_bytes": meter.memory.peaks, "top": meter.top}
    args.figures.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
