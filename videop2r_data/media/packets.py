"""One pass over a clip's packets, nothing decoded: what there is, and whether the header promises more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.container import media_error
from videop2r_data.media.framing import is_cut
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

KEEP_BYTES = 256 * 2**20
"""Compressed bytes that are held in memory at most; beyond it a clip is read twice."""


@dataclass(slots=True)
class PacketIndex:
    """One pass over the packets of the chosen stream, nothing decoded. Lists run in file (decode) order."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    """False: decoded for the sake of others, cut away by an edit list, or hidden by the codec."""
    packets: list[VideoPacket] | None = field(default_factory=list)
    """None when they are too large to be held."""
    last_duration: int = 0
    """Duration of the packet that is shown last, in time-base units; 0 = unknown."""
    corrupt: int = 0
    error: str = ""
    """Why reading broke off, or empty."""
    _held: int = 0
    _last: int = -(2**62)

    @property
    def shown_count(self) -> int:
        """Frames that the stream shows, if each shown packet gives one."""
        return sum(self.shown)

    def add(self, packet: VideoPacket, *, hidden: bool) -> None:
        """Note one packet, and keep it while there is room."""
        pts = packet.pts
        self.pts.append(pts)
        self.keys.append(packet.is_keyframe)
        self.shown.append(not (hidden or packet.is_discard))
        self.corrupt += packet.is_corrupt
        if pts is not None and pts > self._last:
            self._last, self.last_duration = pts, packet.duration or 0
        if self.packets is not None:
            self.packets.append(packet)
            self._held += packet.size
            if self._held > KEEP_BYTES:
                self.packets = None


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

    index = PacketIndex()
    vp8 = stream.codec_context.codec.name in {"vp8", "libvpx"}
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
            # VP8's alternative reference frames travel in packets of their own and are never shown.
            index.add(packet, hidden=vp8 and not memoryview(packet)[0] & 0x10)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        index.error = str(error)
    _check_span(index, stream, path, limits)
    return index


def _check_span(index: PacketIndex, stream: VideoStream, path: Path, limits: MediaLimits) -> None:
    known = [p for p in index.pts if p is not None]
    if known and stream.time_base is not None:
        span = float((max(known) - min(known)) * stream.time_base)
        if span > limits.max_duration_s:
            raise media_error(
                RejectReason.MEDIA_TOO_LARGE,
                f"timestamps span {span:.0f} s, limits.max_duration_s allows {limits.max_duration_s:g}",
                path,
            )


def check_complete(
    container: InputContainer, stream: VideoStream, index: PacketIndex, path: Path, limits: MediaLimits
) -> None:
    """Compare what the header promises with the packets that are there.

    A clip that lost more than `limits.max_bad_packets` of its frames is refused even though the rest decodes:
    its question was asked about the whole clip, and "uniform over what is left" shows other moments.

    Raises:
        MediaError: `media_truncated` when the file ends early, `media_bad_packets` when it is damaged inside,
            `media_no_video` when there is no packet and none was promised.
    """
    found = len(index.pts)
    promised = stream.frames
    if promised > 0 and promised - found > limits.max_bad_packets * promised:
        message = f"its header promises {promised} frames, {found} can be read"
        cut = is_cut(path) or _table_leaves_file(container, stream, path)
        raise media_error(
            RejectReason.MEDIA_TRUNCATED if cut else RejectReason.MEDIA_BAD_PACKETS, message, path
        )
    if found == 0:
        if is_cut(path):
            raise media_error(RejectReason.MEDIA_TRUNCATED, "cut short before its first frame", path)
        raise media_error(RejectReason.MEDIA_NO_VIDEO, "its video stream holds no frame", path)
    if promised <= 0:
        _check_duration(container, stream, index, path, limits)


def _table_leaves_file(container: InputContainer, stream: VideoStream, path: Path) -> bool:
    """Whether an mp4's sample table points beyond the end of the file."""
    if not container.format.name.startswith("mov,"):
        return False
    size = path.stat().st_size
    return any(entry.pos + entry.size > size for entry in stream.index_entries)


def _check_duration(
    container: InputContainer, stream: VideoStream, index: PacketIndex, path: Path, limits: MediaLimits
) -> None:
    """For containers without a frame count (mkv, flv): does the clip end long before its header says, and the
    file too?

    The header's duration is that of the longest stream, so a short video beside a long sound is no fault:
    only a file whose own sizes reach beyond its end is called cut.
    """
    known = [p for p in index.pts if p is not None]
    if container.duration is None or stream.time_base is None or not known:
        return
    start = container.start_time or 0
    end = float(max(known) * stream.time_base) - start / 1e6
    promised = container.duration / 1e6
    if promised - end > max(0.5, limits.max_bad_packets * promised) and is_cut(path):
        message = f"its header promises {promised:.2f} s, the video ends after {end:.2f} s"
        raise media_error(RejectReason.MEDIA_TRUNCATED, message, path)
