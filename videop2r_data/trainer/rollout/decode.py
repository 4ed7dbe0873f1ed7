"""Prefill, then batched decode: how the policy itself draws completions.

Each prompt with its clip is prefilled once; its keys and values are then repeated for the G rows of its
group, and all rows are decoded together, one token a step. Rows that have ended leave the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from videop2r_data.trainer.data.batch import media_tokens, select_media
from videop2r_data.trainer.model.forward import encode, given
from videop2r_data.trainer.model.layout import number_prompts

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import PromptBatch


ROOM = 64
"""Columns that the cache grows by, at least. transformers' own cache copies all keys and values for every
token."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [rows, heads, tokens, size]: views of tensors with spare columns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        if self._whole is None or self._whole[0].shape[-2] < end:
            spare = end + max(ROOM, length // 8) - length
            self._whole = pad(self.keys, (0, 0, 0, spare)), pad(self.values, (0, 0, 0, spare))
        keys, values = self._whole
        keys[:, :, length:end] = key_states
        values[:, :, length:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        if self._whole is None:
            super().batch_select_indices(indices)
            return
        length = self.keys.shape[-2]
        self._whole = self._whole[0][indices], self._whole[1][indices]
        self.keys, self.values = (whole[:, :, :length] for whole in self._whole)


class Rows:
    """N rows during decode: each of the prompts lo to hi - 1 of a batch is prefilled once, and gives G rows.

    Args:
        core: the model with its head.
        batch: the prompts with their media.
        lo, hi: which of them.
        group_size: G.
        length: longest completion in tokens.

    Attributes:
        logits: [N, V] of each row's next token.
    """

    def __init__(
        self, core: Any, batch: PromptBatch, lo: int, hi: int, *, group_size: int, length: int
    ) -> None:
        inner, device = core.model, core.lm_head.weight.device
        told = batch.for_generation(1)
        media = select_media(batch.media, media_tokens(told["mm_token_type_ids"]), range(lo, hi))
        media = {name: tensor.to(device) for name, tensor in media.items()}
        # left-padded to the longest of these prompts, not of the batch
        first = len(told["input_ids"][0]) - max(map(len, batch.ids[lo:hi]))
        ids, mask, types = (table[lo:hi, first:].to(device) for table in told.values())
        numbered = number_prompts(inner, ids, types, mask, media)
        seen = encode(inner, media)
        cache = Cache(layer_class_to_replicate=GrowingLayer)
        with given(inner, seen.image, seen.video) as features:
            out = inner(
                input_ids=ids,
                attention_mask=None if bool(mask.all()) else mask,
                position_ids=numbered.positions,
                past_key_values=cache,
                use_cache=True,
                **features,
            )
        cache.batch_repeat_interleave(group_size)
        self.logits: Tensor = core.lm_head(out.last_hidden_state[:, -1]).repeat_interleave(group_size, 0)
        self._core, self._cache, self._width = core, cache, mask.shape[1]
        # [N, P + T]: False at the padding of prompts, True at tokens and at columns still to come
        columns = torch.cat([mask, mask.new_ones(len(mask), length)], 1).bool()
        self._seen = columns.repeat_interleave(group_size, 0)
        self._plain = bool(columns.all())
        self._following = numbered.following.repeat_interleave(group_size)

    def keep(self, chosen: Tensor) -> None:
        """Drop all other rows; `chosen`: [N] bool. `logits` are those of the step before."""
        self._cache.batch_select_indices(chosen.nonzero()[:, 0])
        self._seen, self._following = self._seen[chosen], self._following[chosen]

    def advance(self, tokens: Tensor) -> None:
        """One decode step: append a token to each row; `tokens`: [N]."""
        self._width += 1
        inner = self._core.model
        out = inner.language_model(
            inputs_embeds=inner.get_input_embeddings()(tokens[:, None]),
            attention_mask=self._mask(),
            position_ids=self._following[None, :, None].expand(3, -1, -1),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._following = self._following + 1
        self.logits = self._core.lm_head(out.last_hidden_state[:, -1])

    def _mask(self) -> Tensor | None:
        if self._plain:
            return None  # no padding: the kernel's own path is faster than one with a mask
        seen = self._seen[:, : self._width]
        if self._core.config._attn_implementation == "sdpa":
            return seen[:, None, None, :]  # with four dimensions transformers builds no mask of its own
        return seen.long()
