"""Bytes of Arrow columns as NumPy arrays, to ask one question of all rows at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
_HEX = np.zeros(256, dtype=bool)
_HEX[list(b"0123456789abcdef")] = True


class Texts:
    """A string column without nulls: where each text begins, and the bytes of all."""

    def __init__(self, array: pa.StringArray) -> None:
        _, offsets, data = array.buffers()
        every = np.frombuffer(offsets, np.int32, len(array) + 1, 4 * array.offset) if len(array) else [0]
        starts = np.asarray(every, dtype=np.int64)
        held = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
        self.data: NDArray[np.uint8] = held[starts[0] : starts[-1]]
        self.offsets: NDArray[np.int64] = starts - starts[0]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each text."""
        return np.diff(self.offsets)

    def holding(self, bytes_wanted: Mask) -> Mask:
        """Rows that hold one of the bytes marked in a mask over `data`."""
        return rows_of_positions(np.flatnonzero(bytes_wanted), self.offsets)

    def count(self, byte: int) -> NDArray[np.int64]:
        """How often each text holds a byte."""
        at = np.flatnonzero(self.data == byte)
        return np.diff(np.searchsorted(at, self.offsets))

    def byte(self, at: int) -> NDArray[np.uint8]:
        """The byte of each text at an offset; 0 where it is shorter."""
        out = np.zeros(len(self.lengths), dtype=np.uint8)
        long = self.lengths > at
        out[long] = self.data[self.offsets[:-1][long] + at]
        return out

    def hex64(self) -> Mask:
        """Rows of exactly 64 lower-case hexadecimal digits."""
        return np.asarray(self.lengths == 64) & ~self.holding(~_HEX[self.data])


def rows_of_positions(at: NDArray[Any], offsets: NDArray[np.int64]) -> Mask:
    """Which rows the element positions lie in; row `i` has the elements `offsets[i]` to `offsets[i + 1]`."""
    out = np.zeros(len(offsets) - 1, dtype=bool)
    if len(at):
        out[np.searchsorted(offsets, at, side="right") - 1] = True
    return out


def list_parts(array: pa.ListArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The elements of all lists, and the offsets of each list in them."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.flatten(), offsets - offsets[0]


def increasing_lists(values: NDArray[Any], offsets: NDArray[np.int64]) -> Mask:
    """Lists whose numbers are finite, not negative and strictly increasing (or that are empty)."""
    with np.errstate(invalid="ignore"):
        falls = ~(values[1:] > values[:-1])
        wrong = ~((values >= 0) & (values < np.inf))
    inner = offsets[1:-1]
    edges = inner[(inner > 0) & (inner < len(values))]
    falls[edges - 1] = False  # the last of one list beside the first of the next
    return ~(
        rows_of_positions(np.flatnonzero(falls), offsets) | rows_of_positions(np.flatnonzero(wrong), offsets)
    )


def mask(array: pa.Array) -> Mask:
    """A boolean Arrow array as NumPy; null is False."""
    if array.null_count:
        array = pc.fill_null(array, False)
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def joined(*parts: pa.Array | str) -> pa.StringArray:
    """Texts put together row by row."""
    return pc.binary_join_element_wise(*parts, "")
