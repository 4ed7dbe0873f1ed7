"""Train and measure the arms of the miniature; whatever is done already is not done again.

    OMP_NUM_THREADS=1 python -m benchmarks.miniature.run --seed 0 [--arms grpo,...] [--work DIR] [--quick]

Per seed: a tiny model of random weights -> SFT (process-aware and process-agnostic) -> RL from the one start
of its style -> every arm on the same held-out clips, greedy and sampled. One JSON file per arm and seed goes
to `results/`; the runs themselves (checkpoints, metrics, samples) stay in the work folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.miniature.settings import (
    ARMS,
    FULL,
    QUICK,
    SAMPLING,
    WORLD,
    Arm,
    Scale,
    Style,
    held_out,
    rl_recipe,
    sft_recipe,
    tiny,
)
from videop2r_data.trainer import Stop, TrainRecipe
from videop2r_data.trainer.data import read_examples
from videop2r_data.trainer.evaluate import EvalRow, evaluate
from videop2r_data.trainer.judging import DemoJudge
from videop2r_data.trainer.model import load_policy
from videop2r_data.trainer.run import open_session, run_rl, run_sft
from videop2r_data.trainer.settings import EvalSpec, PolicySpec, SamplingSpec
from videop2r_data.trainer.tiny import make_tiny

RESULTS = Path(__file__).parent / "results"
CURVES = {"step", "loss", "lr", "grad_norm", "kl", "entropy", "groups", "clip_fraction", "time/step_s"}
MODES = {
    "greedy": SamplingSpec(temperature=0.0, max_new_tokens=SAMPLING.max_new_tokens),
    "sampled": SAMPLING,
}


class Halt:
    """Ends a run after a step; a `Watcher`."""

    def __init__(self, after: int) -> None:
        self.after, self.stop = after, Stop()

    def begin(self, stage: str, step: int, steps: int) -> None:
        """The run starts or goes on."""

    def row(self, row: Mapping[str, Any]) -> None:
        """One line of metrics."""
        if row["step"] >= self.after:
            self.stop.ask()

    def note(self, text: str) -> None:
        """Of no interest here."""


def train(recipe: TrainRecipe, *, halt: int | None = None, anyway: bool = False) -> Path:
    """Run a stage, or go on with it, or find it done; returns the folder of its weights.

    Args:
        halt: leave the run after this step.
        anyway: go on under another schedule.
    """
    final = recipe.folder / "final"
    if final.is_dir():
        return final
    began, watcher = time.process_time(), Halt(halt or recipe.steps or 0)
    session = open_session(recipe, watchers=[watcher], stop=watcher.stop, anyway=anyway)
    if session.start < watcher.after:
        (run_sft if recipe.stage == "sft" else run_rl)(session)
    session.accelerator.free_memory()
    with (recipe.folder / "cpu.json").open("a") as file:
        file.write(json.dumps({"cpu_s": round(time.process_time() - began, 1)}) + "\n")
    return final


def start_of(style: Style, seed: int, scale: Scale, work: Path) -> Path:
    """The weights after SFT, which is left before the end of its schedule and then cooled down."""
    model, output = work / f"tiny-{seed}", work / f"sft-{style}-{seed}"
    if not (model / "config.json").is_file():
        make_tiny(model, tiny(seed), world=WORLD)
    if not (output / "checkpoints" / f"step-{scale.sft_cut:06d}").is_dir():
        planned = sft_recipe(style, seed, scale, model, output, steps=scale.sft_planned)
        train(planned, halt=scale.sft_cut)
    return train(sft_recipe(style, seed, scale, model, output, steps=scale.sft_steps), anyway=True)


def weights_of(arm: Arm, seed: int, scale: Scale, work: Path) -> tuple[Path, Path]:
    """(run folder, weights) of an arm, trained if need be."""
    start = start_of(arm.style, seed, scale, work)
    if arm.objective is None:
        return start.parent, start
    final = train(rl_recipe(arm, seed, scale, start, work / f"{arm.name}-{seed}"))
    return final.parent, final


def measure(weights: Path, arm: Arm, scale: Scale, folder: Path) -> dict[str, Any]:
    """Per mode what became of every held-out question, in their order."""
    policy = load_policy(PolicySpec(model=str(weights), dtype="float32"), torch.device("cpu"))
    data = held_out(arm.style, scale)
    examples = read_examples(data)
    kinds = [e.scene.question.kind for e in examples if e.scene is not None]
    judge = DemoJudge()
    out: dict[str, Any] = {"kind": kinds}
    for mode, sampling in MODES.items():
        rows: list[EvalRow] = []
        evaluate(
            policy.net,
            policy.processor,
            examples,
            data=data,
            spec=EvalSpec(sampling=sampling, batch=125, seed=1),
            judge=judge,
            keep=rows.extend,
        )
        out[mode] = compact(sorted(rows, key=lambda row: row.index))
    return out


def compact(rows: Sequence[EvalRow]) -> dict[str, Any]:
    """Scores as percent; else one character per question: `1` yes, `0` no, `-` unsaid. Tokens as a mean."""
    told: dict[str, list[bool | None]] = {
        "sufficient": [row.sufficient for row in rows],
        "mismatch": [row.mismatch for row in rows],
        "format": [row.format for row in rows],
    }
    marks = {
        name: "".join("-" if v is None else str(int(v)) for v in values) for name, values in told.items()
    }
    scores = [None if row.score is None else round(100 * row.score) for row in rows]
    return {"score": scores, **marks, "tokens": sum(row.tokens for row in rows) / len(rows)}


def thin(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the figures need of `metrics.jsonl`, rounded; of SFT every tenth line."""
    rl = any("groups" in line for line in lines)
    chosen = lines if rl else [line for line in lines if line["step"] % 10 == 0]
    return [
        {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in line.items()
            if key in CURVES or key.startswith(("reward/", "length/", "collapsed/"))
        }
        for line in chosen
    ]


def record_of(arm: Arm, seed: int, folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The JSON of an arm and seed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    cpu = [json.loads(line)["cpu_s"] for line in (folder / "cpu.json").read_text().splitlines()]
    about = {"arm": arm.name, "seed": seed, "steps": len(lines), "cpu_s": round(sum(cpu), 1)}
    return {**about, **found, "curve": thin(lines)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", default=",".join(arm.name for arm in ARMS))
    parser.add_argument("--work", type=Path, default=Path("runs/miniature"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a minute of everything: a test, not a result")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scale = QUICK if args.quick else FULL
    args.results.mkdir(parents=True, exist_ok=True)
    for arm in (a for a in ARMS if a.name in args.arms.split(",")):
        target = args.results / f"{arm.name}-{args.seed}.json"
        if target.is_file():
            continue
        folder, weights = weights_of(arm, args.seed, scale, args.work)
        found = measure(weights, arm, scale, folder)
        record = record_of(arm, args.seed, folder, found)
        target.write_text(json.dumps(record) + "\n")
        print(f"{arm.name} {args.seed}: done", flush=True)


if __name__ == "__main__":
    main()
