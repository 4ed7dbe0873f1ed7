"""The recipe that teaches a tiny model the demo world from nothing; reading this loads no torch."""

from __future__ import annotations

from pathlib import Path

from videop2r_data.schemas import MediaSpec
from videop2r_data.trainer.run.config import TrainRecipe
from videop2r_data.trainer.tiny.specs import TinySpec, TinyWorld

PROMPT = "tiny-v1"
"""A prompt of one word: what every chat repeats would cost a tiny model most of its context."""
_LEAST = 28 * 28


def media_of(world: TinyWorld, spec: TinySpec) -> MediaSpec:
    """How clips of a world are sampled so that they reach the model in the size they were drawn in."""
    return MediaSpec(
        frames=world.frames,
        factor=2 * spec.patch,
        min_pixels=(2 * spec.patch) ** 2,
        max_pixels=max(_LEAST, world.side**2),
        workers=1,
    )


def scratch_recipe(
    model: Path,
    output: Path,
    *,
    spec: TinySpec | None = None,
    world: TinyWorld | None = None,
    steps: int = 1500,
    batch: int = 32,
    seed: int = 0,
) -> TrainRecipe:
    """SFT from random weights on the endless demo stream: every clip is seen once.

    Args:
        model: what `make_tiny` wrote.
        output: the run's folder.
        spec, world: those that the model was made with.
        steps: updates. The format is learnt in about 100, colours and numbers in several hundred, directions
            and option letters last.
        batch: clips per update.
        seed: of the run.
    """
    spec, world = spec or TinySpec(), world or TinyWorld()
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
