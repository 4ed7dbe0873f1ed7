"""What every rollout engine offers, which token ends a completion, and which tokens are never drawn.

Notation: B prompts, G rollouts of each, N = B * G rows; row `b * G + g` is rollout g of prompt b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.settings.rl import SamplingSpec


@dataclass(frozen=True, slots=True)
class RolledOut:
    """One completion."""

    ids: list[int]
    """Its tokens, the closing one included if it was drawn."""
    finished: bool
    """Whether the closing token was drawn; False: `max_new_tokens` came first."""
    logps: list[float] | None = None
    """The engine's own log-probability of each token, in nats, under softmax(logits / temperature) over the
    whole vocabulary, before top_p, top_k and suppressed tokens, as the trainer has it; None: not recorded."""


Ended = Callable[[int, RolledOut], None]
"""Told of a row and its completion as soon as it has ended, from the thread that generates."""


class RolloutEngine(Protocol):
    """Draws completions from the policy as it was at the last `sync`.

    With `rl.ahead` a thread of its own generates while the policy is updated: such an engine must not look at
    the policy between two calls of `sync`, which are never made meanwhile.
    """

    @property
    def room(self) -> int | None:
        """Tokens of prompt and completion that it takes; None: no limit but the model's."""

    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        """G completions of each prompt, in row order.

        Args:
            prompts: B prompts with their media.
            group_size: G.
            seeds: N numbers; the same seed, prompt and weights give the same completion.
            ended: told of rows as they end, once of each; an engine that cannot tell tells of none.

        Raises:
            ValueError: the number of seeds is not B * G.
            ConfigError: vLLM prepares a prompt differently, or a prompt is too long.
            BackendError: the engine is closed, or ended a rollout without an answer.
            RefusedError, AuthError, TransientError: what a server said, the last try included.
        """

    def sync(self, net: Any) -> None:
        """Copy the weights of `net` into the engine; called after every update, by every process."""

    def close(self) -> None:
        """Free what the engine holds; safe to call twice."""


def check_seeds(prompts: PromptBatch, group_size: int, seeds: Sequence[int]) -> None:
    """Raise ValueError unless there is a seed for each of the N rows."""
    if group_size < 1 or len(seeds) != len(prompts.ids) * group_size:
        raise ValueError(f"{len(seeds)} seeds for {len(prompts.ids)} prompts times {group_size}")


def prompt_room(engine: RolloutEngine, spec: SamplingSpec) -> tuple[int | None, str]:
    """Tokens of the longest prompt that leaves an engine room for a whole completion, and why; None: any."""
    room, new = engine.room, spec.max_new_tokens
    why = f"the engine takes {room} (vllm.max_model_len), {new} of them are for sampling.max_new_tokens"
    return None if room is None else room - new, why


_MEDIA = ("image_token", "video_token", "vision_start_token", "vision_end_token", "vision_token")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Special tokens of the policy, the same for every engine."""

    end: int
    """Ends a turn, and so a completion; SFT teaches it at the end of every trace. Only one: some checkpoints
    list further stop tokens, and completions would then end in two ways."""
    never: frozenset[int]
    """Not in a completion: all special ones but `end` (an image placeholder would ask for features that do
    not exist), and rows of the output layer beyond the vocabulary."""

    @classmethod
    def of(cls, config: Any, tokenizer: Any) -> Tokens:
        """From the model's configuration and its tokenizer."""
        end = int(tokenizer.eos_token_id)
        added = getattr(tokenizer, "added_tokens_decoder", {})
        never = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        never |= {value for name in _MEDIA if (value := getattr(config, f"{name}_id", None)) is not None}
        text = getattr(config, "text_config", config)
        never |= set(range(len(tokenizer), text.vocab_size))
        return cls(end, frozenset(never - {end}))
