"""Settings of an evaluation. Reading this needs no torch."""

from __future__ import annotations

from pydantic import Field

from videop2r_data.schemas import MediaSpec, Model, Policy
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.judging.specs import JudgingSpec
from videop2r_data.trainer.model.specs import PolicySpec
from videop2r_data.trainer.rollout.specs import SamplingSpec

PAPER_MEDIA = MediaSpec(frames=32, max_pixels=256 * 28 * 28)
"""Frames and pixels of inference [method §4]."""
PAPER_SAMPLING = SamplingSpec(temperature=0.01, top_p=0.001, max_new_tokens=1024)
"""How the paper samples at inference [method §4]; the longest completion is ours."""


class EvalSpec(Model):
    """How held-out questions are answered and graded."""

    sampling: SamplingSpec = PAPER_SAMPLING
    """How answers are drawn."""
    batch: int = Field(default=8, ge=1)
    """Questions that are answered at a time, per process; changes speed and memory, not the rows."""
    seed: int = Field(default=0, ge=0)
    """Of the draws; every question has its own, whatever its batch or process."""
    scoring: Policy = Policy()
    """How strict answers are graded."""
    level: float = Field(default=0.95, gt=0.5, lt=1.0)
    """Of the confidence intervals."""
    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap samples behind the interval of a mean."""


class EvalRecipe(Model):
    """A whole evaluation: which model, which questions, how."""

    model: PolicySpec
    data: DataSpec
    run: EvalSpec = EvalSpec()
    judging: JudgingSpec = JudgingSpec()
    """Left out, questions with a scene get the exact checker; `kind: none`, written out, judges nothing."""

    @property
    def unjudged(self) -> bool:
        """Somebody said that nobody is to be asked."""
        return self.judging.kind == "none" and "kind" in self.judging.model_fields_set
