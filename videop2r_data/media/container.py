"""Opening a clip with PyAV: hostile until its header, its streams and its packets have been looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import MediaError
from videop2r_data.media.geometry import check_size
from videop2r_data.media.layout import is_cut, is_encrypted
from videop2r_data.schemas import MediaLimits, RejectReason

if TYPE_CHECKING:
    from av.container import InputContainer
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
        _only(container, stream)
        _set_up(stream.codec_context, limits)
        yield container, stream


def _only(container: InputContainer, chosen: VideoStream) -> None:
    """Let the demuxer skip the packets of all other streams, sound above all."""
    from av.stream import Discard

    for stream in container.streams:
        if stream.index != chosen.index:
            stream.discard = Discard.all


def _set_up(context: VideoCodecContext, limits: MediaLimits) -> None:
    from av.codec.context import Flags

    context.thread_count = 1
    context.thread_type = "NONE"
    context.flags |= int(Flags.bitexact)
    # The header's size was checked; a stream can still grow in its middle.
    options = {"max_pixels": str(limits.max_side**2)}
    if context.codec.name == "mjpeg":
        # Else a damaged picture comes without an error, its rest from whatever was decoded before it.
        options["err_detect"] = "explode"
    context.options = {**context.options, **options}


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
    if is_encrypted(path):
        raise media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted", path)
    check_size(context.width, context.height, path, limits)
    if container.duration is not None and container.duration > limits.max_duration_s * 1_000_000:
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"lasts {container.duration / 1e6:.0f} s, limits.max_duration_s allows {limits.max_duration_s:g}",
            path,
        )
