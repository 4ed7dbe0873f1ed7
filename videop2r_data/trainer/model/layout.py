"""How prompts and completions are laid out as the sequences that the model reads, and their positions.

Two layouts give the same log-probabilities:

- *rows*: one sequence per rollout, its prompt in each; causal attention needs no mask, because padding is on
  the right.
- *shared*: one sequence per prompt with its completions behind it (all, or a part where that is cheaper);
  each of them attends to the prompt and to itself. The prompt, with its thousands of video tokens, passes
  through the model once instead of G times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs


# Positions. A prompt is numbered once, and its completions continue from there one by one: so training and
# generation cannot differ, however their batches are padded.


class Numbered(NamedTuple):
    """Positions of B prompts.

    Attributes:
        positions: [3, B, P] time, height, width; 0 at padding.
        following: [B] the position of the first token behind each prompt.
    """

    positions: Tensor
    following: Tensor


def number_prompts(
    inner: Any, ids: Tensor, types: Tensor, mask: Tensor, media: Mapping[str, Tensor]
) -> Numbered:
    """Number prompts that are padded on either side.

    Args:
        inner: the model inside the one with the head (`backends.rope_positions` has been applied).
        ids, types, mask: [B, P] tokens, token types, 1 at real tokens.
        media: grids and seconds per grid of the prompts' media.
    """
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    grids = {name: media[name].cpu() for name in names if name in media}
    # On the CPU: transformers loops over single numbers here, and each of them would wait for the GPU.
    positions, deltas = inner.get_rope_index(
        ids.cpu(), mm_token_type_ids=types.cpu(), attention_mask=mask.cpu(), **grids
    )
    following = deltas.view(-1).cpu() + mask.cpu().sum(-1)
    return Numbered(positions.to(ids.device), following.to(ids.device))


def number_rows(prompts: Numbered, starts: Tensor, length: int) -> Tensor:
    """[3, B, length]: the positions of right-padded prompts, then one after the other.

    Args:
        prompts: of right-padded prompts.
        starts: [B] index of the first token behind each prompt.
        length: columns to fill.
    """
    columns = torch.arange(length, device=starts.device)
    behind = prompts.following[:, None] + columns - starts[:, None]
    width = min(prompts.positions.shape[-1], length)
    positions = behind.expand(3, -1, -1).clone()
    inside = columns[:width] < starts[:, None]
    positions[:, :, :width] = torch.where(inside, prompts.positions[:, :, :width], positions[:, :, :width])
    return positions


# How many completions share a sequence. All of them save most copies of the prompt; but attention grows with
# the square of a sequence's length, and completions do not attend to each other: with short prompts and long
# completions fewer are cheaper. Costs are counted in multiplications per layer.


MASKED = 1.5
"""Cost of a pair of tokens in attention under a mask; causal attention skips half of the pairs."""


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


# The two layouts.


PROMPT, PADDING = -1, -2
"""Stand for a completion's number at tokens of the prompt and at padding."""


class Layout(NamedTuple):
    """S sequences of W tokens.

    Attributes:
        ids, types: [S, W] tokens and token types.
        positions: [3, S, W].
        mask: [S, 1, W, W] True where a token attends to another; None: causal.
        sources: [N, C] flat index, into S * W, of the hidden state that predicts token t of row n.
        real: [N, C] whether row n has a token t.
        targets: [N, C] that token; 0 where there is none.
        repeat: how many sequences share the media of one prompt.
    """

    ids: Tensor
    types: Tensor
    positions: Tensor
    mask: Tensor | None
    sources: Tensor
    real: Tensor
    targets: Tensor
    repeat: int


class _Prompts(NamedTuple):
    """The distinct prompts: ids, types and mask of real tokens [B, P], lengths [B], their positions."""

    ids: Tensor
    types: Tensor
    inside: Tensor
    lengths: Tensor
    numbered: Numbered

    def repeated(self, times: int) -> _Prompts:
        """Each prompt `times` times in a row."""
        *parts, (positions, following) = self
        again = Numbered(positions.repeat_interleave(times, 1), following.repeat_interleave(times))
        ids, types, inside, lengths = (part.repeat_interleave(times, 0) for part in parts)
        return _Prompts(ids, types, inside, lengths, again)


class _Completions(NamedTuple):
    """Mask and ids of completion tokens [N, C], their indices in the completion [C], lengths [N]."""

    real: Tensor
    ids: Tensor
    steps: Tensor
    lengths: Tensor


