"""Prompts for the tests of model and rollouts: a clip, a picture, words alone; made by the real processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from tests.tiny_model import TinyConfig, make_tiny_model
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.model.load import Policy, load_policy
from videop2r_data.trainer.settings.parts import LoraSpec, PolicySpec

torch.set_num_threads(1)

QUESTIONS = ("What moves?", "How many red squares are there in the picture?", "Count to three.", "Which one?")


@cache
def tiny_folder() -> Path:
    """A tiny Qwen2.5-VL on disk, once per test process. Any token but the special ones may be drawn."""
    return make_tiny_model(Path(mkdtemp(prefix="tiny-")) / "model", TinyConfig(printable_only=False))


def tiny_policy(lora: LoraSpec | None = None, **settings: Any) -> Policy:
    chosen = {"dtype": "float32", "gradient_checkpointing": False, "model": str(tiny_folder())} | settings
    return load_policy(PolicySpec(lora=lora, **chosen))


def clip(seed: int, frames: int = 6, height: int = 56, width: int = 56) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (frames, 3, height, width), dtype=np.uint8)


def batch_of(processor: Any, media: Sequence[Any]) -> PromptBatch:
    """One prompt per entry: a clip [T, 3, H, W], a picture [3, H, W], or None; question i for prompt i."""
    kinds = ["video" if m is not None and m.ndim == 4 else "image" if m is not None else "" for m in media]
    texts = [
        "<|im_start|>user\n"
        + (f"<|vision_start|><|{kind}_pad|><|vision_end|>" if kind else "")
        + f"{QUESTIONS[i % len(QUESTIONS)]}<|im_end|>\n<|im_start|>assistant\n"
        for i, kind in enumerate(kinds)
    ]
    videos = [m for m, kind in zip(media, kinds, strict=True) if kind == "video"]
    images = [m for m, kind in zip(media, kinds, strict=True) if kind == "image"]
    about = [
        {
            "fps": 8.0,
            "duration": len(v) / 2,
            "total_num_frames": 4 * len(v),
            "frames_indices": list(range(0, 4 * len(v), 4)),
        }
        for v in videos
    ]
    options = {"do_sample_frames": False, "video_metadata": about}
    told = processor(
        text=texts,
        videos=videos or None,
        images=images or None,
        padding=True,
        return_tensors="pt",
        **({"videos_kwargs": options} if videos else {}),
    )
    real = told["attention_mask"].bool()
    names = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")
    return PromptBatch(
        examples=(None,) * len(media),  # type: ignore[arg-type]
        frames=(None,) * len(media),
        texts=tuple(texts),
        ids=[row[r].tolist() for row, r in zip(told["input_ids"], real, strict=True)],
        types=[row[r].tolist() for row, r in zip(told["mm_token_type_ids"], real, strict=True)],
        media={name: torch.as_tensor(told[name]) for name in names if name in told},
        pad_id=processor.tokenizer.pad_token_id,
    )


def random_completions(count: int, seed: int = 0, longest: int = 9) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 250, rng.integers(1, longest + 1)).tolist() for _ in range(count)]
