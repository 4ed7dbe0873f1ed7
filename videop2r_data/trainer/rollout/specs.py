"""How rollouts are drawn. Reading this needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from videop2r_data.schemas import Model


class SamplingSpec(Model):
    """From which distribution tokens are drawn, for how long, and by what."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens whose probabilities add up to this; 1: all."""
    top_k: int = Field(default=0, ge=0)
    """Only this many of the likeliest tokens; 0: all."""
    max_new_tokens: int = Field(default=768, ge=1)
    """Longest completion, the closing token included. [recipes the paper follows]"""
    backend: Literal["hf", "vllm", "vllm-server"] = "hf"
    """`hf`: the policy itself; `vllm`: an engine in this process; `vllm-server`: one on other GPUs."""
    rows: int = Field(default=0, ge=0)
    """hf: rollouts drawn at a time, to bound memory; whole groups, at least one; 0: all at once."""
