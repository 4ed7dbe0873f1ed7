"""A batch of clip, picture and text prompts for the tiny model, and a policy to move."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.tiny_model import make_tiny_model
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.sample import DataType, ProblemType
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.model.load import Policy, load_policy
from videop2r_data.trainer.settings.parts import LoraSpec, PolicySpec

SECONDS = 24.0
"""The clip lasts longer than its frames are wide in patches: the time axis gives the highest position."""


def make_frames(kind: str, seed: int, count: int = 6, height: int = 56, width: int = 84) -> Frames:
    """Noise, with the times of a clip of `SECONDS`."""
    count = count if kind == "video" else 1
    array = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    indices = tuple(range(0, count * 20, 20))
    record = MediaRecord(
        data_type="video" if kind == "video" else "image",
        frames_sha256=f"{kind}{seed}",
        count=count,
        width=width,
        height=height,
        indices=indices,
        times_s=tuple(i * SECONDS / (count * 20) for i in indices),
        source_fps=None,
        source_frames=count * 20,
        source_width=width,
        source_height=height,
        file_sha256=f"{kind}{seed}",
        file_bytes=1,
        sampler="test/1",
    )
    return Frames(record, array)


def make_examples(kinds: Sequence[str]) -> tuple[list[Example], list[Frames | None]]:
    """One question per kind: `video`, `image` or `text`."""
    examples = [
        Example(
            sample_id=f"{kind}-{i}",
            problem=f"How many things move in number {i}?",
            options=(),
            problem_type=ProblemType.NUMERICAL,
            data_type=DataType(kind),
            path=None,
            reference="3",
            target=None,
        )
        for i, kind in enumerate(kinds)
    ]
    return examples, [None if kind == "text" else make_frames(kind, i) for i, kind in enumerate(kinds)]


def make_batch(policy: Policy, kinds: Sequence[str]) -> PromptBatch:
    """The prompts as the trainer makes them."""
    return Collator(policy.processor, load_prompt("generate-v1"), MediaSpec())(*make_examples(kinds))


@dataclass(frozen=True)
class World:
    """A checkpoint on disk and a policy that was loaded from it."""

    folder: Path
    policy: Policy

    @property
    def net(self) -> Any:
        """The policy's model."""
        return self.policy.net


def make_world(folder: Path, *, lora: LoraSpec | None = None, tied: bool = False) -> World:
    """The tiny model as a float32 policy; tied: its output layer is its embedding, as in Qwen2.5-VL-3B."""
    make_tiny_model(folder)
    if tied:
        _tie(folder)
    spec = PolicySpec(model=str(folder), dtype="float32", gradient_checkpointing=False, lora=lora)
    return World(folder, load_policy(spec))


def _tie(folder: Path) -> None:
    from transformers import AutoModelForImageTextToText

    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    path.write_text(json.dumps(config))
    net = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    net.tie_weights()
    net.save_pretrained(folder)
    assert net.lm_head.weight is net.model.language_model.embed_tokens.weight


def move(net: Any, batch: PromptBatch, *, rate: float = 0.02, seed: int = 0) -> None:
    """One real update of every trainable weight, vision tower included, large enough to change what is likely.

    Adam's first step moves each weight by the learning rate. The loss wants some tokens of made-up completions
    and does not want others, so that the policy does not end up repeating one.
    """
    from videop2r_data.trainer.model.forward import TrainModel

    draw = torch.Generator().manual_seed(seed)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    wanted = torch.randint(20, 400, (len(batch), 24), generator=draw)
    told = TrainModel(net)(batch.with_completions(wanted.tolist(), 1))
    (told.logps * torch.randn(told.logps.shape, generator=draw)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
