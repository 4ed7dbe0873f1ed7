"""Settings of PA-GRPO: rewards, objective, loss."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from videop2r_data.schemas import Model
from videop2r_data.trainer.lengths import PERCEPTION_BOUNDS, REASONING_BOUNDS

ObjectiveName = Literal[
    "pa-grpo", "grpo", "no-separation", "no-perception", "no-reasoning", "no-length", "t-grpo"
]
OBJECTIVES: tuple[ObjectiveName, ...] = (
    "pa-grpo",
    "grpo",
    "no-separation",
    "no-perception",
    "no-reasoning",
    "no-length",
    "t-grpo",
)
Style = Literal["process", "agnostic"]
"""`process`: observation, think, answer; `agnostic`: think and answer only (process-agnostic SFT)."""
Unattributable = Literal["half", "none", "reasoning"]
"""Who gets the tokens of a completion that cannot be split (see `segment_masks`)."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class DynamicLengthSpec(Model):
    """Length bounds that follow the question instead of being fixed for all of them.

    The paper finds its fixed bounds harmful where a question needs more or fewer words and asks for dynamic
    ones; the rule here is this project's. Within a group, the lengths of the rollouts that would
    be paid for length (accuracy and format both non-zero) give the bounds: their quantiles, widened by
    `slack`. So a short question keeps short bounds and a rambling rollout of a group of short correct ones is
    not paid. It needs no memory: a resumed run, or one on more ranks, computes the same bounds.
    """

    low: Share = 0.25
    """Lower quantile of the correct rollouts' lengths."""
    high: Share = 0.75
    """Upper quantile."""
    slack: float = Field(default=0.1, ge=0.0, le=1.0)
    """Bounds are widened by this share of themselves, so that a token more or less decides nothing."""
    at_least: int = Field(default=3, ge=2)
    """Fewer such rollouts in the group say nothing about the right length: nobody earns the bonus."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low quantile {self.low:g} above the high one {self.high:g}: swap them")
        return self


class RewardSpec(Model):
    """What a rollout earns: `R_k = accuracy + format + length` for k in {P, R} [paper §3.3].

    The weights matter between the parts of one process only: normalisation removes a common factor.
    """

    accuracy: float = Field(default=1.0, ge=0.0)
    """Weight of acc_k in [0, 1]: the judge's verdict (P), the metric of the problem type (R)."""
    form: float = Field(default=1.0, ge=0.0)
    """Weight of form_k in {0, 1}."""
    length_bonus: float = Field(default=0.2, ge=0.0)
    """len_k, for acc_k and form_k both non-zero and a length within its bounds [paper §3.3]."""
    length: Literal["fixed", "dynamic", "off"] = "fixed"
    """`fixed`: the two bounds below; `dynamic`: see `DynamicLengthSpec`; `off`: nobody earns it."""
    perception_bounds: tuple[int, int] = PERCEPTION_BOUNDS
    """Tokens of the observation segment with its tags, both bounds inclusive."""
    reasoning_bounds: tuple[int, int] = REASONING_BOUNDS
    """Tokens of think and answer with their tags (end-of-turn not counted), both inclusive."""
    dynamic: DynamicLengthSpec = DynamicLengthSpec()
    """Used with `length: dynamic`."""

    @field_validator("perception_bounds", "reasoning_bounds")
    @classmethod
    def _are_bounds(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1]:
            raise ValueError(f"got {list(value)}; give [low, high] in tokens with 0 <= low <= high")
        return value

    @model_validator(mode="after")
    def _pays_something(self) -> Self:
        if self.accuracy == 0 and self.form == 0:
            raise ValueError(
                "accuracy and form are both 0: no rollout could earn anything; raise one of them"
            )
        if "dynamic" in self.model_fields_set and self.length != "dynamic":
            raise ValueError(f"dynamic bounds are set, but length is {self.length!r}: set length: dynamic")
        return self


class TemporalSpec(Model):
    """The bonus of T-GRPO and its second, shuffled group [T-GRPO eq. 1-2]."""

    alpha: float = Field(default=0.3, gt=0.0)
    """What a correct ordered rollout earns more."""
    margin: float = Field(default=0.8, ge=0.0)
    """The ordered share of correct answers is at least `margin` times the shuffled one. 0.8 as in the public
    code of Video-R1; 1 asks the ordered group to be no worse at all."""
    shuffled: int | None = Field(default=None, ge=1)
    """Rollouts with shuffled frames per video question; None: half the group, as in that code."""
    correct_above: float = Field(default=0.1, ge=0.0, lt=1.0)
    """An answer counts as correct if its accuracy is above this (metrics like ROUGE are rarely 1)."""

    def shuffled_size(self, group_size: int) -> int:
        """Rollouts of the shuffled group, at least one."""
        return self.shuffled or max(1, group_size // 2)


class ObjectiveSpec(Model):
    """Which rewards reach which tokens; the table stands at the top of the module."""

    name: ObjectiveName = "pa-grpo"
    """Which of the objectives of docs/training.md."""
    temporal: TemporalSpec = TemporalSpec()
    """Settings of `t-grpo`."""

    @model_validator(mode="after")
    def _temporal_is_used(self) -> Self:
        if "temporal" in self.model_fields_set and self.name != "t-grpo":
            raise ValueError(f"temporal is set, but the objective is {self.name!r}: only t-grpo reads it")
        return self

    @property
    def uses_perception(self) -> bool:
        """Whether R_P reaches any token, so that the judge of observations must be asked for training."""
        return self.name in ("pa-grpo", "no-separation", "no-reasoning", "no-length")

    @property
    def is_temporal(self) -> bool:
        """Whether each video question also needs a group with shuffled frames."""
        return self.name == "t-grpo"

    def check_style(self, style: Style) -> None:
        """Refuse an objective that pays for an observation the prompt does not ask for.

        Raises:
            ValueError: style `agnostic` with an objective that needs a perception reward.
        """
        if style == "agnostic" and self.uses_perception:
            raise ValueError(
                f"objective {self.name!r} pays for observations, and style 'agnostic' has none: "
                "use grpo, t-grpo or no-perception, or style 'process'"
            )


class LossSpec(Model):
    """How advantages become a loss; the formulas stand in `loss.py`."""

    epsilon: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Ratios below 1 - epsilon are clipped."""
    epsilon_high: float | None = Field(default=None, gt=0.0)
    """Ratios above 1 + epsilon_high are clipped; None: epsilon."""
    beta: float = Field(default=0.04, ge=0.0)
    """Weight of the KL term; 0: no reference model is needed."""
    ratio: Literal["token", "segment"] = "token"
    """One likelihood ratio per token, or one per segment: exp of the mean log ratio of its tokens."""
    reduction: Literal["segment", "sequence", "token"] = "segment"
    """`segment`: each stream's mean over its own tokens, streams added, mean over rollouts; `sequence`: sum
    over a completion's tokens / its length, mean over rollouts; `token`: mean over all tokens of the step."""
    kl_over: Literal["completion", "segments"] = "completion"
    """`completion`: KL once per rollout, over all its tokens, the same for every objective; `segments`: KL
    inside the sum over streams, over each stream's tokens (no stream, no KL)."""
    std: Literal["population", "sample"] = "population"
    """Divisor of the variance in a group: its size, or one less."""
    eps: float = Field(default=1e-4, ge=0.0)
    """Added to the standard deviation."""
    unattributable: Unattributable = "half"
    """`half`: both advantages at half weight; `none`: no advantage (KL still holds); `reasoning`: all R."""

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest ratio that still gets a gradient in its own direction."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return 1.0 - self.epsilon, 1.0 + high
