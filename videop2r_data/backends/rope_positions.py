"""Positions of the text behind a clip, in transformers, numbered as Qwen numbers them.

Qwen2-VL and Qwen2.5-VL go on from the highest position of a picture or clip on any axis, time included: so
they were trained, and so vLLM does. transformers (5.19 to 5.23 read) goes on from the sides of a frame alone:
text behind a long clip gets positions that its frames already have.

The times of the frames are multiplied in double precision, as vLLM does: a product at a whole number would
else round to the other side.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any


def number_behind_clips(net: Any) -> None:
    """Make a loaded model number its prompts right; a model of another family is left as it is.

    Where the library is right, or becomes it, nothing changes: every shift below is then 0.
    """
    inner = getattr(net, "model", None)
    original = getattr(inner, "get_rope_index", None)
    if net.config.model_type not in ("qwen2_vl", "qwen2_5_vl") or original is None:
        return

    def get_rope_index(input_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        seconds = kwargs.get("second_per_grid_ts")
        if seconds is not None:
            kwargs["second_per_grid_ts"] = seconds.double()
        positions, deltas = original(input_ids, *args, **kwargs)
        kinds = kwargs.get("mm_token_type_ids")
        if kinds is None:
            return positions, deltas
        mask = kwargs.get("attention_mask")
        for row in range(input_ids.shape[0]):
            real = slice(None) if mask is None else mask[row].bool()
            part = positions[:, row, real]
            deltas[row] = _renumber(part, kinds[row, real].tolist())
            positions[:, row, real] = part
        return positions, deltas

    inner.get_rope_index = get_rope_index  # type: ignore[union-attr]


def _renumber(positions: Any, kinds: list[int]) -> int:
    """Let every run of tokens start behind all before it.

    Args:
        positions: (3, tokens) of one prompt without padding: time, height, width; changed in place.
        kinds: for each token 0 for text, 1 for an image, 2 for a video.

    Returns:
        How far the next position is beyond the number of tokens.
    """
    start = following = 0
    for _, run in groupby(kinds):
        end = start + len(list(run))
        part = positions[:, start:end]
        part += following - int(part.min())
        start, following = end, int(part.max()) + 1
    return following - len(kinds)
