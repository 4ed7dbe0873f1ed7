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
from torch.nn import functional

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs


# Positions. A prompt is numbered once, and its completions continue from there one by one: so training and
# generation cannot differ, however their batches are padded.


class Numbered(NamedTuple):
    """[3, B, P] time, height, width of B prompts, 0 at padding; [B] the position behind each."""

    positions: Tensor
    following: Tensor


def number_prompts(
    inner: Any, ids: Tensor, types: Tensor, mask: Tensor, media: Mapping[str, Tensor]
) -> Numbered:
    """Number prompts that are padded on either side.

    Args:
        inner: the model inside the one with the head (`backends.number_behind_clips` has been applied).
        ids, types, mask: [B, P] tokens, token types, 1 at real tokens.
        media: has grids and seconds per grid.
    """
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    grids = {name: media[name].cpu() for name in names if name in media}
    # On the CPU: transformers loops over single numbers here, and each of them would wait for the GPU.
    positions, deltas = inner.get_rope_index(
        ids.cpu(), mm_token_type_ids=types.cpu(), attention_mask=mask.cpu(), **grids
    )
    following = deltas.view(-1).cpu() + mask.cpu().sum(-1)
    return Numbered(positions.to(ids.device), following.to(ids.device))


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
        attention = hidden * size * (2 * heads + 2 * config.num_key_value_heads)
        return Work(attention + 3 * hidden * config.intermediate_size, 2 * heads * size)


def members(work: Work, prompt: float, completion: float, group: int) -> int:
    """How many completions share a sequence: a divisor of the group, 1 for a sequence each; `prompt` and
    `completion` are their tokens, on average.

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
    """The distinct prompts: [B, P] each, but lengths [B]."""

    ids: Tensor
    types: Tensor
    inside: Tensor
    lengths: Tensor
    numbered: Numbered


def lay_out(inner: Any, inputs: ModelInputs, *, share: bool) -> Layout:
    """Arrange a batch for `inner`, the model inside the one with the head; `share`: where it is cheaper."""
    ids, starts, lengths, group = inputs.input_ids, inputs.starts, inputs.lengths, inputs.repeat
    first = starts[::group]
    width = int(first.max())
    inside = torch.arange(width, device=ids.device) < first[:, None]
    types = inputs.types[::group, :width] * inside
    numbered = number_prompts(inner, ids[::group, :width], types, inside.long(), inputs.media)
    prompts = _Prompts(ids[::group, :width], types, inside, first, numbered)

    steps = torch.arange(int(lengths.max()), device=ids.device)
    real = steps < lengths[:, None]
    targets = ids.gather(1, torch.where(real, starts[:, None] + steps, 0)) * real
    count = 1
    if share and group > 1:
        count = members(Work.of(inner.config.text_config), width, float(lengths.float().mean()), group)
    if count == 1:
        return _rows(prompts, inputs, real, targets)
    return _shared(prompts, inputs, real, targets, count)


def _rows(prompts: _Prompts, inputs: ModelInputs, real: Tensor, targets: Tensor) -> Layout:
    ids, device = inputs.input_ids, inputs.input_ids.device
    row = torch.arange(len(ids), device=device)[:, None] * ids.shape[1]
    steps = torch.arange(real.shape[1], device=device)
    sources = torch.where(real, row + inputs.starts[:, None] + steps - 1, 0)
    columns = torch.arange(ids.shape[1], device=device) - prompts.lengths[:, None]
    positions = (prompts.numbered.following[:, None] + columns).expand(3, -1, -1).clone()
    head = positions[:, :, : prompts.ids.shape[1]]
    head.copy_(torch.where(prompts.inside, prompts.numbered.positions, head))
    positions = positions.repeat_interleave(inputs.repeat, 1)
    return Layout(ids, inputs.types, positions, None, sources, real, targets, inputs.repeat)


def _shared(prompts: _Prompts, inputs: ModelInputs, real: Tensor, targets: Tensor, beside: int) -> Layout:
    """`beside` completions in each sequence."""
    repeat, steps = inputs.repeat // beside, torch.arange(real.shape[1], device=real.device)
    *parts, numbered = prompts
    ids, types, inside, lengths, following = (
        part.repeat_interleave(repeat, 0) for part in (*parts, numbered.following)
    )
    count, width = ids.shape
    grouped = inputs.lengths.view(count, beside)
    total = int((lengths + grouped.sum(-1)).max())
    offsets = lengths[:, None] + grouped.cumsum(-1) - grouped
    group = torch.arange(count, device=real.device).repeat_interleave(beside)[:, None]
    places = group * total + offsets.view(-1, 1) + steps
    last = group * total + lengths.repeat_interleave(beside)[:, None] - 1
    sources = torch.where(real, torch.where(steps == 0, last, places - 1), 0)

    def filled(prompt: Tensor, completion: Tensor, padding: int) -> Tensor:
        """[S, total]: the prompts, their completions behind them, padding."""
        table = torch.full((count * total,), padding, dtype=torch.long, device=real.device)
        table[places[real]] = completion[real]
        table = table.view(count, total)
        table[:, :width] = torch.where(inside, prompt, table[:, :width])
        return table

    member = torch.arange(len(real), device=real.device)[:, None].expand_as(real)
    owner = filled(torch.full_like(ids, PROMPT), member, PADDING)
    behind = following.repeat_interleave(beside)[:, None] + steps
    axes = numbered.positions.repeat_interleave(repeat, 1)
    positions = torch.stack([filled(axis, behind, 0) for axis in axes])
    # A token attends to its own completion and to the prompt, and only to what stands before it.
    sees = (owner[:, :, None] == owner[:, None, :]) | (owner == PROMPT)[:, None, :]
    mask = sees & torch.ones(total, total, dtype=torch.bool, device=real.device).tril()
    tokens, kinds = filled(ids, targets, 0), filled(types, torch.zeros_like(targets), 0)
    return Layout(tokens, kinds, positions, mask[:, None], sources, real, targets, repeat)


def without_padding(layout: Layout, lengths: Tensor) -> tuple[Layout, dict[str, Any]]:
    """Rows as one sequence, and their borders by the names that transformers hands on to the kernel;
    `lengths`: [S] tokens of each row."""
    inside = torch.arange(layout.ids.shape[1], device=lengths.device) < lengths[:, None]
    place = inside.flatten().cumsum(0) - 1
    borders = functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    packed = layout._replace(
        ids=layout.ids[inside][None],
        types=layout.types[inside][None],
        positions=layout.positions[:, inside][:, None],
        sources=place[layout.sources],
    )
    named: dict[str, Any] = dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), borders)
    return packed, named | dict.fromkeys(("max_length_q", "max_length_k"), int(lengths.max()))
