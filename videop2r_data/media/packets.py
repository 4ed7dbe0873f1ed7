"""The packets of a clip with times and places: from the container's table, or by reading each of them."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.media.bitstream import scan_units, watcher_of
from videop2r_data.media.geometry import media_error
from videop2r_data.media.timing import Clock, clock_of, display_order, timing
from videop2r_data.schemas import MediaLimits, RejectReason

if TYPE_CHECKING:
    import numpy as np
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    VideoPacket = Packet[VideoStream]

KEEP_BYTES = 256 * 2**20
"""Compressed bytes that are held in memory at most; beyond it a clip is read twice."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where packets lie in the file, in decoding order.

    Attributes:
        path: the file.
        pos: int64 [n], first byte.
        sizes: int64 [n], bytes.
        dts: int64 [n], decoding times.
    """

    path: Path
    pos: NDArray[np.int64]
    sizes: NDArray[np.int64]
    dts: NDArray[np.int64]

    def read(self, at: int) -> memoryview:
        """The bytes of one packet."""
        with self.path.open("rb") as file:
            return memoryview(os.pread(file.fileno(), int(self.sizes[at]), int(self.pos[at])))

    def packets(self, index: PacketIndex, start: int, end: int, stream: VideoStream) -> list[VideoPacket]:
        """Packets `start..end`, both included, as the demuxer would give them."""
        import av

        made: list[Any] = []
        with self.path.open("rb") as file:
            for at in range(start, end + 1):
                packet: Any = av.Packet(os.pread(file.fileno(), int(self.sizes[at]), int(self.pos[at])))
                packet.pts, packet.dts = index.pts[at], int(self.dts[at])
                packet.time_base, packet.is_keyframe = stream.time_base, index.keys[at]
                made.append(packet)
        return made


@dataclass(slots=True)
class PacketIndex:
    """One pass over the packets of the chosen stream, nothing decoded. Lists run in file (decode) order."""

    clock: Clock
    pts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    """False: only other frames refer to it, an edit list cuts it away, or the codec hides it."""
    packets: list[VideoPacket] | None = field(default_factory=list)
    """None when they are too large to be held."""
    last_duration: int = 0
    """Duration of the packet that is shown last, in time-base units; 0 = unknown."""
    corrupt: list[int] = field(default_factory=list)
    """Positions of packets that the demuxer calls damaged, or whose units do not add up."""
    changed: bool = False
    """Parameter sets change in mid-stream: what follows cannot be decoded on its own."""
    false_keys: bool = False
    """A packet is called a key frame, and decoding cannot begin there."""
    places: Places | None = None
    """Where the packets lie in the file; None when the list was made by reading every packet."""
    error: str = ""
    """Why reading broke off, or empty."""
    _held: int = 0
    _last: int = -(2**62)

    @property
    def shown_count(self) -> int:
        """Frames that the stream shows, if each shown packet gives one."""
        return sum(self.shown)

    def add(self, packet: VideoPacket, *, hidden: bool, sound: bool) -> None:
        """Add one packet; its bytes are kept while all of them fit into `KEEP_BYTES`."""
        pts = packet.pts
        if packet.is_corrupt or not sound:
            self.corrupt.append(len(self.pts))
        self.pts.append(pts)
        self.keys.append(packet.is_keyframe)
        self.shown.append(not (hidden or packet.is_discard))
        if pts is not None and pts > self._last:
            self._last, self.last_duration = pts, packet.duration or 0
        if self.packets is not None:
            self.packets.append(packet)
            self._held += packet.size
            if self._held > KEEP_BYTES:
                self.packets = None

    def shown_pts(self) -> list[int | None]:
        """Stamps of the shown packets, in display order where the stamps give one, else as stored."""
        order = display_order(self.pts, self.keys, self.clock)
        return [self.pts[at] for at in order or range(len(self.pts)) if self.shown[at]]


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The stream's packets in file order, without the empty one that marks the end."""
    # Where a stream appears in mid-file, PyAV looks behind the end of its own list once all packets were
    # read: what lies there is chance, and whether it raises.
    with contextlib.suppress(IndexError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet


def read_index(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> PacketIndex:
    """Read every packet of the stream once.

    Raises:
        MediaError: `media_too_large` past the packet limit or the duration limit.
    """
    import av

    index = PacketIndex(clock_of(container, stream))
    codec = stream.codec_context.codec.name
    vp8 = codec in {"vp8", "libvpx"}
    watcher = watcher_of(codec, stream.codec_context.extradata)
    try:
        for packet in read_packets(container, stream):
            if len(index.pts) == limits.max_packets:
                raise media_error(
                    RejectReason.MEDIA_TOO_LARGE,
                    f"more than {limits.max_packets} packets (limits.max_packets)",
                    path,
                )
            if not index.pts and packet.has_sidedata("encryption_info"):
                raise media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted (common encryption)", path)
            index.changed |= packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change")
            data = memoryview(packet)
            # VP8's alternative reference frames travel in packets of their own and are never shown.
            index.false_keys |= packet.is_keyframe and not watcher.starts(data)
            index.add(packet, hidden=vp8 and not data[0] & 0x10, sound=watcher.look(data))
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        index.error = str(error)
    index.changed |= watcher.changed
    check_span(index, path, limits)
    return index


def check_span(index: PacketIndex, path: Path, limits: MediaLimits) -> None:
    """Refuse a clip whose timestamps, jumps of the clock left out, last too long.

    Raises:
        MediaError: `media_too_large`.
    """
    if not index.clock.stamped or not index.pts:
        return
    span = timing(index.shown_pts(), (), index.clock).duration_s if any(index.shown) else None
    if span is not None and span > limits.max_duration_s:
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"timestamps span {span:.0f} s, limits.max_duration_s allows {limits.max_duration_s:g}",
            path,
        )


# The packet list of an mp4 or mov file from its own index, for files too large to be read through.
#
# FFmpeg has the index in memory once a file is open, without the offsets between decoding and display;
# those are read from the `ctts` table here. The list is used only where index, tables and file agree in
# every entry; else the packets themselves are read (`packets.read_index`).


LARGE = 32 * 2**20
"""Bytes of a stream below which reading every packet is as fast as reading its index."""
_MAX_MOOV = 256 * 2**20
_CODECS = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "mjpeg"})
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"})
_PLAIN = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"vp09", b"jpeg", b"mp4v"})
Tables = dict[bytes, list[bytes]]


def read_table(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> PacketIndex | None:
    """The packet list by the file's own index; None where index and tables disagree, or for a small stream.

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
    durations, offsets = _durations(tables, sizes), _offsets(tables, len(pos))
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
    index.false_keys = any(not watcher.starts(index.places.read(at)) for at, key in enumerate(keys) if key)
    check_span(index, path, limits)
    return index


def _entries(
    stream: VideoStream, path: Path, limits: MediaLimits
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], list[bool]] | None:
    """Places, sizes, decoding times and key flags by FFmpeg's index, if it is whole."""
    import numpy as np

    entries = list(stream.index_entries)
    if not 2 <= len(entries) <= limits.max_packets or len(entries) != stream.frames:
        return None
    if any(entry.is_discard for entry in entries):
        return None  # an edit list cuts something away: only the demuxer applies it rightly
    pos = np.array([entry.pos for entry in entries], dtype=np.int64)
    sizes = np.array([entry.size for entry in entries], dtype=np.int64)
    stamps = np.array([entry.timestamp for entry in entries], dtype=np.int64)
    if sizes.min() < 1 or pos.min() < 0 or int((pos + sizes).max()) > path.stat().st_size:
        return None
    if sizes.sum() < LARGE:
        return None
    return pos, sizes, stamps, [entry.is_keyframe for entry in entries]


def _tables_of(path: Path, track: int) -> Tables:
    """Tables of the track with this number; empty: none, several, or a fragmented file."""
    found = []
    for kind, content in _boxes(_moov(path)):
        if kind == b"mvex":
            return {}
        if kind == b"trak":
            tables: Tables = defaultdict(list)
            _gather(content, tables)
            head = tables.get(b"tkhd", [b""])[0]
            at = 20 if head[:1] == b"\1" else 12
            if head[at : at + 4] == track.to_bytes(4, "big"):
                found.append(tables)
    return found[0] if len(found) == 1 else {}


def _moov(path: Path) -> bytes:
    """Content of the one `moov` box; empty: none, several, or a fragmented file."""
    found = b""
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
                return b""
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
            tables[kind].append(content)


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
