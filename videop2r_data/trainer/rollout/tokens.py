"""Which token ends a completion and which are never drawn: the same for every engine."""

from __future__ import annotations

from typing import Any

_MEDIA = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
)


def end_id(tokenizer: Any) -> int:
    """The token that closes a turn, as it closes every trace that is learnt in SFT.

    One token alone: checkpoints that name further ones to stop at would else end completions in two ways.
    """
    return int(tokenizer.eos_token_id)


def never_ids(config: Any, tokenizer: Any) -> list[int]:
    """Tokens that a completion may not hold, in ascending order.

    Special tokens but the one that ends a completion (a placeholder of a picture in a completion would ask
    for features that are not there), and rows of the output layer that no token belongs to.

    Args:
        config: the model's configuration.
        tokenizer: its tokenizer.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    never = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    never |= {value for name in _MEDIA if (value := getattr(config, name, None)) is not None}
    text = getattr(config, "text_config", config)
    never |= set(range(len(tokenizer), text.vocab_size))
    return sorted(never - {end_id(tokenizer)})
