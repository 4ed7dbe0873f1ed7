"""Seconds and memory of an RL step: this trainer beside TRL's and ms-swift's; PA-GRPO beside plain GRPO.

    benchmarks/rivals/env.sh trl                               # optional
    benchmarks/rivals/env.sh swift                             # 3 GB; optional
    python -m benchmarks.train_step [--trl .venv-trl/bin/python] [--swift .venv-swift/bin/python]
        [--part 1] [--quick] [--rounds 3] [--json FILE]

1. The same tiny random Qwen2.5-VL, the same prompts with pictures, the same group size and number of tokens
   (it never ends a completion by itself), KL to a second copy of the model, one update per rollout, float32,
   one core: each trainer in a process of its own, in turn. Seconds are those that each trainer's own steps
   take, medians of a round without its first step; memory is the most that the process and its children held
   together, shared pages once. A ratio is the median over the rounds of (other / ours) within the round.
2. A tiny model that has learnt the format; rewards of `grpo` alone, then of `pa-grpo` with a judge over HTTP
   on loopback that takes `--latency` seconds for each answer, in turn. What of the judge could not be hidden
   is measured by the trainer itself (`time/judge_s`). Medians over the steps of all rounds without the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

from benchmarks import record
from benchmarks._peak import watched

SIDE = 112
SIZE = ("prompts", "group", "tokens", "steps")
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
    parser.add_argument("--trl", type=Path, help="Python of an environment with TRL; none: without it")
    parser.add_argument("--swift", type=Path, help="the same with ms-swift")
    parser.add_argument("--size", type=int, nargs=4, help=f"of part 1: {', '.join(SIZE)}; none: 8 8 64 6")
    record.add_option(parser)
    args = parser.parse_args()
    numbers = args.size or ((4, 4, 16, 3) if args.quick else (8, 8, 64, 6))
    size = dict(zip(SIZE, numbers, strict=True))
    rounds = 1 if args.quick else args.rounds
    found: dict[str, Any] = {"rounds": rounds}
    with tempfile.TemporaryDirectory() as folder:
        if args.part != 2:
            found["side_by_side"] = side_by_side(Path(folder), rounds, args.trl, args.swift, **size)
        if args.part != 1:
            found["pa_grpo"] = against_grpo(Path(folder), rounds, args.latency, args.quick)
    print(json.dumps(found, indent=2))
    asked = {"trl": args.trl, "ms-swift": args.swift}
    versions = {name: version_in(python, name) for name, python in asked.items() if python}
    record.save(args, "train_step", found, packages=["torch", "transformers"], versions=versions)


def version_in(python: Path, package: str) -> str:
    """The version of a package in another environment."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    done = subprocess.run([python, "-c", code, package], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """One core for each process that is timed, and no network."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}


def side_by_side(
    folder: Path,
    rounds: int,
    trl: Path | None,
    swift: Path | None,
    *,
    prompts: int,
    group: int,
    tokens: int,
    steps: int,
) -> dict[str, Any]:
    """Part 1."""
    from tests.tiny_model import make_tiny_model

    model = make_tiny_model(folder / "model")
    rows = write_rows(folder / "rows", prompts * steps)
    sizes = [str(n) for n in (group, tokens, steps)]
    theirs: dict[str, list[str]] = {}
    for name, python, script in (("trl", trl, "_trl_step.py"), ("ms-swift", swift, "_swift_step.py")):
        if python:
            words = [str(ROOT / "benchmarks" / script), str(model), str(rows), str(prompts * group)]
            theirs[name] = [str(python), *words, *sizes]
    recipe = rl_recipe(model, prompts=prompts, group=group, tokens=tokens, steps=steps)
    recipe["data"] |= {
        "media": {"frames": 1, "max_pixels": SIDE * SIDE, "min_pixels": 784, "factor": 28},
        "demo": {"seed": 1, "side": SIDE, "mediums": ["image"], "numbered": False, "rotated": False},
    }
    measured: dict[str, list[Round]] = {name: [] for name in ("ours", *theirs)}
    for number in range(rounds):
        for name, command in theirs.items():
            measured[name].append(other_round(command))
        measured["ours"].append(own_round(folder, f"grpo-{number}", recipe))
    return {"prompts": prompts, "group": group, "tokens": tokens, "steps": steps, **compared(measured)}


class Round(NamedTuple):
    """One run of one trainer: median seconds of its steps after the first, highest memory in MB."""

    seconds: float
    peak_mb: float


def other_round(command: list[str]) -> Round:
    """A run of another trainer, whose script prints the seconds of its steps."""
    ran = watched(command, cwd=ROOT, env=environment())
    seconds = json.loads(ran.printed[ran.printed.rindex('{"seconds"') :].splitlines()[0])["seconds"]
    return Round(median(seconds[1:]), ran.peak_mb)


def own_round(folder: Path, name: str, recipe: dict[str, Any]) -> Round:
    """A run of this trainer."""
    steps, peak_mb = run(folder, name, recipe)
    return Round(median(step["time/step_s"] for step in steps[1:]), peak_mb)


def compared(measured: dict[str, list[Round]]) -> dict[str, Any]:
    """Medians of each trainer over its rounds, and of the others' ratios to ours within each round.

    >>> compared({"ours": [Round(2.0, 100.0)], "trl": [Round(5.0, 150.0)]})["trl"]
    {'step_s': 5.0, 'peak_mb': 150.0, 'times_our_step': 2.5, 'times_our_memory': 1.5}
    """
    found: dict[str, Any] = {}
    for name, rounds in measured.items():
        found[name] = {
            "step_s": round(median(one.seconds for one in rounds), 3),
            "peak_mb": median(one.peak_mb for one in rounds),
        }
        if name != "ours":
            pairs = list(zip(rounds, measured["ours"], strict=True))
            found[name] |= {
                "times_our_step": round(median(one.seconds / our.seconds for one, our in pairs), 2),
                "times_our_memory": round(median(one.peak_mb / our.peak_mb for one, our in pairs), 2),
            }
    return found


def write_rows(folder: Path, count: int) -> Path:
    """The questions of `_step_questions` for other trainers: JSON lines beside their pictures."""
    from PIL import Image

    from benchmarks._step_questions import questions

    folder.mkdir()
    lines = []
    for number, asked in enumerate(questions(count, SIDE)):
        picture = folder / f"{number}.png"
        Image.fromarray(asked.picture).save(picture)
        turns = [
            {"role": "system", "content": asked.system},
            {"role": "user", "content": f"<image>{asked.user}"},
        ]
        lines.append(json.dumps({"messages": turns, "images": [str(picture)]}))
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


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
                steps += run(folder, f"{name}-{number}", recipe)[0][1:]
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


def run(folder: Path, name: str, recipe: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """Train; the metrics of each step, and the highest memory in MB."""
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
    peak_mb = watched(command, env=environment()).peak_mb
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "time/step_s" in line], peak_mb


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
