"""What a codec's packets say of themselves, without decoding them: whole or damaged, shown or hidden."""

from __future__ import annotations

import mmap
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# Parameter sets.
#
# A decoder that starts in the middle must know the parameter sets that were in force there. They stand in
# the container's header, and may be sent again, or anew, between the pictures. Where any of them changes
# after the first packet, groups of pictures cannot be decoded on their own.


class Watcher:
    """Looks at the packets of one stream in their order.

    This class itself serves codecs whose key frames hold all that they need (VP8, VP9, MJPEG).
    """

    def __init__(self) -> None:
        self.changed = False
        """Whether a parameter set came that was not there from the start."""
        self._known: dict[tuple[int, int], bytes] = {}
        self._closed = False

    def look(self, data: memoryview) -> bool:
        """Look at one packet; False: its units do not fill it, so it is damaged."""
        sound = self._walk(data)
        self._closed = True  # what comes from now on must be known already
        return sound

    def starts(self, data: memoryview) -> bool:
        """Whether decoding can begin at this packet, which the container calls a key frame."""
        return True  # The first frame that comes out says whether it is a key frame.

    def _walk(self, data: memoryview) -> bool:
        return True

    def _note(self, kind: int, number: int, payload: bytes) -> None:
        known = self._known.get((kind, number))
        if known is None and not self._closed:
            self._known[kind, number] = payload
        elif known != payload:
            self.changed = True


def watcher_of(codec: str, extradata: bytes | None) -> Watcher:
    """What to look for in packets of this codec.

    Args:
        codec: FFmpeg's name of the decoder.
        extradata: parameter sets of the container's header.
    """
    if codec in {"h264", "hevc"}:
        return NalWatcher(codec, extradata or b"")
    if codec in {"av1", "libdav1d", "libaom-av1"}:
        return _ObuWatcher(extradata or b"")
    return Watcher()


_H264_SETS = bytes(head & 31 in (7, 8, 13, 15) for head in range(256))
_HEVC_SETS = bytes((head >> 1) & 63 in (32, 33, 34) for head in range(256))
"""First byte of a unit -> 1 where the unit is a parameter set."""


