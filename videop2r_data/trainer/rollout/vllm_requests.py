"""What both vLLM engines ask for: which tokens, from which prompt; and the checks on what comes back.

vLLM prepares the prompt itself, with its own copy of the processor. The trainer computes log-probabilities on
what *it* prepared. If the two differ by a single token, the gradient belongs to another prompt: that is an
error here, never a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from videop2r_data.errors import BackendError, ConfigError
from videop2r_data.trainer.data.batch import PromptBatch
from videop2r_data.trainer.rollout.base import RolledOut, Tokens, check_seeds
from videop2r_data.trainer.settings.rl import SamplingSpec


def sampling_fields(spec: SamplingSpec, tokens: Tokens, *, bias: float) -> dict[str, Any]:
    """Everything that decides a draw, spelled out, so that no default of the checkpoint or the server counts.

    Qwen's `generation_config.json` has a repetition penalty, which would make rollouts off-policy. `bias` is
    added to the logits of `tokens.never`.
    """
    return {
        "temperature": spec.temperature,
        "top_p": spec.top_p if spec.temperature > 0 else 1.0,
        "top_k": spec.top_k if spec.temperature > 0 else 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "max_tokens": spec.max_new_tokens,
        "stop_token_ids": [tokens.end],
        "logit_bias": dict.fromkeys(sorted(tokens.never), bias),
        "skip_special_tokens": False,
    }


def check_call(
    prompts: PromptBatch, group_size: int, seeds: Sequence[int], spec: SamplingSpec, room: int
) -> None:
    """Check a call before anything is sent; `room`: tokens of prompt and completion that the engine takes.

    Where the longest prompt leaves less than `max_new_tokens`, vLLM would cut completions short.
    """
    check_seeds(prompts, group_size, seeds)
    longest = max(map(len, prompts.ids), default=0)
    if longest + spec.max_new_tokens > room:
        raise ConfigError(
            f"a prompt of {longest} tokens and {spec.max_new_tokens} new ones do not fit vLLM's {room}",
            hint="Collator.allow leaves such prompts out",
        )


def check_prompt(prompts: PromptBatch, row: int, got: Sequence[int] | None) -> None:
    """Refuse vLLM's prompt tokens if they are not the trainer's; the ConfigError names the first place."""
    want, got = prompts.ids[row], list(got or ())
    if got == want:
        return
    at = next(i for i, (a, b) in enumerate(zip_longest(got, want)) if a != b)
    raise ConfigError(
        f"vLLM and the trainer prepare this prompt differently: {len(got)} and {len(want)} tokens, "
        f"first difference at {at} ({got[at : at + 3]} and {want[at : at + 3]})",
        where=f"sample {prompts.examples[row].sample_id}",
        hint="both need the same checkpoint folder, processor files and transformers version; "
        "a server must be started with the command of docs/training.md",
    )


def rolled_out(
    ids: Sequence[int], reason: str | None, tokens: Tokens, logps: list[float] | None = None
) -> RolledOut:
    """One completion as vLLM returned it, never tokenised again.

    BackendError: it ended for a reason that no rollout has, holds a token that may not be drawn, or has
    another number of log-probabilities than of tokens.
    """
    drawn = list(ids)
    finished = drawn[-1:] == [tokens.end]
    if stray := tokens.never.intersection(drawn):
        raise BackendError(
            f"vLLM drew token(s) {sorted(stray)}, which are suppressed",
            hint="lower the temperature: the server's suppression is a bias of -100 before it",
        )
    if reason not in ("stop", "length") or finished != (reason == "stop"):
        raise BackendError(
            f"vLLM ended a rollout of {len(drawn)} tokens with reason {reason!r}",
            hint="look at vLLM's own log",
        )
    if logps is not None and len(logps) != len(drawn):
        raise BackendError(f"vLLM gave {len(logps)} log-probabilities of {len(drawn)} tokens")
    return RolledOut(drawn, finished, logps)
