"""The tiny model before SFT, after SFT, after PA-GRPO: one table, and which differences are real.

    python -m benchmarks.tiny_evaluated --work FOLDER [--write] [--json FILE]

Four commands of the package one after the other, from random weights: `p2r-train tiny`, `p2r-train rl`,
`p2r-train eval` of each of the three, `p2r-train compare`. All learn and are asked in the demo world, on
clips without a loss of compression; the judges are that world's own, which do not err. Stopped, the same
command goes on.
`--write` puts the table into benchmarks/results/tiny_evaluated.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record

RESULTS = Path(__file__).resolve().parent / "results" / "tiny_evaluated.md"
CLIPS = {
    "side": 24,
    "frames": 4,
    "fps": 2,
    "mediums": ["video"],
    "tasks": ["count", "count_moving", "direction", "colour"],
    "questions": 1,
    "rotated": False,
    "numbered": False,
    "defect_rate": 0.0,
}
MEDIA = {"frames": 4, "factor": 8, "min_pixels": 64, "max_pixels": 784, "workers": 1}
JUDGE = {"kind": "demo", "model": "demo-world"}
STAGES = ("before SFT", "after SFT", "after PA-GRPO")
MEASURES = {
    "demo_micro": "accuracy, %",
    "well_formed": "form that was asked for",
    "mismatch": "think differs, by judge",
    "settles_on_nothing": "think settles on nothing",
    "mismatch_rule": "think differs, by rule",
    "sufficient": "observation suffices",
    "sufficient_of_all": "is there and suffices",
    "true": "no claim is false",
    "claims_supported": "supported claims",
}
"""Protocol -> its line in the table."""
FORM = ("--markdown", "--flips", 0)


def reinforce(model: Path, output: Path, steps: int, prompts: int) -> dict[str, Any]:
    """The recipe of PA-GRPO on the endless demo stream, on scenes that neither SFT nor the evaluation has."""
    return {
        "train": 1,
        "name": "tiny-rl-stream",
        "stage": "rl",
        "data": {
            "source": "demo",
            "config": "rl",
            "prompt": "tiny-v1",
            "start": 5_000_000,
            "demo": CLIPS,
            "media": MEDIA,
            "workers": 1,
        },
        "model": {"model": str(model), "dtype": "float32", "gradient_checkpointing": False},
        "objective": {"name": "pa-grpo"},
        "rl": {"group_size": 8},
        "sampling": {"temperature": 1.0, "max_new_tokens": 120},
        "rewards": {"perception_bounds": [8, 40], "reasoning_bounds": [8, 60]},
        "judging": {"kind": "demo"},
        "optim": {"lr": 1e-4, "schedule": "constant", "betas": [0.9, 0.98]},
        "batch": {"size": prompts, "micro": prompts},
        "steps": steps,
        "precision": "fp32",
        "save": {"every": max(1, steps // 3), "samples_every": max(1, steps // 3)},
        "output": str(output),
    }


def plan(model: Path, rows: int) -> dict[str, Any]:
    """What each of the three is asked."""
    world = {"start": 10_000_000, "rows": rows, "exact": True, **CLIPS}
    judges = ("sufficiency", "faithfulness", "conclusion")
    return {
        "plan": 1,
        "name": "tiny",
        "benchmarks": [{"name": "demo", "demo": world}],
        "backend": {"kind": "transformers", "model": str(model), "extra": {"dtype": "float32"}},
        "prompt": "tiny-v1",
        "question_only_prompt": "tiny-v1",
        "max_tokens": 160,
        "media": MEDIA,
        "judges": [{"name": decides, "decides": decides, "backend": JUDGE} for decides in judges],
    }


def command(*words: object, said: bool = False) -> str:
    """Run `p2r-train` as a user would type it; with `said`, what it printed."""
    line = [sys.executable, "-c", "from videop2r_data.cli.entry import train; train()", *map(str, words)]
    print("$ p2r-train", *words, flush=True)
    found = subprocess.run(line, check=True, text=True, stdout=subprocess.PIPE if said else None)
    return found.stdout or ""


def written(path: Path, settings: dict[str, Any]) -> Path:
    """A file of settings; JSON is YAML."""
    path.write_text(json.dumps(settings))
    return path


def measures(result: Path) -> dict[str, dict[str, Any]]:
    """Protocol -> figure, of the benchmark as a whole and of its judges."""
    (benchmark,) = json.loads((result / "result.json").read_text())["benchmarks"]
    parts = [*benchmark["figures"], *benchmark["faithful"]["figures"]]
    if benchmark["told"]["well_formed"]:
        parts.append(benchmark["told"]["well_formed"])
    return {one["protocol"]: one for one in parts if one["by"] in ("", "judge")}


def cell(one: dict[str, Any] | None) -> str:
    """A figure with its interval, and n where it is of a part of the questions."""
    if one is None or one["value"] is None:
        return "none"
    value, low, high = (one[key] * one["scale"] for key in ("value", "low", "high"))
    digits = 1 if one["scale"] == 100 else 3
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] of {one['n']}"


def table(results: list[Path]) -> str:
    """The three side by side."""
    found = [measures(result) for result in results]
    lines = [f"| | {' | '.join(STAGES)} |", "|---|---|---|---|"]
    for protocol, title in MEASURES.items():
        lines.append(f"| {title} | {' | '.join(cell(one.get(protocol)) for one in found)} |")
        if protocol == "demo_micro":
            alone = (f"{one[protocol]['question_only'] * one[protocol]['scale']:.1f}" for one in found)
            lines.append(f"| question only | {' | '.join(alone)} |")
    return "\n".join(lines)


def figures(results: list[Path]) -> dict[str, Any]:
    """Stage -> protocol -> value, interval and number of questions; shares are of 1."""
    kept = ("value", "low", "high", "n", "question_only")
    found = {}
    for stage, result in zip(("before", "sft", "rl"), results, strict=True):
        of = measures(result)
        found[stage] = {
            name: {key: value for key in kept if (value := of[name].get(key)) is not None}
            for name in MEASURES
            if name in of and of[name]["value"] is not None
        }
    return found


def run(work: Path, *, sft: int, rl: int, rows: int, prompts: int) -> tuple[str, dict[str, Any]]:
    """Train, evaluate and compare; the page's tables, and their figures."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    work.mkdir(parents=True, exist_ok=True)
    models = [work / "base", work / "sft" / "final", work / "rl" / "final"]
    command("tiny", models[0], "--steps", sft, "--output", work / "sft")
    command("rl", written(work / "pa-grpo.yaml", reinforce(models[1], work / "rl", rl, prompts)))
    results = []
    for model, name in zip(models, ("before", "sft", "rl"), strict=True):
        settings = written(work / f"plan-{name}.yaml", plan(model, rows))
        results.append(work / f"result-{name}")
        command("eval", settings, "--out", results[-1])
    pairs = [
        command("compare", f"{a}=" + str(results[i]), f"{b}=" + str(results[i + 1]), *FORM, said=True)
        for i, (a, b) in enumerate((("before", "sft"), ("sft", "pa-grpo")))
    ]
    return "\n\n".join((table(results), *(pair.strip() for pair in pairs))), figures(results)


def main() -> None:
    """Run it whole, or small."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="a folder that is kept")
    parser.add_argument("--sft", type=int, default=4000, help="updates of 32 clips")
    parser.add_argument("--rl", type=int, default=200, help="updates of 32 prompts with 8 rollouts")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    record.add_option(parser)
    chosen = parser.parse_args()
    sizes = {"sft": chosen.sft, "rl": chosen.rl, "rows": chosen.rows, "prompts": 32}
    if chosen.quick:
        sizes = {"sft": 3, "rl": 2, "rows": 3, "prompts": 2}
    with tempfile.TemporaryDirectory(prefix="p2r-tiny-") as place:
        told, found = run((chosen.work or Path(place)).resolve(), **sizes)
    print(told)
    record.save(chosen, "tiny_evaluated", found, packages=["torch", "transformers"])
    if chosen.write:
        head = (
            RESULTS.read_text().partition("\n## ")[0] if RESULTS.exists() else "# The tiny model evaluated\n"
        )
        RESULTS.write_text(f"{head}\n## Figures\n\n{told}\n")


if __name__ == "__main__":
    main()
