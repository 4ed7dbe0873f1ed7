"""A batch on its way to the model: prompts with their media, then prompts with completions.

Notation: B prompts, G completions of each (`repeat`), N = B * G rows with row b * G + g = completion g of
prompt b, L tokens of the longest row, Lp of the longest prompt.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from videop2r_data.schemas import Frames

if TYPE_CHECKING:
    from videop2r_data.trainer.data.examples import Example, Skip

IMAGE, VIDEO = 1, 2
"""Values of `mm_token_type_ids` beside 0 for text."""
PARTS = {
    IMAGE: ("image_grid_thw", "pixel_values", ()),
    VIDEO: ("video_grid_thw", "pixel_values_videos", ("second_per_grid_ts",)),
}
"""Kind -> the media keys of its grids, its patches (one row each), and its values per image or clip."""


@dataclass
class ModelInputs:
    """Prompts and completions, right padded.

    Attributes:
        input_ids: long [N, L].
        attention_mask: long [N, L]: 1 for a token, 0 for padding.
        types: long [N, L]: `mm_token_type_ids`: 0 text, 1 image, 2 video.
        starts: long [N]: index of the first completion token.
        lengths: long [N]: completion tokens; row i's are `input_ids[i, starts[i] : starts[i] + lengths[i]]`.
        media: for the N / repeat distinct prompts, in the processor's own layout; only keys that are there.
        repeat: G, rows per prompt.
    """

    input_ids: Tensor
    attention_mask: Tensor
    types: Tensor
    starts: Tensor
    lengths: Tensor
    media: dict[str, Tensor]
    repeat: int

    def to(self, device: torch.device | str) -> ModelInputs:
        """The same on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self)[:5]}
        media = {name: tensor.to(device) for name, tensor in self.media.items()}
        return ModelInputs(**moved, media=media, repeat=self.repeat)

    def rows(self, lo: int, hi: int) -> ModelInputs:
        """Rows lo to hi - 1 with the media of their prompts, padded to the longest of them.

        Raises:
            ValueError: the slice cuts a group, or is out of range.
        """
        if not 0 <= lo < hi <= len(self.starts) or lo % self.repeat or hi % self.repeat:
            wrong = f"rows {lo} to {hi} of {len(self.starts)}"
            raise ValueError(f"{wrong}: a slice holds whole groups of {self.repeat}")
        starts, lengths = self.starts[lo:hi], self.lengths[lo:hi]
        longest = int((starts + lengths).max())
        tables = (self.input_ids, self.attention_mask, self.types)
        ids, mask, types = (table[lo:hi, :longest] for table in tables)
        prompts = range(lo // self.repeat, hi // self.repeat)
        media = select_media(self.media, media_tokens(self.types[:: self.repeat]), prompts)
        return ModelInputs(ids, mask, types, starts, lengths, media, self.repeat)


@dataclass(frozen=True)
class PromptBatch:
    """B prompts as model inputs; examples that cannot be used are in `skipped`.

    Attributes:
        frames: B sampled clips or pictures; None for text.
        texts: B chats up to and with the assistant header, one placeholder per clip or picture.
        ids: B token lists, the placeholders expanded to one token per feature.
        types: like `ids`: 0 text, 1 image, 2 video.
        media: see `ModelInputs.media`.
        kept: for each of the B, its index among the examples that were handed in.
        pad_id: padding token, always masked.
        media_ids: placeholder tokens of media features; no completion may hold one.
    """

    examples: tuple[Example, ...]
    frames: tuple[Frames | None, ...]
    texts: tuple[str, ...]
    ids: list[list[int]]
    types: list[list[int]]
    media: dict[str, Tensor]
    skipped: tuple[Skip, ...] = ()
    kept: tuple[int, ...] = ()
    pad_id: int = 0
    media_ids: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.examples)

    def for_generation(self, repeat: int) -> dict[str, Tensor]:
        """Left-padded prompts without their media, each `repeat` times in a row: long [B * repeat, Lp]."""
        ones = [[1] * len(row) for row in self.ids]
        return {
            "input_ids": _filled(self.ids, self.pad_id, repeat, left=True),
            "attention_mask": _filled(ones, 0, repeat, left=True),
            "mm_token_type_ids": _filled(self.types, 0, repeat, left=True),
        }

    def with_completions(self, completions: Sequence[Sequence[int]], repeat: int) -> ModelInputs:
        """Prompts and completions in one row each.

        Args:
            completions: N = B * repeat token lists, row b * repeat + g for prompt b; one may be empty.
            repeat: G.

        Raises:
            ValueError: their number is wrong, or one holds a token that stands for an image or video feature.
        """
        if repeat < 1 or len(completions) != len(self) * repeat:
            raise ValueError(f"{len(completions)} completions for {len(self)} prompts times {repeat}")
        for i, completion in enumerate(completions):
            if stray := sorted(self.media_ids.intersection(completion)):
                raise ValueError(f"completion {i} holds media tokens {stray}: suppress them when sampling")
        starts = torch.tensor([len(row) for row in self.ids], dtype=torch.long).repeat_interleave(repeat)
        lengths = torch.tensor([len(c) for c in completions], dtype=torch.long)
        ends = starts + lengths
        longest = int(ends.max()) if len(ends) else 0
        ids = _filled(self.ids, self.pad_id, repeat, longest)
        for row, start, end, completion in zip(ids, starts, ends, completions, strict=True):
            row[start:end] = torch.tensor(completion, dtype=torch.long)
        mask = (torch.arange(longest) < ends[:, None]).long()
        types = _filled(self.types, 0, repeat, longest)
        return ModelInputs(ids, mask, types, starts, lengths, self.media, repeat)


