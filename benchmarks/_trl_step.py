"""The same step by TRL's GRPOTrainer, for `train_step.py`: prints the seconds of each step as JSON.

    .venv-trl/bin/python benchmarks/_trl_step.py MODEL ROWS.jsonl ROLLOUTS GROUP TOKENS STEPS

It runs in an environment of its own (`rivals/env.sh trl`), so it imports nothing of this package; ROWS are
the questions as `_swift_step.py` has them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train, with a clock around every optimiser step."""
    (model, path), (rollouts, group, tokens, steps) = sys.argv[1:3], map(int, sys.argv[3:7])
    import torch
    from datasets import Dataset, Features, Image, List, Value
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    asked = [json.loads(line) for line in Path(path).read_text().splitlines()]
    features = Features(
        {"prompt": List({"role": Value("string"), "content": Value("string")}), "image": Image()}
    )
    rows = {
        # TRL puts the picture before the text by itself
        "prompt": [
            [{**turn, "content": turn["content"].removeprefix("<image>")} for turn in row["messages"]]
            for row in asked
        ],
        "image": [row["images"][0] for row in asked],
    }
    data = Dataset.from_dict(rows, features=features)

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Seconds of each step."""

        def __init__(self) -> None:
            self.marks = [0.0]
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.marks[-1])

    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out,
            per_device_train_batch_size=rollouts,
            num_generations=group,
            max_completion_length=tokens,
            max_steps=steps,
            beta=0.04,
            learning_rate=1e-6,
            lr_scheduler_type="constant",
            temperature=1.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            shuffle_dataset=False,
            loss_type="grpo",
        )
        trainer = GRPOTrainer(
            model=AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32),
            processing_class=AutoProcessor.from_pretrained(model, padding_side="left"),
            reward_funcs=lambda completions, **_: [len(set(c[0]["content"])) / 100 for c in completions],
            args=config,
            train_dataset=data,
            callbacks=[clock],
        )
        trainer.train()
    print(json.dumps({"seconds": clock.seconds}))


if __name__ == "__main__":
    main()