def lay_out(inner: Any, inputs: ModelInputs, *, share: bool) -> Layout:
    """Arrange a batch.

    Args:
        inner: the model inside the one with the head, for its positions.
        inputs: N right-padded rows of B prompts, each repeated N / B times.
        share: the shared layout, where it is cheaper; else rows.
    """
    ids, starts, lengths = inputs.input_ids, inputs.starts, inputs.lengths
    first = starts[:: inputs.repeat]
    width = int(first.max())
    inside = torch.arange(width, device=ids.device) < first[:, None]
    prompt_ids = ids[:: inputs.repeat, :width]
    types = inputs.types[:: inputs.repeat, :width] * inside
    numbered = number_prompts(inner, prompt_ids, types, inside.long(), inputs.media)
    prompts = _Prompts(prompt_ids, types, inside, first, numbered)

    steps = torch.arange(int(lengths.max()), device=ids.device)
    real = steps < lengths[:, None]
    targets = ids.gather(1, torch.where(real, starts[:, None] + steps, 0)) * real
    completions = _Completions(real, targets, steps, lengths)
    count = 1
    if share and inputs.repeat > 1:
        work = Work.of(inner.config.text_config)
        count = members(work, width, float(lengths.float().mean()), inputs.repeat)
    if count == 1:
        return _rows(prompts, completions, inputs)
    return _shared(prompts.repeated(inputs.repeat // count), completions, count, inputs.repeat // count)


def _rows(prompts: _Prompts, completions: _Completions, inputs: ModelInputs) -> Layout:
    ids = inputs.input_ids
    row = torch.arange(len(ids), device=ids.device)[:, None] * ids.shape[1]
    sources = torch.where(completions.real, row + inputs.starts[:, None] + completions.steps - 1, 0)
    once = number_rows(prompts.numbered, prompts.lengths, ids.shape[1])
    positions, (real, targets, *_) = once.repeat_interleave(inputs.repeat, 1), completions
    return Layout(ids, inputs.types, positions, None, sources, real, targets, inputs.repeat)


def _shared(prompts: _Prompts, completions: _Completions, beside: int, repeat: int) -> Layout:
    """One sequence per entry of `prompts`, `beside` completions in each; `repeat` of them share media."""
    real, steps, device = completions.real, completions.steps, completions.ids.device
    count, width = prompts.ids.shape
    grouped = completions.lengths.view(count, beside)
    total = int((prompts.lengths + grouped.sum(-1)).max())
    offsets = prompts.lengths[:, None] + grouped.cumsum(-1) - grouped
    group = torch.arange(count, device=device).repeat_interleave(beside)[:, None]
    places = group * total + offsets.view(-1, 1) + steps
    last = group * total + prompts.lengths.repeat_interleave(beside)[:, None] - 1
    sources = torch.where(real, torch.where(steps == 0, last, places - 1), 0)

    def filled(prompt: Tensor, completion: Tensor, padding: int) -> Tensor:
        """[B, total]: the prompts, their completions behind them, padding."""
        table = torch.full((count * total,), padding, dtype=torch.long, device=device)
        table[places[real]] = completion[real]
        table = table.view(count, total)
        table[:, :width] = torch.where(prompts.inside, prompt, table[:, :width])
        return table

    member = torch.arange(len(real), device=device)[:, None].expand_as(real)
    owner = filled(torch.full_like(prompts.ids, PROMPT), member, PADDING)
    behind = prompts.numbered.following.repeat_interleave(beside)[:, None] + steps
    positions = torch.stack([filled(axis, behind, 0) for axis in prompts.numbered.positions])
    # A token attends to its own completion and to the prompt, and only to what stands before it.
    sees = (owner[:, :, None] == owner[:, None, :]) | (owner == PROMPT)[:, None, :]
    mask = sees & torch.ones(total, total, dtype=torch.bool, device=device).tril()
    ids = filled(prompts.ids, completions.ids, 0)
    types = filled(prompts.types, torch.zeros_like(completions.ids), 0)
    return Layout(ids, types, positions, mask[:, None], sources, real, completions.ids, repeat)


def without_padding(layout: Layout, lengths: Tensor) -> tuple[Layout, dict[str, Any]]:
    """Rows as one sequence, and the borders for the kernel, by the names that transformers hands on.

    Args:
        layout: of rows.
        lengths: [S] tokens of each row.
    """
    inside = torch.arange(layout.ids.shape[1], device=lengths.device) < lengths[:, None]
    place = inside.flatten().cumsum(0) - 1
    borders = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    longest = int(lengths.max())
    packed = layout._replace(
        ids=layout.ids[inside][None],
        types=layout.types[inside][None],
        positions=layout.positions[:, inside][:, None],
        sources=place[layout.sources],
    )
    return packed, {
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }
