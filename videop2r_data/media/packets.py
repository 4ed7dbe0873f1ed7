"""One pass over a clip's packets, nothing decoded: what there is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.media.bitstream import watcher_of
from videop2r_data.media.container import media_error
from videop2r_data.media.timing import Clock, clock_of, display_order, timing
from videop2r_data.schemas.recipe import MediaLimits
from videop2r_data.schemas.verdict import RejectReason

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
    """False: decoded for the sake of others, cut away by an edit list, or hidden by the codec."""
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
    """Where the packets lie, when the list is the file's own."""
    error: str = ""
    """Why reading broke off, or empty."""
    _held: int = 0
    _last: int = -(2**62)

    @property
    def shown_count(self) -> int:
        """Frames that the stream shows, if each shown packet gives one."""
        return sum(self.shown)

    def add(self, packet: VideoPacket, *, hidden: bool, sound: bool) -> None:
        """Note one packet, and keep it while there is room."""
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
