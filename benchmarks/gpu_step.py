"""SFT and RL steps of a random Qwen2.5-VL of real shape: seconds, tokens/s, shares, MFU, memory.

    python -m benchmarks.gpu_step --shape 3b --steps 5                       # one large GPU
    python -m benchmarks.gpu_step --shape 3b --rollouts vllm --steps 5
    python -m benchmarks.gpu_step --shape 7b --lora 64 --stage rl
    python -m benchmarks.gpu_step --quick                                    # any machine: does it run?

The paper's load: 16 frames of 308 x 308 pixels (94,864 of the budget of 100,352), completions of 768 tokens,
8 rollouts of a prompt, KL to the start. Random weights hardly ever end a completion: nearly every rollout has
its full length. The judge is the exact one of the demo world, the alarms are off, and nothing is saved. The
first step is left out of all medians. `_gpu_flops.py` says what MFU counts, `_gpu_probe.py` how all is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks._gpu_flops import Machine, mfu

SHAPES: dict[str, dict[str, Any]] = {
    "3b": {
        "hidden_size": 2048,
        "layers": 36,
        "heads": 16,
        "kv_heads": 2,
        "intermediate": 11008,
        "vocab": 151936,
    },
    "7b": {
        "hidden_size": 3584,
        "layers": 28,
        "heads": 28,
        "kv_heads": 4,
        "intermediate": 18944,
        "vocab": 152064,
    },
    "tiny": {"hidden_size": 256, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 256, "vocab": 4096},
}
FRAMES = 16
PARTS = ("decode", "prefill", "rollout", "judge", "logps", "update", "sync", "data")
"""Parts of a step: `rollout` is what drawing takes beside decode and prefill, `logps` the reference."""


def main() -> None:
    """Measure the stages one after the other; a line of JSON for each."""
    args = parse(sys.argv[1:])
    machine = Machine.told(args.machine or run(["-m", "benchmarks._gpu_flops"]))
    failed = []
    with tempfile.TemporaryDirectory() as name:
        model = ready_model(args.keep or Path(name), args.shape)
        for stage in args.stage or ("sft", "rl"):
            asked = {"shape": args.shape, "lora": args.lora, "rollouts": args.rollouts, "set": args.set}
            try:
                found = measure(Path(name), stage, recipe(stage, model, args), machine, args)
            except StepsFailedError as error:  # the other stage may still fit
                failed.append(f"{stage}: {error}")
            else:
                print(json.dumps({"stage": stage, **asked, **found}), flush=True)
    if failed:
        raise SystemExit("\n".join(failed))


def parse(words: list[str]) -> argparse.Namespace:
    """The flags; `--quick` overrules sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="3b")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=768, help="longest completion")
    parser.add_argument("--rollouts", choices=("hf", "vllm"), default="hf")
    parser.add_argument("--lora", type=int, default=0, help="rank; 0: all weights")
    parser.add_argument("--stage", action="append", choices=("sft", "rl"), help="again for both; none: both")
    parser.add_argument("--set", action="append", default=[], help="setting of the recipe, KEY=VALUE")
    parser.add_argument("--keep", type=Path, help="folder in which the random model stays for the next run")
    parser.add_argument("--profile", type=Path, help="file for the table of torch's profiler")
    parser.add_argument("--machine", default="", help="what `_gpu_flops` printed, to measure it only once")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, short completions, two steps")
    args = parser.parse_args(words)
    if args.quick:
        args.shape, args.steps, args.prompts, args.tokens = "tiny", 2, 1, 8
    return args


class StepsFailedError(Exception):
    """A process ended with an error; its last words."""


def ready_model(folder: Path, shape: str) -> Path:
    """The random checkpoint of a shape in a folder, made there if it is missing, in a process of its own."""
    model = folder / f"model-{shape}"
    if not (model / "config.json").exists():
        made = f"make_model({str(model)!r}, {shape!r})"
        print(run(["-c", f"from benchmarks.gpu_step import make_model; {made}"]), end="", flush=True)
    return model


def make_model(folder: str | Path, shape: str) -> Path:
    """A checkpoint with Qwen2.5-VL's sizes, random bfloat16 weights and the tokenizer of the demo world."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from videop2r_data.trainer.tiny import (
        TinySpec,
        TinyWorld,
        build_config,
        build_processor,
        build_tokenizer,
        corpus,
    )

    folder, size, spec = Path(folder), SHAPES[shape], TinySpec(patch=14)
    tokenizer = build_tokenizer(corpus(TinyWorld(), 500), vocab=spec.vocab, phrases=False)
    data = build_config(spec, tokenizer).to_dict()
    half = size["hidden_size"] // size["heads"] // 2
    data["tie_word_embeddings"] = shape == "3b"
    data["text_config"] |= {
        "hidden_size": size["hidden_size"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "intermediate_size": size["intermediate"],
        "vocab_size": size["vocab"],
        "tie_word_embeddings": shape == "3b",
        "layer_types": ["full_attention"] * size["layers"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
        },
    }
    data["vision_config"] |= {"out_hidden_size": size["hidden_size"], "window_size": 112}
    if shape != "tiny":
        data["vision_config"] |= {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        }
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        net = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(data))
    torch.set_default_dtype(torch.float32)
    net.generation_config.eos_token_id = data["text_config"]["eos_token_id"]
    net.save_pretrained(folder)
    build_processor(spec, tokenizer).save_pretrained(folder)
    print(json.dumps({"parameters": sum(p.numel() for p in net.parameters())}), flush=True)
    return folder


def recipe(stage: str, model: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The paper's frames and lengths on the demo stream."""
    side = side_of(args)
    spec: dict[str, Any] = {"model": str(model), "dtype": "float32", "gradient_checkpointing": True}
    if args.lora:
        spec |= {"dtype": "bfloat16", "lora": {"rank": args.lora, "alpha": 2.0 * args.lora}}
    made: dict[str, Any] = {
        "train": 1,
        "name": "gpu-step",
        "stage": stage,
        "data": {
            "source": "demo",
            "config": stage,
            "media": {"frames": FRAMES, "max_pixels": side * side, "min_pixels": 784, "factor": 28},
            "demo": {
                "seed": 1,
                "side": side,
                "frames": FRAMES,
                "mediums": ["video"],
                "numbered": False,
                "rotated": False,
            },
            "workers": 4,
        },
        "model": spec,
        "optim": {"lr": 1e-6, "schedule": "constant"},
        "batch": {"size": args.prompts, "micro": 1},
        "steps": args.steps + 1,
        "precision": "auto",
        "save": {"every": 0},
    }
    if stage == "sft":
        return made
    made["save"]["samples_every"] = 0
    return made | {
        "rl": {"group_size": 8},
        "judging": {"kind": "demo"},
        "loss": {"beta": 0.04},
        "sampling": {"max_new_tokens": args.tokens, "backend": args.rollouts},
        "vllm": {"dtype": "bfloat16", "memory": 0.3},
        "alarms": {"every": 0},
    }


