"""Rollouts from the policy itself: no second copy of the weights, nothing to synchronise.

Its own decoding loop, because that is where the time goes: the prompt with its clip passes once per group,
its keys and values are then repeated; rows that have ended leave the batch; and a token is drawn per row from
the row's own numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videop2r_data.trainer.model.unwrap import bare, inferring, sharding
from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.rollout.decode import Prompts, prefill
from videop2r_data.trainer.rollout.sampling import draw, uniforms
from videop2r_data.trainer.rollout.specs import SamplingSpec
from videop2r_data.trainer.rollout.tokens import end_id, never_ids
from videop2r_data.trainer.rollout.whole import WholeCopy

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import PromptBatch


LEAVE = 7 / 8
"""Ended rows leave the batch when at most this share of it is still being written."""


class HfEngine:
    """Draws completions with the policy's own weights.

    Where they are cut over ranks (FSDP, ZeRO-3) it keeps a whole copy, so that constructing it and `sync` are
    then collective: every rank must call them.

    Args:
        net: the policy, wrapped (`TrainModel`, adapters, DDP, FSDP, DeepSpeed) or not.
        tokenizer: its tokenizer: which tokens end a completion, which are never drawn.
        spec: how to draw.
        autocast: type to compute in where the weights are kept in float32 (mixed precision); None: theirs,
            or that of an autocast around the call.
    """

    def __init__(
        self, net: Any, tokenizer: Any, spec: SamplingSpec, *, autocast: torch.dtype | None = None
    ) -> None:
        self._spec = spec
        self._end = end_id(tokenizer)
        self._never = torch.tensor(never_ids(bare(net).config, tokenizer))
        self._autocast = autocast
        self._copy: WholeCopy | None = None
        self._net: Any = None
        self.sync(net)

    def sync(self, net: Any) -> None:
        """Take over the weights of `net`; where each rank holds them whole there is nothing to do."""
        if sharding(net) is None:
            self._net = net
            return
        if self._copy is None:
            self._copy = WholeCopy(net, self._autocast)
        self._copy.load(net)
        self._net = self._copy.net

    def close(self) -> None:
        """Let go of the policy."""
        self._net = self._copy = None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def generate(self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int]) -> list[RolledOut]:
        """G completions of each prompt; see `RolloutEngine.generate`.

        Raises:
            ValueError: the number of seeds is not B * G, or the engine was closed.
        """
        count = len(prompts.ids)
        if self._net is None:
            raise ValueError("the engine is closed")
        if len(seeds) != count * group_size:
            raise ValueError(f"{len(seeds)} seeds for {count} prompts times {group_size}")
        if not seeds:
            return []
        core = bare(self._net)
        u = uniforms(seeds, self._spec.max_new_tokens)
        step = max(1, self._spec.rows // group_size) if self._spec.rows else count
        done: list[RolledOut] = []
        with inferring(self._net), self._mixed(core):
            for lo in range(0, count, step):
                hi = min(lo + step, count)
                part = u[lo * group_size : hi * group_size]
                done += self._decode(core, Prompts.of(prompts, lo, hi), group_size, part)
        return done

    def _mixed(self, core: Any) -> AbstractContextManager[Any]:
        """Where no type was named, what surrounds the call decides: a disabled autocast would undo it."""
        if self._autocast is None:
            return nullcontext()
        context: AbstractContextManager[Any] = torch.autocast(core.lm_head.weight.device.type, self._autocast)
        return context

    def _decode(self, core: Any, prompts: Prompts, group_size: int, u: Tensor) -> list[RolledOut]:
        """Completions of these prompts, all in one batch that shrinks as rows end."""
        device = core.lm_head.weight.device
        rows, logits = prefill(core, prompts.to(device), group_size, u.shape[1])
        u, never = u.to(device), self._never.to(device)
        tokens = torch.full(u.shape, self._end, dtype=torch.long, device=device)
        alive = torch.arange(len(u), device=device)
        ended = torch.zeros_like(alive, dtype=torch.bool)
        for t in range(u.shape[1]):
            drawn = draw(logits, u[alive, t], self._spec, never).masked_fill_(ended, self._end)
            tokens[alive, t] = drawn
            ended = drawn == self._end
            left = len(alive) - int(ended.sum())
            if left == 0 or t + 1 == u.shape[1]:
                break
            # Leaving copies the cache: rows that have ended wait until it pays.
            if left <= len(alive) * LEAVE:
                alive, drawn = alive[~ended], drawn[~ended]
                rows.keep(~ended)
                ended = torch.zeros_like(alive, dtype=torch.bool)
            logits = rows.advance(core, drawn)
        return [_cut(row, self._end) for row in tokens.tolist()]


def _cut(row: list[int], end: int) -> RolledOut:
    """The tokens up to and with the first closing one."""
    if end not in row:
        return RolledOut(row, finished=False)
    return RolledOut(row[: row.index(end) + 1], finished=True)