def _filled(
    rows: Sequence[Sequence[int]], value: int, repeat: int, width: int = 0, *, left: bool = False
) -> Tensor:
    """Rows of different lengths, each `repeat` times: long [rows * repeat, width or more], padded."""
    width = max([width, *map(len, rows)])
    out = torch.full((len(rows), width), value, dtype=torch.long)
    for line, row in zip(out, rows, strict=True):
        start = width - len(row) if left else 0
        line[start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    return out.repeat_interleave(repeat, dim=0)


def media_tokens(types: Tensor) -> dict[int, list[int]]:
    """`IMAGE` and `VIDEO` -> how many such tokens each prompt of `types` [B, L] has."""
    return {kind: (types == kind).sum(-1).tolist() for kind in PARTS}


def select_media(
    media: dict[str, Tensor], tokens: Mapping[int, Sequence[int]], prompts: Sequence[int]
) -> dict[str, Tensor]:
    """The media of some of the prompts (indices), in their order.

    Which grids belong to which prompt follows from its `media_tokens`: each gives `t * h * w / merge ** 2`.

    Raises:
        ValueError: tokens and grids do not fit each other.
    """
    if list(prompts) == list(range(len(tokens[IMAGE]))):
        return dict(media)
    out: dict[str, Tensor] = {}
    for kind, (grid, by_patch, by_item) in PARTS.items():
        owner = owners(media[grid], tokens[kind]) if grid in media else []
        items = [i for prompt in prompts for i, who in enumerate(owner) if who == prompt]
        if items:
            out |= {name: media[name][items] for name in (grid, *by_item) if name in media}
            pieces = media[by_patch].split(media[grid].prod(-1).tolist())
            out[by_patch] = torch.cat([pieces[i] for i in items])
    return out


def owners(grids: Tensor, tokens: Sequence[int]) -> list[int]:
    """For each grid, the prompt that it belongs to, given how many media tokens each prompt has."""
    patches = grids.prod(-1).tolist()
    per_token = sum(patches) // max(1, sum(tokens))
    borders = list(accumulate(patches))
    ends = [end * per_token for end in accumulate(tokens)]
    if per_token * sum(tokens) != sum(patches) or not {0, *borders}.issuperset(ends):
        raise ValueError(f"{len(patches)} grids of {sum(patches)} patches for {sum(tokens)} media tokens")
    return [bisect_left(ends, border) for border in borders]
