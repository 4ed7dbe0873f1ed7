"""SFT and RL steps of a randomly initialised Qwen2.5-VL of real shape: seconds, tokens/s, shares, memory.

    python -m benchmarks.gpu_step --shape 3b --steps 5                       # one large GPU
    python -m benchmarks.gpu_step --shape 3b --rollouts vllm --steps 5
    python -m benchmarks.gpu_step --shape 7b --lora 64
    python -m benchmarks.gpu_step --quick                                    # any machine: does it run?

The paper's load: 16 frames of 308 x 308 pixels (94,864 of the budget of 100,352), completions of 768 tokens,
8 rollouts of a prompt, KL to the start. Random weights hardly ever end a completion: nearly every rollout has
its full length. The judge is the exact one of the demo world. The first step is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import yaml

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
SHOWN = (
    "time/step_s",
    "time/data_s",
    "time/rollout_s",
    "time/logps_s",
    "time/judge_s",
    "time/update_s",
    "time/sync_s",
)


def main() -> None:
    """Time the phases of RL steps on the accelerator that is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="3b")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--rollouts", choices=("hf", "vllm"), default="hf")
    parser.add_argument("--lora", type=int, default=0, help="rank; 0: all weights")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, short completions, two steps")
    args = parser.parse_args()
    if args.quick:
        args.shape, args.steps, args.prompts = "tiny", 2, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder / "model", args.shape)
        for stage in ("sft", "rl"):
            found = run(folder, stage, recipe(stage, model, args))
            print(json.dumps({"shape": args.shape, "stage": stage, **found}), flush=True)


def make_model(folder: Path, shape: str) -> Path:
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

    size, spec = SHAPES[shape], TinySpec(patch=14)
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
    side = 308 if not args.quick else 56
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
            "media": {"frames": 16, "max_pixels": side * side, "min_pixels": 784, "factor": 28},
            "demo": {
                "seed": 1,
                "side": side,
                "frames": 16,
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
        "sampling": {"max_new_tokens": 8 if args.quick else 768, "backend": args.rollouts},
        "vllm": {"dtype": "bfloat16", "memory": 0.3},
    }


def run(folder: Path, stage: str, made: dict[str, Any]) -> dict[str, Any]:
    """Train; medians over the steps after the first, and each part's share of the step."""
    path, out = folder / f"{stage}.yaml", folder / f"run-{stage}"
    path.write_text(yaml.safe_dump(made))
    command = [
        sys.executable,
        "-m",
        "videop2r_data.cli.train",
        stage,
        str(path),
        "--output",
        str(out),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
    seen = {name: median(line[name] for line in lines) for name in SHOWN if name in lines[0]}
    step = seen["time/step_s"]
    return {
        "step_s": round(step, 3),
        "tokens_per_s": round(median(line["tokens_per_s"] for line in lines), 1),
        "share": {
            name[5:-2]: round(value / step, 3) for name, value in seen.items() if name != "time/step_s"
        },
        "memory_gb": max((line.get("memory_gb", 0.0) for line in lines), default=0.0),
    }


if __name__ == "__main__":
    main()