class NalWatcher(Watcher):
    """H.264 and HEVC, with lengths before the units (mp4, mkv, flv) or start codes (MPEG-TS, raw)."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        super().__init__()
        self._hevc = codec == "hevc"
        self.sets = _HEVC_SETS if self._hevc else _H264_SETS
        self.width = 0
        """Bytes of the length before each unit; 0: start codes instead."""
        configured = len(extradata) > (22 if self._hevc else 6) and extradata[0] == 1
        if configured:
            self.width = (extradata[21 if self._hevc else 4] & 3) + 1
            for unit in _hvcc_units(extradata) if self._hevc else _avcc_units(extradata):
                self.note(unit)
        else:
            self._look_at_start_codes(extradata)

    def starts(self, data: memoryview) -> bool:
        """As `Watcher`: at a picture that refers to none before it, or a message that says so."""
        for unit in self._split(data):
            if self._hevc:
                kind = (unit[0] >> 1) & 63
                if kind < 32:
                    return 16 <= kind <= 23
            elif unit[0] & 31 == _IDR or (unit[0] & 31 == _SEI and _recovers_at_once(unit)):
                return True
            elif 1 <= unit[0] & 31 < _IDR:
                return False
        return False

    def _split(self, data: memoryview) -> Iterator[bytes]:
        """Units of a packet; stops where they do not add up."""
        if not self.width:
            yield from (part for part in bytes(data).split(b"\0\0\1")[1:] if part)
            return
        at = 0
        while at + self.width < len(data):
            start = at + self.width
            at = start + int.from_bytes(data[at:start], "big")
            unit = bytes(data[start : min(at, start + _HEAD)])
            if not unit:
                return
            yield unit

    def _walk(self, data: memoryview) -> bool:
        if not self.width:
            return self._look_at_start_codes(bytes(data))
        at, end, width, sets = 0, len(data), self.width, self.sets
        while at < end:
            start = at + width
            length = int.from_bytes(data[at:start], "big")
            at = start + length
            if not length or at > end:
                return False
            head = data[start]
            if head & 0x80:
                return False
            if sets[head]:
                self.note(bytes(data[start:at]))
        return True

    def _look_at_start_codes(self, data: bytes) -> bool:
        at = data.find(b"\0\0\1")
        while 0 <= at < len(data) - 3:
            start = at + 3
            at = data.find(b"\0\0\1", start)
            head = data[start]
            # Parameter sets stand before the first slice of their picture.
            if (head >> 1) < 32 if self._hevc else 1 <= head & 31 <= 5:
                return True
            self.note(data[start : at if at >= 0 else len(data)])
        return True

    def note(self, unit: bytes) -> None:
        """Take in a unit if it is a parameter set."""
        unit = unit.rstrip(b"\0")
        if not unit or not self.sets[unit[0]]:
            return
        if self._hevc:
            kind = (unit[0] >> 1) & 63
            # The number of a sequence parameter set stands behind fields of varying length: one is allowed.
            self._note(kind, _exp_golomb(unit[2:]) if kind == 34 else 0, unit)
        else:
            kind = unit[0] & 31
            self._note(kind, _exp_golomb(unit[1:] if kind == 8 else unit[4:]), unit)


_IDR, _SEI, _RECOVERY_POINT = 5, 6, 6
_HEAD = 4096
"""Bytes of a unit that are looked at."""


def _recovers_at_once(unit: bytes) -> bool:
    """Whether an H.264 message unit announces that pictures are right from here on."""
    data, at = unit.replace(b"\0\0\3", b"\0\0"), 1
    while at + 1 < len(data):
        kind = size = 0
        while at < len(data) and data[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + data[min(at, len(data) - 1)], at + 1
        while at < len(data) and data[at] == 255:
            size, at = size + 255, at + 1
        if at >= len(data):
            return False
        size, at = size + data[at], at + 1
        if kind == _RECOVERY_POINT:
            return _exp_golomb(data[at:]) == 0
        at += size
    return False


def _exp_golomb(data: bytes) -> int:
    """The unsigned number that stands at the start of a unit; -1 where there is none."""
    bits = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
    zeros = 64 - bits.bit_length()
    if zeros > 31:
        return -1
    return (bits >> (63 - 2 * zeros)) - 1


def _avcc_units(data: bytes) -> Iterator[bytes]:
    at = 5
    for mask in (31, 255):
        if at < len(data):
            at = yield from _listed(data, at + 1, data[at] & mask)


def _hvcc_units(data: bytes) -> Iterator[bytes]:
    at = 23
    for _ in range(data[22]):
        at = yield from _listed(data, at + 3, int.from_bytes(data[at + 1 : at + 3], "big"))


def _listed(data: bytes, at: int, count: int) -> Generator[bytes, None, int]:
    """Units with two bytes of length before each; returns where the last one ends."""
    for _ in range(count):
        length = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + length]
        at += 2 + length
    return at


_SEQUENCE_HEADER = 1


class _ObuWatcher(Watcher):
    """AV1: the sequence header."""

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        # An `av1C` record has four bytes before the units.
        self._walk(memoryview(extradata)[4 if extradata[:1] == b"\x81" else 0 :])

    def _walk(self, data: memoryview) -> bool:
        at, end = 0, len(data)
        while at < end:
            head = data[at]
            at += 2 if head & 4 else 1
            length, used = _leb128(data[at : at + 8]) if head & 2 else (end - at, 0)
            at += used
            if head & 0x80 or at + length > end:
                return False
            if (head >> 3) & 15 == _SEQUENCE_HEADER:
                self._note(_SEQUENCE_HEADER, 0, bytes(data[at : at + length]))
            at += length
        return True


def _leb128(data: memoryview) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            return value, i + 1
    return 1 << 62, len(data)


# Units of many packets at once: lengths and parameter sets, straight from the file.
#
# `NalWatcher.look` for all packets at once: numpy takes one step from unit to unit in every packet, which
# does an hour of video in a tenth of a second.


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
        high = max(int(np.searchsorted(pos, pos[low] + _WINDOW)), low + 1)
        yield low, high
        low = high


def _scan(
    view: mmap.mmap, at: NDArray[np.int64], sizes: NDArray[np.int64], watcher: NalWatcher, *, first: bool
) -> bool:
    import numpy as np

    data, sets = np.frombuffer(view, dtype=np.uint8), np.frombuffer(watcher.sets, dtype=np.uint8)
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
            for i in np.flatnonzero(sets[head]):
                watcher.note(view[int(start[i]) : int(at[i])])
            going = at < ends
            at, ends = at[going], ends[going]
        return False
    finally:
        del data
