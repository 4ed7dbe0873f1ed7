"""The same step by TRL's GRPOTrainer, for `train_step.py`: prints the seconds of each step as JSON.

python -m benchmarks._trl_step MODEL PROMPTS GROUP TOKENS STEPS SIDE
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Train, with a clock around every optimiser step."""
    model, prompts, group, tokens, steps, side = sys.argv[1], *map(int, sys.argv[2:7])
    import torch
    from datasets import Dataset, Features, Image, List, Value
    from PIL import Image as Pictures
    from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from benchmarks._step_questions import questions

    torch.set_num_threads(1)
    asked = questions(prompts * steps, side)
    features = Features(
        {"prompt": List({"role": Value("string"), "content": Value("string")}), "image": Image()}
    )
    rows = {
        "prompt": [
            [{"role": "system", "content": q.system}, {"role": "user", "content": q.user}] for q in asked
        ],
        "image": [Pictures.fromarray(q.picture) for q in asked],
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
            per_device_train_batch_size=prompts * group,
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
