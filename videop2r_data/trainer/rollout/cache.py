"""Keys and values with room to grow: a new token is written in place; the library's own cache copies all."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64
"""Columns added at a time, at least."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [rows, heads, tokens, size]: views of larger tensors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append; returns all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        if self._whole is None or self._whole[0].shape[-2] < end:
            self._whole = _roomy(self.keys, end), _roomy(self.values, end)
        keys, values = self._whole
        keys[:, :, length:end] = key_states
        values[:, :, length:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times in a row."""
        super().batch_repeat_interleave(repeats)
        self._whole = None

    def batch_select_indices(self, indices: Tensor) -> None:
        """These rows alone."""
        if self._whole is None:
            super().batch_select_indices(indices)
            return
        length = self.keys.shape[-2]
        self._whole = self._whole[0][indices], self._whole[1][indices]
        self.keys, self.values = (whole[:, :, :length] for whole in self._whole)


def _roomy(part: Tensor, needed: int) -> Tensor:
    """A larger tensor that begins with `part`."""
    rows, heads, length, size = part.shape
    whole = part.new_empty(rows, heads, needed + max(ROOM, length // 8), size)
    whole[:, :, :length] = part
    return whole


def growing_cache() -> Any:
    """An empty cache of such layers, as many as the model asks for."""
    return Cache(layer_class_to_replicate=GrowingLayer)
