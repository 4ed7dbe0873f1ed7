"""How prompts and their completions lie in the sequences that the model reads.

Two layouts give the same log-probabilities:

- *rows*: one sequence per rollout, its prompt in each; causal attention needs no mask, for padding is on the
  right.
- *shared*: one sequence per prompt with its completions behind it (all, or a part where that is cheaper);
  each of them sees the prompt and itself. The prompt, with its thousands of video tokens, then passes through
  the model once, not G times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from videop2r_data.trainer.model.positions import Numbered, number_prompts, number_rows
from videop2r_data.trainer.model.sharing import Work, members

if TYPE_CHECKING:
    from videop2r_data.trainer.data.batch import ModelInputs

PROMPT, PADDING = -1, -2
"""Owners of tokens that belong to no completion."""


class Layout(NamedTuple):
    """S sequences of W tokens.

    Attributes:
        ids, types: [S, W] tokens and token types.
        positions: [3, S, W].
        mask: [S, 1, W, W] who sees whom; None: causal.
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
    """The distinct prompts: [B, P] ids, types and where they are real, numbered; [B] lengths."""

    ids: Tensor
    types: Tensor
    inside: Tensor
    numbered: Numbered
    lengths: Tensor

    def repeated(self, times: int) -> _Prompts:
        """Each prompt `times` times in a row."""
        positions, following = self.numbered
        again = Numbered(positions.repeat_interleave(times, 1), following.repeat_interleave(times))
        ids, types, inside, lengths = (
            part.repeat_interleave(times, 0) for part in (self.ids, self.types, self.inside, self.lengths)
        )
        return _Prompts(ids, types, inside, again, lengths)


class _Completions(NamedTuple):
    """[N, C] which tokens there are, and which; [C] their indices in the completion; [N] lengths."""

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
    ids: Tensor = inputs.input_ids
    starts: Tensor = inputs.starts
    lengths: Tensor = inputs.lengths
    every_type: Tensor = inputs.types
    first = starts[:: inputs.repeat]
    width = int(first.max())
    inside = torch.arange(width, device=ids.device) < first[:, None]
    prompt_ids = ids[:: inputs.repeat, :width]
    types = every_type[:: inputs.repeat, :width] * inside
    numbered = number_prompts(inner, prompt_ids, types, inside.long(), inputs.media)
    prompts = _Prompts(prompt_ids, types, inside, numbered, first)

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
    ids: Tensor = inputs.input_ids
    starts: Tensor = inputs.starts
    row = torch.arange(len(ids), device=ids.device)[:, None] * ids.shape[1]
    sources = torch.where(completions.real, row + starts[:, None] + completions.steps - 1, 0)
    positions = number_rows(prompts.numbered, prompts.lengths, ids.shape[1])
    return Layout(
        ids,
        inputs.types,
        positions.repeat_interleave(inputs.repeat, 1),
        None,
        sources,
        completions.real,
        completions.ids,
        inputs.repeat,
    )


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
    sees = (owner[:, :, None] == owner[:, None, :]) | (owner == PROMPT)[:, None, :]
    mask = sees & torch.ones(total, total, dtype=torch.bool, device=device).tril()
    ids = filled(prompts.ids, completions.ids, 0)
    types = filled(prompts.types, torch.zeros_like(completions.ids), 0)
    return Layout(ids, types, positions, mask[:, None], sources, real, completions.ids, repeat)
