"""Units of many packets at once: lengths and parameter sets, straight from the file.

What `bitstream` does packet by packet, for an hour of video in a tenth of a second: all packets take one step
from unit to unit together.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.bitstream import NalWatcher, Watcher

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WINDOW = 64 * 2**20
"""Bytes of the file that are mapped at a time."""
_MAX_UNITS = 4096


def scan_units(path: Path, pos: NDArray[np.int64], sizes: NDArray[np.int64], watcher: Watcher) -> bool:
    """Show every parameter set to the watcher.

    Args:
        path: the file.
        pos: where each packet begins, in decoding order.
        sizes: their bytes.
        watcher: fresh; for codecs without parameter sets nothing is read.

    Returns:
        False: the units of a packet do not fill it, or packets do not follow each other in the file.
    """
    if not isinstance(watcher, NalWatcher):
        return True
    if not watcher.width or (pos[1:] < pos[:-1] + sizes[:-1]).any():
        return False
    with path.open("rb") as file:
        for low, high in _windows(pos, sizes):
            base = int(pos[low]) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            length = int(pos[high - 1] + sizes[high - 1]) - base
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=base) as view:
                if not _scan(view, pos[low:high] - base, sizes[low:high], watcher, first=low == 0):
                    return False
    return True


def _windows(pos: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    import numpy as np

    low = 0
    while low < len(pos):
        high = int(np.searchsorted(pos, pos[low] + _WINDOW))
        high = max(high, low + 1)
        yield low, high
        low = high


def _scan(
    view: mmap.mmap, at: NDArray[np.int64], sizes: NDArray[np.int64], watcher: NalWatcher, *, first: bool
) -> bool:
    import numpy as np

    data = np.frombuffer(view, dtype=np.uint8)
    try:
        if first:
            # The sets of the first packet belong to those that are known from the start.
            if not watcher.look(memoryview(view[int(at[0]) : int(at[0] + sizes[0])])):
                return False
            at, sizes = at[1:], sizes[1:]
        ends = at + sizes
        for _ in range(_MAX_UNITS):
            if not len(at):
                return True
            start = at + watcher.width
            if (start >= ends).any():
                return False
            length = np.zeros(len(at), dtype=np.int64)
            for byte in range(watcher.width):
                length = (length << 8) | data[at + byte]
            head, at = data[start], start + length
            if ((length == 0) | (at > ends) | (head & 0x80 != 0)).any():
                return False
            for i in np.flatnonzero(watcher.is_set(head)):
                watcher.note(view[int(start[i]) : int(at[i])])
            going = at < ends
            at, ends = at[going], ends[going]
        return False
    finally:
        del data
