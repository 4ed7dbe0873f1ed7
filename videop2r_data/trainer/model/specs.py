"""Which policy is trained, and how it is held in memory. Reading this needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from videop2r_data.schemas import Model

LANGUAGE_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder block, in Qwen2.5-VL and Qwen3-VL alike."""

VISION_TARGETS = ("qkv", "proj", "gate_proj", "up_proj", "down_proj", "linear_fc1", "linear_fc2")
"""The linear layers of a block of the vision tower, over both families."""


class LoraSpec(Model):
    """Low-rank adapters instead of full weights; the reference model is then the base itself."""

    rank: int = Field(default=64, ge=1)
    """Rank of every adapter."""
    alpha: float = Field(default=128.0, gt=0)
    """Scale: an adapter adds `alpha / rank` times its product."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in front of the adapters. Above 0 two passes over the same tokens differ."""
    targets: tuple[str, ...] = LANGUAGE_TARGETS
    """Names of the linear layers of the language model that get an adapter."""
    vision: bool = False
    """Adapters in the blocks of the vision tower too."""


class PolicySpec(Model):
    """A checkpoint to train."""

    model: str = Field(min_length=1)
    """Folder, or id on the Hub."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; None: its main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the weights in memory. float32 with mixed precision bf16 keeps master weights."""
    attn: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: much less memory, about a third more time."""
    freeze_vision: bool = False
    """Leave the vision tower and its merger as they are."""
    share_prompts: bool = True
    """Run the prompt of a group once, not once per rollout; needs `sdpa` or `eager`."""
    lora: LoraSpec | None = None
    """None: all weights are trained."""

    @model_validator(mode="after")
    def _adapters_fit(self) -> PolicySpec:
        if self.lora is not None and self.lora.vision and self.freeze_vision:
            raise ValueError(
                "lora.vision puts adapters into the vision tower, freeze_vision forbids it: drop one"
            )
        return self
