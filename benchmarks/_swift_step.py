"""The same step by ms-swift's GRPO trainer, for `train_step.py`: prints the seconds of each step as JSON.

    .venv-swift/bin/python benchmarks/_swift_step.py MODEL ROWS.jsonl ROLLOUTS GROUP TOKENS STEPS

It runs in an environment of its own (`rivals/env.sh swift`), so it imports nothing of this package; ROWS are
the questions in ms-swift's own layout, with the paths of their pictures.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any


def main() -> None:
    """Train, with a clock around every optimiser step."""
    model, rows = sys.argv[1:3]
    rollouts, group, tokens, steps = map(int, sys.argv[3:])
    import torch
    from swift.pipelines import rlhf_main
    from swift.rewards import ORM, orms
    from swift.template.templates import qwen
    from transformers import AutoConfig, TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    torch.set_num_threads(1)
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Seconds of each step."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    class Characters(ORM):  # type: ignore[misc]
        """The reward that the other trainers are timed with."""

        def __call__(self, completions: list[str], **_: Any) -> list[float]:
            return [len(set(text)) / 100 for text in completions]

    DEFAULT_CALLBACKS.append(Clock)
    orms["characters"] = Characters
    # its template holds the token ids of Qwen's own vocabulary; the tiny model's are others
    config = AutoConfig.from_pretrained(model)
    qwen.Qwen2VLTemplate.image_token_id = config.image_token_id
    qwen.Qwen2VLTemplate.video_token_id = config.video_token_id
    with tempfile.TemporaryDirectory() as out:
        settings: dict[str, object] = {
            "rlhf_type": "grpo",
            "model": model,
            "model_type": "qwen2_5_vl",
            "template": "qwen2_5_vl",
            "dataset": rows,
            "split_dataset_ratio": 0,
            "dataset_shuffle": "false",
            "train_dataloader_shuffle": "false",
            "load_from_cache_file": "false",
            "reward_funcs": "characters",
            "tuner_type": "full",
            "freeze_vit": "false",
            "freeze_aligner": "false",
            "torch_dtype": "float32",
            "attn_impl": "sdpa",
            "gradient_checkpointing": "false",
            "use_vllm": "false",
            "per_device_train_batch_size": rollouts,
            "gradient_accumulation_steps": 1,
            "num_generations": group,
            "max_completion_length": tokens,
            "max_length": 4096,
            "max_steps": steps,
            "beta": 0.04,
            "loss_type": "grpo",
            "learning_rate": 1e-6,
            "lr_scheduler_type": "constant",
            "warmup_ratio": 0,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "save_strategy": "no",
            "eval_strategy": "no",
            "report_to": "none",
            "logging_steps": 1000,
            "dataloader_num_workers": 0,
            "use_hf": "true",
            "output_dir": out,
        }
        rlhf_main([word for name, value in settings.items() for word in (f"--{name}", str(value))])
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
