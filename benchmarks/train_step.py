"""Seconds of an RL step: this trainer against TRL's GRPOTrainer, and PA-GRPO against plain GRPO.

    .venv/bin/pip install --no-deps trl==1.16.0
    .venv/bin/python -m benchmarks.train_step [--quick] [--rounds 3]

1. The same tiny random Qwen2.5-VL, the same prompts with pictures, the same group size and number of tokens
   (it never ends a completion by itself), KL to a second copy of the model, one update per rollout, one core:
   TRL in one process, this trainer in another, in turn.
2. A tiny model that has learnt the format; rewards of `grpo` alone, then of `pa-grpo` with a judge over HTTP
   on loopback that takes `--latency` seconds for each answer, in turn. What of the judge could not be hidden
   is measured by the trainer itself (`time/judge_s`).

Medians over the steps of all rounds, the first step of each left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import yaml

SIDE = 112
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Time RL steps here and in TRL on the same questions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--part", type=int, choices=(1, 2), help="only this one")
    args = parser.parse_args()
    size = {"prompts": 4, "group": 4, "tokens": 16, "steps": 3} if args.quick else {}
    size = {"prompts": 8, "group": 8, "tokens": 64, "steps": 6} | size
    rounds = 1 if args.quick else args.rounds
    with tempfile.TemporaryDirectory() as folder:
        if args.part != 2:
            print(
                json.dumps({"against_trl": against_trl(Path(folder), rounds, **size)}, indent=2), flush=True
            )
        if args.part != 1:
            found = against_grpo(Path(folder), rounds, args.latency, args.quick)
            print(json.dumps({"pa_grpo": found}, indent=2))


def environment() -> dict[str, str]:
    """One core for each process that is timed, and no network."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def against_trl(
    folder: Path, rounds: int, *, prompts: int, group: int, tokens: int, steps: int
) -> dict[str, Any]:
    """Part 1."""
    from tests.tiny_model import make_tiny_model

    model = make_tiny_model(folder / "model")
    ours: list[float] = []
    trl: list[float] = []
    for _ in range(rounds):
        if importlib.util.find_spec("trl"):
            command = [sys.executable, "-m", "benchmarks._trl_step", str(model)]
            sizes = [str(n) for n in (prompts, group, tokens, steps, SIDE)]
            done = subprocess.run(
                [*command, *sizes], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
            )
            trl += json.loads(done.stdout[done.stdout.rindex('{"seconds"') :].splitlines()[0])["seconds"][1:]
        recipe = rl_recipe(model, prompts=prompts, group=group, tokens=tokens, steps=steps)
        recipe["data"] |= {
            "media": {"frames": 1, "max_pixels": SIDE * SIDE, "min_pixels": 784, "factor": 28},
            "demo": {"seed": 1, "side": SIDE, "mediums": ["image"], "numbered": False, "rotated": False},
        }
        ours += [step["time/step_s"] for step in run(folder, "grpo", recipe)[1:]]
    return {
        "prompts": prompts,
        "group": group,
        "tokens": tokens,
        "ours_s": round(median(ours), 3),
        "trl_s": round(median(trl), 3) if trl else "not installed",
        "trl_over_ours": round(median(trl) / median(ours), 2) if trl else None,
    }


def against_grpo(folder: Path, rounds: int, latency: float, quick: bool) -> dict[str, Any]:
    """Part 2."""
    command = [
        sys.executable,
        "-m",
        "videop2r_data.cli.train",
        "tiny",
        str(folder / "tiny"),
        "--objects",
        "1",
    ]
    command += ["--task", "count", "--task", "colour", "--steps", "4" if quick else "200"]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    found: dict[str, list[dict[str, Any]]] = {"grpo": [], "pa-grpo": []}
    with judge(latency) as url:
        for number in range(rounds):
            for name, steps in found.items():
                recipe = rl_recipe(
                    folder / "tiny-sft" / "final", prompts=4 if quick else 16, group=8, tokens=96, steps=4
                )
                recipe["steps"] = 3 if quick else 8
                recipe["seed"] = number
                recipe["objective"] = {"name": name}
                recipe["data"] |= {"prompt": "tiny-v1", "media": tiny_media(), "demo": tiny_world()}
                if name == "pa-grpo":
                    backend = {"kind": "openai", "model": "judge", "base_url": url, "concurrency": 256}
                    recipe["judging"] = {"kind": "backend", "backend": backend}
                steps += run(folder, f"{name}-{number}", recipe)[1:]
    plain = median(step["time/step_s"] for step in found["grpo"])
    whole = median(step["time/step_s"] for step in found["pa-grpo"])
    without = median(step["time/step_s"] - step["time/judge_s"] for step in found["pa-grpo"])
    return {
        "latency_s": latency,
        "grpo_s": round(plain, 3),
        "pa_grpo_s": round(whole, 3),
        "judge_not_hidden_s": round(median(step["time/judge_s"] for step in found["pa-grpo"]), 3),
        "ratio": round(whole / plain, 3),
        "ratio_without_judge": round(without / plain, 3),
        "judged_per_step": round(median(step["judge/asked"] for step in found["pa-grpo"]), 1),
    }


def tiny_media() -> dict[str, Any]:
    """Settings of frames for the tiny model."""
    return {"frames": 4, "max_pixels": 784, "min_pixels": 64, "factor": 8}


def tiny_world() -> dict[str, Any]:
    """Settings of the demo world that the steps train on."""
    return {
        "seed": 3,
        "side": 24,
        "frames": 4,
        "fps": 2,
        "mediums": ["video"],
        "max_objects": 1,
        "tasks": ["count", "colour"],
    }


def rl_recipe(model: Path, *, prompts: int, group: int, tokens: int, steps: int) -> dict[str, Any]:
    """The settings that both parts share."""
    return {
        "train": 1,
        "name": "step",
        "stage": "rl",
        "data": {"source": "demo", "config": "rl", "workers": 1},
        "model": {"model": str(model), "dtype": "float32", "gradient_checkpointing": False},
        "objective": {"name": "grpo"},
        "rl": {"group_size": group},
        "sampling": {"max_new_tokens": tokens},
        "loss": {"beta": 0.04},
        "rewards": {"length": "off"},
        "optim": {"lr": 1e-6, "schedule": "constant"},
        "batch": {"size": prompts, "micro": prompts},
        "steps": steps,
        "precision": "fp32",
        "save": {"every": 0, "samples_every": 0},
    }


def run(folder: Path, name: str, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Train; the metrics of each step."""
    path, out = folder / f"{name}.yaml", Path(tempfile.mkdtemp(dir=folder))
    path.write_text(yaml.safe_dump(recipe))
    command = [
        sys.executable,
        "-m",
        "videop2r_data.cli.train",
        "rl",
        str(path),
        "--output",
        str(out),
        "--json",
    ]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "time/step_s" in line]


class judge:
    """A judge in a process of its own: the fake server of the tests, with a latency."""

    def __init__(self, latency: float) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.fakes.openai_server",
            "--port",
            "0",
            "--latency",
            str(latency),
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


if __name__ == "__main__":
    main()
