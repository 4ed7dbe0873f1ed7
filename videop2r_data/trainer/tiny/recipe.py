"""A tiny model's settings, and the recipe that teaches it the demo world from nothing. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from videop2r_data.schemas import DemoSpec, MediaSpec
from videop2r_data.trainer.settings.recipe import TrainRecipe
from videop2r_data.trainer.settings.section import Section


class TinyWorld(DemoSpec):
    """A demo world that a model of a million weights can learn in minutes: short clips of small frames,
    stored upright and without a number, for a tiny model has nothing to learn from either."""

    side: int = Field(default=24, ge=16)
    frames: int = Field(default=4, ge=2)
    fps: int = Field(default=2, ge=1)
    mediums: tuple[Literal["video", "image", "text"], ...] = Field(default=("video",), min_length=1)
    tasks: tuple[str, ...] = ("count", "count_moving", "direction", "colour")
    questions: int = Field(default=1, ge=1, le=8)
    rotated: bool = False
    numbered: bool = False
    defect_rate: float = Field(default=0.0, ge=0.0, le=1.0)


class TinySpec(Section):
    """Sizes of a Qwen2.5-VL for the demo world, and of its tokenizer.

    The values are those that made learning possible at this size: a background of exactly zero after the
    normalisation, large random weights, and a rope base small enough for clips of a few patches (mrope gives
    width and height the lowest frequencies: with the usual base of a million they stand still).
    """

    hidden: int = Field(default=128, ge=16)
    """Width of the text model."""
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    intermediate: int = Field(default=320, ge=16)
    rope_theta: float = Field(default=20.0, gt=1.0)
    vision_hidden: int = Field(default=64, ge=16)
    vision_layers: int = Field(default=2, ge=1)
    vision_heads: int = Field(default=2, ge=1)
    vision_intermediate: int = Field(default=160, ge=16)
    patch: int = Field(default=4, ge=2)
    """Side of a patch, pixels; a video token covers 2 x 2 patches of 2 frames."""
    vocab: int = Field(default=2048, ge=256 + 14)
    """Entries of the tokenizer at most, special tokens included."""
    phrases: bool = True
    """Let tokens span words: what the demo world always says in one breath becomes one token, while words
    that carry a fact (colours, shapes, numbers, directions, letters) and tags stay tokens of their own. Off:
    words as in Qwen's own tokenizer, about three times the tokens."""
    corpus: int = Field(default=3000, ge=1)
    """Chats that the merges are learnt from."""
    initializer_range: float = Field(default=0.08, gt=0.0)
    """Standard deviation of the random weights."""
    tied: bool = True
    """One matrix for the token embeddings and the output."""
    seed: int = 0

    @property
    def head_dim(self) -> int:
        """Width of an attention head of the text model."""
        return self.hidden // self.heads

    @property
    def mrope_section(self) -> tuple[int, int, int]:
        """Frequencies of a head for time, height and width; they add up to half of the head."""
        half = self.head_dim // 2
        side = half * 3 // 8
        return half - 2 * side, side, side

    def _problems(self) -> Iterator[str]:
        divide = [("hidden", "heads"), ("heads", "kv_heads"), ("vision_hidden", "vision_heads")]
        wrong = [pair for pair in divide if getattr(self, pair[0]) % getattr(self, pair[1])]
        for whole, part in wrong:
            yield f"{whole} {getattr(self, whole)} is not a multiple of {part} {getattr(self, part)}"
        if not wrong and (self.head_dim % 2 or self.vision_hidden // self.vision_heads % 4):
            yield "rotary positions need an even head of the text model and a vision head of 4, 8, 12 ..."


PROMPT = "tiny-v1"
"""A prompt of one word: what every chat repeats would cost a tiny model most of its context."""


def media_of(world: TinyWorld, spec: TinySpec) -> MediaSpec:
    """How clips of a world are sampled so that they reach the model in the size they were drawn in."""
    return MediaSpec(
        frames=world.frames,
        factor=2 * spec.patch,
        min_pixels=(2 * spec.patch) ** 2,
        max_pixels=max(28 * 28, world.side**2),
        workers=1,
    )


def scratch_recipe(
    model: Path,
    output: Path,
    *,
    spec: TinySpec,
    world: TinyWorld,
    steps: int = 1500,
    batch: int = 32,
    seed: int = 0,
) -> TrainRecipe:
    """SFT from random weights on the endless demo stream: every clip is seen once.

    Args:
        model: what `make_tiny` wrote, of `spec` and `world`.
        output: the run's folder.
        steps: updates. The format is learnt in about 100, colours and numbers in several hundred, directions
            and option letters last.
        batch: clips per update.
    """
    return TrainRecipe.model_validate(
        {
            "name": "tiny-scratch",
            "title": "A tiny model learns the demo world from nothing",
            "stage": "sft",
            "data": {
                "source": "demo",
                "config": "sft",
                "prompt": PROMPT,
                "demo": world.model_dump(),
                "media": media_of(world, spec),
                "workers": 1,
            },
            "model": {"model": str(model), "dtype": "float32", "gradient_checkpointing": False},
            "optim": {
                "lr": 4e-3,
                "betas": (0.9, 0.98),
                "schedule": "linear",
                "warmup": min(50, steps // 4),
                "floor": 0.05,
                "max_grad_norm": 1.0,
            },
            "batch": {"size": batch, "micro": batch},
            "steps": steps,
            "precision": "fp32",
            "save": {"every": 500},
            "seed": seed,
            "output": str(output),
        }
    )