def measure(
    folder: Path, stage: str, made: dict[str, Any], machine: Machine, args: argparse.Namespace
) -> dict[str, Any]:
    """Train in a process of its own; figures of the steps after the first."""
    from videop2r_data.trainer import load_train_recipe, recipe_yaml

    path, figures = folder / f"{stage}.yaml", folder / f"{stage}.json"
    path.write_text(yaml.safe_dump(made))
    path.write_text(recipe_yaml(load_train_recipe(path, sets=args.set)))
    profile = ["--profile", str(args.profile)] if args.profile else []
    run(["-m", "benchmarks._gpu_probe", str(path), str(figures), *profile])
    found = summary(json.loads(figures.read_text()), machine)
    return found | {"plan_gib": planned(path, found, machine, side_of(args))}


def side_of(args: argparse.Namespace) -> int:
    """Of the frames, in pixels."""
    return 56 if args.quick else 308


def planned(path: Path, found: dict[str, Any], machine: Machine, side: int) -> float | None:
    """GiB that `p2r-train plan` counts for the tensors of the run, at the lengths that were measured.

    What CUDA takes beside the tensors is left out, as `peak_gib` leaves it out. None: this version has no
    such count.
    """
    if importlib.util.find_spec("videop2r_data.trainer.memory") is None:
        return None
    from videop2r_data.trainer import load_train_recipe

    count = importlib.import_module("videop2r_data.trainer.memory").plan_memory
    video = FRAMES // 2 * (side // 28) ** 2
    plan = count(
        load_train_recipe(path),
        gpus=1,
        card=machine.memory_gib or 80.0,
        text=max(1, round(found["prompt_tokens"]) - video),
        completion=round(found["completion_tokens"]),
        cuda=machine.cuda,
    )
    return float(round((plan.phases[plan.peak] - plan.parts.get("reserve", 0)) / 2**30, 3))


def run(words: list[str]) -> str:
    """What a process of this Python printed; it has its own memory.

    Raises:
        StepsFailedError: it failed.
    """
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StepsFailedError(done.stderr[-4000:])
    return done.stdout


def summary(found: dict[str, Any], machine: Machine) -> dict[str, Any]:
    """What `_gpu_probe` wrote, as medians over the steps after the first, or of the only one."""
    steps = found["steps"][1:] or found["steps"]

    def middle(name: str) -> float:
        return median(float(step.get(name, 0.0)) for step in steps)

    seconds = {name: median(step["times"].get(name, 0.0) for step in steps) for name in (*PARTS, "step")}
    seconds["decode"], seconds["prefill"] = middle("decode_s"), middle("prefill_s")
    seconds["rollout"] = max(0.0, seconds["rollout"] - seconds["decode"] - seconds["prefill"])
    step = seconds.pop("step")
    flops = {name: middle(f"{name}_flops") for name in ("rollout", "reference", "update")}
    start = found["peak_bytes"].pop("start", 0)
    gib = {phase: round((peak - start) / 2**30, 3) for phase, peak in found["peak_bytes"].items()}
    return {
        "step_s": round(step, 3),
        "tokens_per_s": round(median(step["tokens_per_s"] for step in steps), 1),
        "prompt_tokens": round(middle("prompt_tokens") / max(1.0, middle("prompts")), 1),
        "completion_tokens": round(middle("completion_tokens") / max(1.0, middle("completions")), 1),
        "share": {name: round(spent / step, 4) for name, spent in seconds.items()},
        "tflop": {name: round(count / 1e12, 3) for name, count in flops.items()},
        "mfu": {
            "step": mfu(sum(flops.values()), step, machine.peak),
            "update": mfu(flops["update"], seconds["update"], machine.peak),
            "reference": mfu(flops["reference"], seconds["logps"], machine.peak),
            "of": f"{machine.peak:g} TFLOP/s ({machine.peak_from})",
        },
        "peak_gib": max(gib.values(), default=0.0),
        "peaks_gib": gib,
        "top": found["top"],
    }


if __name__ == "__main__":
    main()
