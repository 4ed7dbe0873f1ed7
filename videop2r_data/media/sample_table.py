"""The packet list of an mp4 or mov file from its own index, for files too large to be read through.

FFmpeg has the index in memory once a file is open, without the offsets between decoding and display; those
are read from the `ctts` table here. The list is used only where index, tables and file agree in every entry;
else the packets themselves are read (`packets.read_index`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.bitstream import watcher_of
from videop2r_data.media.nal_scan import scan_units
from videop2r_data.media.packets import PacketIndex, Places, check_span
from videop2r_data.media.timing import clock_of
from videop2r_data.schemas.recipe import MediaLimits

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

LARGE = 32 * 2**20
"""Bytes of a stream from which on its index is worth the look."""
_MAX_MOOV = 256 * 2**20
_CODECS = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "mjpeg"})
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})
_PLAIN = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"vp09", b"jpeg", b"mp4v"})
Tables = dict[bytes, list[bytes]]


def read_table(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> PacketIndex | None:
    """The packet list by the file's own index; None where it is not sure, or not worth it.

    Raises:
        MediaError: `media_too_large` past the duration limit.
    """
    codec = stream.codec_context.codec.name
    if not container.format.name.startswith("mov,") or codec not in _CODECS:
        return None
    places = _entries(stream, path, limits)
    if places is None:
        return None
    pos, sizes, stamps, keys = places
    tables = _tables_of(path, stream.id)
    durations = _durations(tables, sizes) if tables else None
    offsets = _offsets(tables, len(pos)) if tables else None
    if durations is None or offsets is None or (stamps[1:] - stamps[:-1] != durations[:-1]).any():
        return None
    index = PacketIndex(clock_of(container, stream))
    watcher = watcher_of(codec, stream.codec_context.extradata)
    if not scan_units(path, pos, sizes, watcher):
        return None
    shown_at = stamps + offsets
    index.pts = shown_at.tolist()
    index.keys, index.shown = keys, [True] * len(pos)
    index.last_duration = int(durations[int(shown_at.argmax())])
    index.changed = watcher.changed
    index.packets, index.places = None, Places(path, pos, sizes, stamps)
    index.false_keys = any(not watcher.starts(index.places.read(at)) for at in _where(keys))
    check_span(index, path, limits)
    return index


def _where(flags: list[bool]) -> Iterator[int]:
    return (at for at, flag in enumerate(flags) if flag)


def _entries(
    stream: VideoStream, path: Path, limits: MediaLimits
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[bool]] | None:
    """Places, sizes, decoding times and key flags by FFmpeg's index, if it is whole."""
    import numpy as np

    entries = list(stream.index_entries)
    if not 2 <= len(entries) <= limits.max_packets or len(entries) != stream.frames:
        return None
    if any(entry.is_discard for entry in entries):
        return None  # an edit list cuts something away: the demuxer knows best
    pos = np.array([entry.pos for entry in entries], dtype=np.int64)
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    stamps = np.array([entry.timestamp for entry in entries], dtype=np.int64)
    if sizes.min() < 1 or pos.min() < 0 or int((pos + sizes).max()) > path.stat().st_size:
        return None
    if sizes.sum() < LARGE:
        return None
    return pos, sizes, stamps, [entry.is_keyframe for entry in entries]


def _tables_of(path: Path, track: int) -> Tables | None:
    """Tables of the track with this number; None: none, several, or a fragmented file."""
    data = _moov(path)
    if data is None:
        return None
    found = []
    for kind, content in _boxes(data):
        if kind == b"mvex":
            return None
        if kind == b"trak":
            tables: Tables = {}
            _gather(content, tables)
            head = tables.get(b"tkhd", [b""])[0]
            at = 20 if head[:1] == b"\1" else 12
            if head[at : at + 4] == track.to_bytes(4, "big"):
                found.append(tables)
    return found[0] if len(found) == 1 else None


def _moov(path: Path) -> bytes | None:
    """Content of the one `moov` box."""
    found = None
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at + 8 <= size:
            head = os.pread(file.fileno(), 16, at)
            length, kind = struct.unpack(">I4s", head[:8])
            start = 8
            if length == 1 and len(head) == 16:
                length, start = struct.unpack(">Q", head[8:])[0], 16
            elif length == 0:
                length = size - at
            if length < start or kind == b"moof" or (kind == b"moov" and (found or length > _MAX_MOOV)):
                return None
            if kind == b"moov":
                found = os.pread(file.fileno(), length - start, at + start)
            at += length
    return found


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if length < 8 or at + length > len(data):
            return
        yield kind, data[at + 8 : at + length]
        at += length


def _gather(data: bytes, tables: Tables) -> None:
    for kind, content in _boxes(data):
        if kind in _CONTAINERS:
            _gather(content, tables)
        else:
            tables.setdefault(kind, []).append(content)


def _rows(tables: Tables, kind: bytes, width: int) -> NDArray[np.int64] | None:
    """Entries of a table of 32-bit numbers, (rows, width); None: not there once, or cut short."""
    import numpy as np

    found = tables.get(kind, [])
    if len(found) != 1 or len(found[0]) < 8:
        return None
    count = int.from_bytes(found[0][4:8], "big")
    if len(found[0]) < 8 + 4 * width * count:
        return None
    signed = kind == b"ctts"  # version 0 says unsigned; writers put negative numbers there all the same
    numbers = np.frombuffer(found[0], dtype=">i4" if signed else ">u4", count=width * count, offset=8)
    return numbers.astype(np.int64).reshape(count, width)


def _durations(tables: Tables, sizes: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Duration of each sample; None where the tables contradict the index or each other."""
    import numpy as np

    described = tables.get(b"stsd", [b""])
    if len(described) != 1 or described[0][4:8] != b"\0\0\0\1" or described[0][12:16] not in _PLAIN:
        return None
    chunks, runs = _rows(tables, b"stsc", 3), _rows(tables, b"stts", 2)
    if chunks is None or runs is None or (chunks[:, 2] != 1).any() or runs[:, 0].sum() != len(sizes):
        return None
    stated = tables.get(b"stsz", [b""])[0]
    if len(stated) < 12:
        return None
    same, count = struct.unpack(">II", stated[4:12])
    if count != len(sizes) or (not same and len(stated) < 12 + 4 * count):
        return None
    listed = np.frombuffer(stated, dtype=">u4", count=0 if same else count, offset=12)
    if not (sizes == (same or listed)).all():
        return None
    return np.repeat(runs[:, 1], runs[:, 0])


def _offsets(tables: Tables, count: int) -> NDArray[np.int64] | None:
    """From decoding to display of each sample."""
    import numpy as np

    if b"ctts" not in tables:
        return np.zeros(count, dtype=np.int64)
    rows = _rows(tables, b"ctts", 2)
    if rows is None or (rows[:, 0] < 0).any() or rows[:, 0].sum() != count:
        return None
    return np.repeat(rows[:, 1], rows[:, 0])
