"""What the tests of this folder share: a small processor, its settings, drawn examples."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tests.tiny_model import CHAT_TEMPLATE, TinyConfig, build_processor, build_tokenizer
from videop2r_data.media import frames_digest
from videop2r_data.prompts import Prompt, load_prompt
from videop2r_data.schemas import DataType, ProblemType
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.recipe import DemoSpec
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.settings.parts import DataSpec

SMALL = MediaSpec(frames=8, factor=8, min_pixels=64, max_pixels=784)
"""24 px frames of 4 px patches, 2x2 to a token: 9 tokens a frame pair."""
WORLD = DemoSpec(side=24, frames=8, fps=4, numbered=False, rotated=False)


@lru_cache
def small_processor() -> Any:
    """Qwen2.5-VL's processor with patches of 4 px."""
    return build_processor(TinyConfig(patch=4, min_pixels=64, max_pixels=576), build_tokenizer(640))


@lru_cache
def plain_processor() -> Any:
    """Qwen2.5-VL's processor with its own patches of 14 px, which would resize what it can."""
    return build_processor(
        TinyConfig(min_pixels=128 * 28 * 28, max_pixels=768 * 28 * 28), build_tokenizer(640)
    )


@lru_cache
def qwen3_processor() -> Any:
    """Qwen3-VL's processor with patches of 4 px."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    shared = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 64, "longest_edge": 10**6}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size, **shared),
        tokenizer=build_tokenizer(640),
        video_processor=Qwen3VLVideoProcessor(size=size, **shared),
        chat_template=CHAT_TEMPLATE,
    )


def prompt() -> Prompt:
    """A short one, so that token lists stay readable."""
    return Prompt("short", "Look.", "{problem}\n{options}\n", {}, "")


def collator(processor: Any = None, media: MediaSpec = SMALL) -> Collator:
    """Over the small processor."""
    return Collator(processor or small_processor(), prompt(), media)


def packaged(name: str = "generate-v1") -> Collator:
    """With a packaged prompt."""
    return Collator(small_processor(), load_prompt(name), SMALL)


def stream_spec(**more: Any) -> DataSpec:
    """The demo stream in the small size."""
    return DataSpec(source="demo", demo=WORLD, media=SMALL, **more)


def example(kind: str = "text", problem: str = "How many?", **more: Any) -> Example:
    """A question without files."""
    fields: dict[str, Any] = {
        "sample_id": f"t/{problem}",
        "problem": problem,
        "options": (),
        "problem_type": ProblemType.NUMERICAL,
        "data_type": DataType(kind),
        "path": None,
        "reference": "3",
        "target": None,
    }
    return Example(**(fields | more))


def frames(
    kind: str = "video",
    count: int = 8,
    *,
    height: int = 24,
    width: int = 24,
    indices: tuple[int, ...] | None = None,
    fps: float = 4.0,
    total: int | None = None,
    seed: int = 0,
) -> Frames:
    """Random pixels with a true record."""
    array = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    indices = indices or tuple(range(count))
    total = total or indices[-1] + 1
    video = kind == "video"
    record = MediaRecord(
        data_type="video" if video else "image",
        frames_sha256=frames_digest(array),
        count=count,
        width=width,
        height=height,
        indices=indices,
        times_s=tuple(i / fps for i in indices),
        source_fps=fps if video else None,
        source_frames=total,
        duration_s=total / fps if video else None,
        source_width=width,
        source_height=height,
        file_sha256="0",
        file_bytes=1,
        sampler="test/1",
    )
    return Frames(record=record, array=array)
