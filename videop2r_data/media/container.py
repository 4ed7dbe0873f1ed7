"""Opening a clip with PyAV: hostile until its header, its streams and its packets have been looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import MediaError
from videop2r_data.media.framing import is_cut, is_encrypted
from videop2r_data.media.geometry import MAX_ASPECT
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import MediaLimits

if TYPE_CHECKING:
    from fractions import Fraction

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

# No playlist (hls, dash, concat), no device, no protocol: a clip that names other files opens none of them.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,live_flv,mpegts,mpeg,mpegvideo,asf,ogg,rm,wtv,nut,nsv,"
    "h264,hevc,m4v,ivf,dv,mxf,swf,vob,amv,obu,av1,apng,jpeg_pipe,png_pipe,webp_pipe"
)
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": _DEMUXERS,
    # Opening decodes up to 20 frames only to guess a rate; the rate is computed from the timestamps instead.
    "fpsprobesize": "0",
}

KEEP_BYTES = 256 * 2**20
"""Compressed bytes that are held in memory at most; beyond it a clip is read twice."""


_SANE_FPS = 500


@dataclass(slots=True)
class PacketIndex:
    """One pass over the packets of the chosen stream, nothing decoded. Lists run in file (decode) order."""

    pts: list[int | None] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    """False: decoded for the sake of others, cut away by an edit list, or hidden by the codec."""
    packets: list[Packet] | None = field(default_factory=list)
    """None when they are too large to be held."""
    last_duration: int = 0
    """Duration of the packet that is shown last, in time-base units; 0 = unknown."""
    corrupt: int = 0
    error: str = ""
    """Why reading broke off, or empty."""

    @property
    def shown_count(self) -> int:
        """Frames that the stream shows, if each shown packet gives one."""
        return sum(self.shown)


def media_error(reason: RejectReason, message: str, path: Path) -> MediaError:
    """A `MediaError` that names the file."""
    return MediaError(message, reason=reason, where=str(path))


@contextmanager
def open_video(path: Path, limits: MediaLimits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a clip and choose its video stream: the largest picture, cover art aside.

    Decoding is set to one thread and to arithmetic that does not depend on the processor.

    Raises:
        MediaError: unreadable, truncated, encrypted, no video, too large.
    """
    import av

    try:
        # The prefix keeps a name with a colon in it from being read as a protocol.
        container = av.open(f"file:{path.absolute()}", metadata_errors="replace", options=dict(_OPTIONS))
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    with container:
        stream = _choose(container, path)
        _check_header(container, stream, path, limits)
        _set_up(stream.codec_context, limits)
        yield container, stream


def _set_up(context: VideoCodecContext, limits: MediaLimits) -> None:
    from av.codec.context import Flags

    context.thread_count = 1
    context.thread_type = "NONE"
    context.flags |= int(Flags.bitexact)
    # The header's size was checked; a stream can still grow in its middle.
    context.options = {**context.options, "max_pixels": str(limits.max_side**2)}


def header_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second by the header, if it says anything sane (FLV headers claim 1000)."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 0 < rate < _SANE_FPS:
            return rate
    return None


def _unreadable(path: Path, error: Exception) -> MediaError:
    text = getattr(error, "strerror", None) or str(error)
    if is_cut(path):
        return media_error(
            RejectReason.MEDIA_TRUNCATED, f"cut short: its header or index is lost ({text})", path
        )
    if is_encrypted(path):
        return media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted", path)
    return media_error(RejectReason.MEDIA_UNREADABLE, f"no container that can be read ({text})", path)


def _choose(container: InputContainer, path: Path) -> VideoStream:
    from av.stream import Disposition

    streams = [
        s
        for s in container.streams.video
        if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise media_error(RejectReason.MEDIA_NO_VIDEO, f"no video stream (streams: {kinds})", path)
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise media_error(RejectReason.MEDIA_UNREADABLE, "no decoder for its video codec", path)
    best = max(usable, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index))
    return best


def _check_header(container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits) -> None:
    context = stream.codec_context
    if context.codec_tag in {"encv", "drmi"} or is_encrypted(path):
        raise media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted", path)
    check_size(context.width, context.height, path, limits)
    if container.duration is not None and container.duration > limits.max_duration_s * 1_000_000:
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"lasts {container.duration / 1e6:.0f} s, limits.max_duration_s allows {limits.max_duration_s:g}",
            path,
        )


def check_size(width: int, height: int, path: Path, limits: MediaLimits) -> None:
    """Refuse pictures past the limits. A size of 0 means that the header does not say.

    Raises:
        MediaError: `media_too_large`.
    """
    if max(width, height) > limits.max_side:
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"{width}x{height} pixels, limits.max_side allows {limits.max_side}",
            path,
        )
    if min(width, height) > 0 and max(width, height) > MAX_ASPECT * min(width, height):
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"{width}x{height} pixels: one side is more than {MAX_ASPECT} times the other",
            path,
        )


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
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
    codec = stream.codec_context.codec.name
    last = -(2**62)
    held = 0
    packets = read_packets(container, stream)
    while True:
        try:
            packet = next(packets, None)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, OSError) as error:
            index.error = str(error)
            break
        if packet is None:
            break
        if len(index.pts) >= limits.max_packets:
            raise media_error(
                RejectReason.MEDIA_TOO_LARGE,
                f"more than {limits.max_packets} packets (limits.max_packets)",
                path,
            )
        pts = packet.pts
        index.pts.append(pts)
        index.keys.append(packet.is_keyframe)
        index.shown.append(not packet.is_discard and not _hidden(codec, packet))
        index.corrupt += packet.is_corrupt
        if pts is not None and pts > last:
            last, index.last_duration = pts, packet.duration or 0
        if index.packets is not None:
            held += packet.size
            if held > KEEP_BYTES:
                index.packets = None
            else:
                index.packets.append(packet)
    _check_span(index, stream, path, limits)
    return index


def _hidden(codec: str, packet: Packet) -> bool:
    """VP8's alternative reference frames travel in packets of their own and are never shown."""
    if codec not in {"vp8", "libvpx"}:
        return False
    return not memoryview(packet)[0] & 0x10


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

    A clip that lost more than `limits.max_bad_packets` of its frames is refused even though the rest decodes: its
    question was asked about the whole clip, and "uniform over what is left" shows other moments.

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
    """For containers without a frame count (mkv, flv): does the clip end long before its header says, and the file too?

    The header's duration is that of the longest stream, so a short video beside a long sound is no fault: only a
    file whose own sizes reach beyond its end is called cut.
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
