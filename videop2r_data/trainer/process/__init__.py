"""What PA-GRPO computes, as pure functions: segment masks, rewards, advantages, losses.

The specs are free of torch and are what this package loads; the functions live in their modules:

    template.py    a text against the template: whose fault is what
    masks.py       token ids -> weights of P and R per token, text, lengths
    rewards.py     graded rollouts -> rewards per process
    bounds.py      which lengths are paid
    advantages.py  rewards -> advantages within each group, collapsed groups
    objectives.py  which advantage reaches which tokens
    loss.py        the clipped loss with KL, in parts that add up
"""

from videop2r_data.trainer.process.specs import (
    OBJECTIVES,
    DynamicLengthSpec,
    LossSpec,
    ObjectiveName,
    ObjectiveSpec,
    RewardSpec,
    Style,
    TemporalSpec,
    Unattributable,
)

__all__ = [
    "OBJECTIVES",
    "DynamicLengthSpec",
    "LossSpec",
    "ObjectiveName",
    "ObjectiveSpec",
    "RewardSpec",
    "Style",
    "TemporalSpec",
    "Unattributable",
]
