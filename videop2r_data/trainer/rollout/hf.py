"""Rollouts from the policy itself: no second copy of the weights, nothing to synchronise.

A rollout depends on its seed, its prompt and the weights, never on its batch, rank or restart: row i has its
own stream of uniform numbers u[i, 0], u[i, 1], ..., and token t is the inverse of the cumulative
distribution at u[i, t]. transformers' `generate` draws from one generator for a whole batch, so this loop
is our own. Each prompt with its clip is prefilled once; its keys and values are then repeated for the G rows
of its group, and all rows are decoded together, one token a step. Rows that have ended leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicLayer

from videop2r_data.backends import number_behind_clips
from videop2r_data.errors import ConfigError
from videop2r_data.trainer.data.batch import PromptBatch, media_tokens, select_media
from videop2r_data.trainer.model.forward import encode, given
from videop2r_data.trainer.model.layout import number_prompts
from videop2r_data.trainer.model.load import multiply_patches
from videop2r_data.trainer.model.weights import bare, inferring, policy_weights, sharding
from videop2r_data.trainer.rollout.base import Ended, RolledOut, Tokens, check_seeds
from videop2r_data.trainer.settings.rl import SamplingSpec


def uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """[N, length] float64 numbers in [0, 1); row i depends on `seeds[i]` (up to 64 bits) alone, and a longer
    row begins alike."""
    rows = torch.empty(len(seeds), length, dtype=torch.float64)
    generator = torch.Generator()
    for row, seed in zip(rows, seeds, strict=True):
        generator.manual_seed(seed)
        row.uniform_(generator=generator)
    return rows


def draw(logits: Tensor, u: Tensor, spec: SamplingSpec, never: Tensor | None = None) -> Tensor:
    """One token for each row; [n] token ids.

    Args:
        logits: [n, V].
        u: [n] uniform numbers in [0, 1).
        spec: temperature, top_p and top_k; at temperature 0 the likeliest token is taken.
        never: token ids that are not drawn.
    """
    scores = logits.float()
    if never is not None:
        scores = scores.index_fill(-1, never, -torch.inf)
    if spec.temperature == 0:
        return scores.argmax(-1)
    scores = scores / spec.temperature
    if not spec.top_k and spec.top_p == 1.0:
        return _inverse(scores.softmax(-1), u)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)  # ties in the order of their ids
    if spec.top_k:
        scores, order = scores[:, : spec.top_k], order[:, : spec.top_k]
    probabilities = scores.softmax(-1)
    if spec.top_p < 1.0:
        # Without the token itself: the one that reaches top_p is still kept, and so at least one is.
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities * (before < spec.top_p)
    return order.gather(-1, _inverse(probabilities, u)[:, None])[:, 0]


def _inverse(weights: Tensor, u: Tensor) -> Tensor:
    """The index at which the running sum of weights passes `u` times their sum; never one of weight 0."""
    sums = weights.double().cumsum(-1)
    whole = sums[:, -1]
    # u * whole may round up to whole itself: the search would then run past the last index.
    target = torch.minimum(u.to(sums) * whole, whole.nextafter(torch.zeros_like(whole)))
    return torch.searchsorted(sums, target[:, None], right=True)[:, 0]


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

    `core` is the model with its head, `length` that of the longest completion in tokens; `logits`: [N, V], of
    each row's next token.
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
        inner, seen = self._core.model, None
        if not self._plain:  # without padding the kernel's own path is faster than one with a mask
            seen = self._seen[:, : self._width]
            # with four dimensions transformers builds no mask of its own
            four = self._core.config._attn_implementation == "sdpa"
            seen = seen[:, None, None, :] if four else seen.long()
        out = inner.language_model(
            inputs_embeds=inner.get_input_embeddings()(tokens[:, None]),
            attention_mask=seen,
            position_ids=self._following[None, :, None].expand(3, -1, -1),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._following = self._following + 1
        self.logits = self._core.lm_head(out.last_hidden_state[:, -1])


class WholeCopy:
    """A copy of a sharded policy (FSDP, ZeRO-3) that is whole on this rank, without gradients.

    Decoding with sharded weights would gather every layer again for each token, and all ranks would have to
    go on until the last row of the last rank ends. A copy costs the memory of the weights once more on each
    rank, and one gather per update; then every rank decodes on its own.
    """

    def __init__(self, net: Any) -> None:
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        from transformers.modeling_utils import local_torch_dtype

        core = bare(net)
        weight = next(core.parameters())
        # Not from_pretrained: under ZeRO-3 it would shard this copy too.
        with local_torch_dtype(weight.dtype), torch.device(weight.device):
            made = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(core.config)](deepcopy(core.config))
        number_behind_clips(made)
        multiply_patches(made)
        self.net = made.eval().requires_grad_(False)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load(self, net: Any) -> None:
        """Take over the policy's weights, adapters added in; every rank must call it. ConfigError: the policy
        has weights that the copy has not, or the reverse."""
        mine = dict(self.net.named_parameters())
        for name, weight in policy_weights(net):
            if name not in mine:
                raise ConfigError(f"weight {name!r} has no place in a {type(self.net).__name__}")
            mine.pop(name).copy_(weight)
        if mine:
            raise ConfigError(f"the policy lacks {len(mine)} weights of its own kind, first {min(mine)!r}")


LEAVE = 7 / 8
"""Ended rows are dropped when at most this share of the batch still runs: dropping copies the whole cache."""


class HfEngine:
    """Draws completions with the policy's own weights, wrapped or not; see `RolloutEngine`.

    Mixed precision is that of an autocast around the calls: recorded `logps` then differ from training's.
    With sharded weights (FSDP, ZeRO-3) it keeps a `WholeCopy`; constructing it and `sync` are then
    collective: every rank must call them.
    """

    room: int | None = None

    def __init__(self, net: Any, tokenizer: Any, spec: SamplingSpec, *, logps: bool = False) -> None:
        self._spec, self._logps = spec, logps
        tokens = Tokens.of(bare(net).config, tokenizer)
        self._end, self._never = tokens.end, torch.tensor(sorted(tokens.never))
        self._copy: WholeCopy | None = None
        self._net: Any = None
        self.sync(net)

    def sync(self, net: Any) -> None:
        """Use the weights of `net`; unsharded ones are used as they are, without a copy."""
        self._net = net
        if sharding(net) is not None:
            self._copy = self._copy or WholeCopy(net)
            self._copy.load(net)
            self._net = self._copy.net

    def close(self) -> None:
        """Drop the references to the policy."""
        self._net = self._copy = None

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def generate(
        self, prompts: PromptBatch, *, group_size: int, seeds: Sequence[int], ended: Ended | None = None
    ) -> list[RolledOut]:
        """G completions of each prompt; see `RolloutEngine.generate`. ValueError: the engine was closed."""
        if self._net is None:
            raise ValueError("the engine is closed")
        check_seeds(prompts, group_size, seeds)
        core, count = bare(self._net), len(prompts)
        u = uniforms(seeds, self._spec.max_new_tokens).to(core.lm_head.weight.device)
        step = max(1, self._spec.rows // group_size) if self._spec.rows else max(1, count)
        done: list[RolledOut] = []
        with inferring(self._net):
            for lo in range(0, count, step):
                hi = min(lo + step, count)
                rows = Rows(core, prompts, lo, hi, group_size=group_size, length=u.shape[1])
                done += self._decode(rows, u[lo * group_size : hi * group_size], len(done), ended)
        return done

    def _decode(self, rows: Rows, u: Tensor, first: int, tell: Ended | None) -> list[RolledOut]:
        """Decode rows `first` and on in a batch that shrinks as they end; `u`: [N, T], one for each token."""
        never = self._never.to(u.device)
        tokens = torch.full(u.shape, self._end, dtype=torch.long, device=u.device)
        alive = torch.arange(len(u), device=u.device)
        logps = torch.zeros(u.shape, device=u.device) if self._logps else None
        ended = torch.zeros_like(alive, dtype=torch.bool)
        done: dict[int, RolledOut] = {}
        for t in range(u.shape[1]):
            drawn = draw(rows.logits, u[alive, t], self._spec, never).masked_fill_(ended, self._end)
            tokens[alive, t] = drawn
            if logps is not None:
                scaled = rows.logits.float() / (self._spec.temperature or 1.0)
                logps[alive, t] = scaled.log_softmax(-1).gather(-1, drawn[:, None])[:, 0]
            last = t + 1 == u.shape[1]
            for row in alive[((drawn == self._end) | last) & ~ended].tolist():
                told = None if logps is None else logps[row, : t + 1].tolist()
                ids = tokens[row, : t + 1].tolist()
                done[row] = RolledOut(ids, ids[-1] == self._end, told)
                if tell is not None:
                    tell(first + row, done[row])
            ended = drawn == self._end
            left = len(u) - len(done)
            if left == 0:
                break
            # Until dropping pays, ended rows go on drawing the end token.
            if left <= len(alive) * LEAVE:
                alive, drawn = alive[~ended], drawn[~ended]
                rows.keep(~ended)
                ended = torch.zeros_like(alive, dtype=torch.bool)
            rows.advance(drawn)
        return [done[row] for row in range(len(u))]
