"""How many completions of a group go behind one copy of their prompt.

All of them save most copies of the prompt; but the attention of a sequence grows with the square of its
length, and completions do not look at each other: with short prompts and long completions fewer are cheaper.
Costs are counted in multiplications per layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MASKED = 1.5
"""What a pair of tokens costs in attention under a mask, against one in causal attention."""


class Work(NamedTuple):
    """Multiplications in one layer of the language model: per token, and per pair of tokens in attention."""

    token: float
    pair: float

    @staticmethod
    def of(config: Any) -> Work:
        """From the configuration of the language model."""
        hidden, heads = config.hidden_size, config.num_attention_heads
        size = getattr(config, "head_dim", None) or hidden // heads
        kv = config.num_key_value_heads
        attention = hidden * size * (2 * heads + 2 * kv)
        return Work(attention + 3 * hidden * config.intermediate_size, 2 * heads * size)


def members(work: Work, prompt: float, completion: float, group: int) -> int:
    """How many completions share a sequence: a divisor of the group, 1 for a sequence each.

    Args:
        work: of the model.
        prompt: tokens of a prompt.
        completion: tokens of a completion, on average.
        group: completions per prompt.

    >>> members(Work(233e6, 7168), prompt=2200, completion=500, group=8)  # a 7B model, 16 frames
    8
    >>> members(Work(233e6, 7168), prompt=60, completion=4000, group=8)  # words alone, long thoughts
    1
    """

    def cost(count: int) -> float:
        length = prompt + count * completion
        share_of_pairs = MASKED if count > 1 else 0.5
        return group / count * (length * work.token + length**2 * share_of_pairs * work.pair)

    return min((count for count in range(1, group + 1) if group % count == 0), key=cost)
