"""Wall time of an RL step, in its turn and one step ahead, beside its larger part.

    python -m benchmarks.step_ahead [--quick] [--seconds 8] [--latency 2] [--steps 6] [--json FILE]

The real trainer loop: data, collator, grading, rewards, loss, update and log of a tiny model, and the real
client of the judge. What would need GPUs is simulated by sleeping, so that busy cores hardly count:

- an engine of its own, whose completions end one after the other, the last one after `--seconds`;
- a judge over HTTP on loopback that answers each call after `--latency` seconds;
- a trainer's part of `--seconds`: a fifth for the reference (one forward pass beside a forward pass, one more
  for checkpointing, and a backward pass worth two), the rest for the update.

So rollouts take as long as the trainer's part. With R seconds for rollouts, J for the judge, L for the
reference and U for the update, R = L + U, a step one step ahead cannot be shorter than (R + J + U) / 2: from
the weights that draw a step's rollouts to the end of the update that they serve are two steps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import record
from benchmarks.train_step import judge, rl_recipe, tiny_media, tiny_world
from videop2r_data.demo import write_trace
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.rollout.base import Ended, RolledOut
from videop2r_data.trainer.run import rl
from videop2r_data.trainer.run.session import Session
from videop2r_data.trainer.run.step import Engine
from videop2r_data.trainer.run.train import train
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.tiny.model import make_tiny
from videop2r_data.trainer.tiny.recipe import TinySpec

REFERENCE = 0.2
"""Share of the trainer's part."""


class Simulated:
    """An engine whose completions end between half of `seconds` and all of them; they are right traces."""

    room: int | None = None

    def __init__(self, session: Session, seconds: float) -> None:
        self.tokenizer, self.seconds = session.policy.tokenizer, seconds

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        """One completion for each seed, told as it ends."""

        async def one(row: int) -> RolledOut:
            await asyncio.sleep(self.seconds * (1 + (row + 1) / len(seeds)) / 2)
            done = self._written(prompts, row // group_size, seeds[row])
            if ended is not None:
                ended(row, done)
            return done

        async def every() -> list[RolledOut]:
            return await asyncio.gather(*(one(row) for row in range(len(seeds))))

        return asyncio.run(every())

    def _written(self, prompts: PromptBatch, b: int, seed: int) -> RolledOut:
        scene = prompts.examples[b].scene
        assert scene is not None
        # a number of its own: no two observations are equal, and each is a call
        said = write_trace(scene, None, seed=0).replace("</observation>", f" Mark {seed}.</observation>")
        ids = self.tokenizer(said + "<|im_end|>", add_special_tokens=False).input_ids
        return RolledOut(ids, True, [-1.0] * len(ids))

    def sync(self, net: Any) -> None:
        """The weights decide nothing here."""

    def close(self) -> None:
        """Nothing to free."""


def lasting(work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """The same work, in no less than so many seconds."""

    def slow(*args: Any, **options: Any) -> Any:
        until = time.perf_counter() + seconds
        found = work(*args, **options)
        time.sleep(max(0.0, until - time.perf_counter()))
        return found

    return slow


def timed(
    model: Path, folder: Path, url: str, *, ahead: bool, seconds: float, steps: int
) -> dict[str, float]:
    """Mean seconds of a step's parts; the first two steps fill the pipeline and are left out."""
    settings = rl_recipe(model, prompts=4, group=4, tokens=256, steps=steps)
    settings["data"] |= {"prompt": "tiny-v1", "media": tiny_media(), "demo": tiny_world()}
    settings["objective"] = {"name": "pa-grpo"}
    settings["judging"] = {
        "kind": "backend",
        "backend": {"kind": "openai", "model": "judge", "base_url": url, "concurrency": 256},
    }
    settings |= {"alarms": {"every": 0}, "output": str(folder)}
    if ahead:
        settings["rl"]["ahead"] = True
    settings["sampling"]["backend"] = "vllm-server"
    with (
        patch.object(rl, "make_drawer", lambda session: Simulated(session, seconds)),
        patch.object(rl, "_logps", lasting(rl._logps, REFERENCE * seconds)),
        patch.object(Engine, "update", lasting(Engine.update, (1 - REFERENCE) * seconds)),
    ):
        train(TrainRecipe.model_validate(settings))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][2:]
    found = {name: mean(row.get(f"time/{name}_s", 0.0) for row in rows) for name in PARTS}
    return {name: round(value, 3) for name, value in found.items()}


TINY = TinySpec(
    hidden=64, layers=2, heads=2, kv_heads=1, intermediate=160, vocab=640, corpus=300,
    vision_hidden=32, vision_layers=1, vision_heads=1, vision_intermediate=64,
)  # fmt: skip
PARTS = ("step", "drawn", "rollout", "logps", "judge", "update")


def main() -> None:
    """Print both, and the ratio to the larger part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a second for each part, 0.25 for the judge")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--latency", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=6)
    record.add_option(parser)
    args = parser.parse_args()
    seconds, latency = (1.0, 0.25) if args.quick else (args.seconds, args.latency)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, judge(latency) as url:
        model = make_tiny(Path(folder) / "tiny", TINY)
        found: dict[str, Any] = {"rollouts_s": seconds, "trainer_s": seconds, "judge_s": latency}
        for name, ahead in (("in_turn", False), ("ahead", True)):
            parts = timed(model, Path(folder) / name, url, ahead=ahead, seconds=seconds, steps=args.steps)
            larger = max(seconds, parts["logps"] + parts["update"])
            found[name] = {**parts, "ratio": round(parts["step"] / larger, 3)}
    found["least"] = round((seconds + latency + (1 - REFERENCE) * seconds) / 2 / seconds, 3)
    print(json.dumps(found, indent=2))
    record.save(args, "step_ahead", found, packages=["torch", "transformers"])


if __name__ == "__main__":
    main()
