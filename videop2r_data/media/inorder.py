"""The sure way: everything in order, packet by packet, surviving bad packets up to a share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.container import check_size, header_rate, media_error, open_video
from videop2r_data.media.geometry import uniform_indices
from videop2r_data.media.sampled import Sampled
from videop2r_data.media.scaler import Scaler, quarter_turns
from videop2r_data.media.timing import timing
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import MediaLimits, MediaSpec

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

    from videop2r_data.media.packets import VideoPacket

SAMPLER = "pyav-scan/1"


def sample_in_order(path: Path, spec: MediaSpec, *, expected: int) -> Sampled:
    """Decode everything in order; a bad packet costs itself, too many of them the clip.

    Frames are converted at the places where `expected` frames would put them; if another number comes out, a
    second pass converts the right ones.

    Raises:
        MediaError: `media_bad_packets`, or what opening raises.
    """
    guess = uniform_indices(max(1, expected), spec.frames)
    scan = decode_in_order(path, spec, guess)
    check_damage(scan, path, spec.limits)
    indices = uniform_indices(len(scan.pts), spec.frames)
    if indices != guess:
        scan = decode_in_order(path, spec, indices)
    times, fps, duration = timing(scan.pts, indices, scan.time_base, scan.rate, scan.last_duration)
    return Sampled(
        array=scan.scaler.array,
        indices=tuple(indices),
        times_s=times,
        total=len(scan.pts),
        fps=fps,
        duration_s=duration,
        width=scan.scaler.source[1],
        height=scan.scaler.source[0],
        sampler=SAMPLER,
    )


@dataclass(slots=True)
class Scan:
    """One pass of decoding in order."""

    scaler: Scaler
    slots: dict[int, int]
    """Display index -> place in the array."""
    pts: list[int | None] = field(default_factory=list)
    """Of every frame, in display order."""
    packets: int = 0
    bad: int = 0
    """Packets that gave an error, and frames that the decoder calls damaged."""
    time_base: Fraction | None = None
    rate: Fraction | None = None
    last_duration: int = 0

    def add(self, frame: VideoFrame) -> None:
        """Count one frame, and convert it if it is wanted."""
        slot = self.slots.get(len(self.pts))
        self.pts.append(frame.pts)
        self.bad += frame.is_corrupt
        self.last_duration = frame.duration or 0
        if slot is not None:
            self.scaler.put(slot, frame)


def decode_in_order(path: Path, spec: MediaSpec, indices: list[int]) -> Scan:
    """Decode a clip from start to end, surviving bad packets; the frames at `indices` are converted.

    Raises:
        MediaError: what opening raises; `media_too_large`.
    """
    slots = {at: slot for slot, at in enumerate(indices)}
    scan = Scan(Scaler(spec, len(indices), path), slots)
    with open_video(path, spec.limits) as (container, stream):
        scan.time_base, scan.rate = stream.time_base, header_rate(stream)
        for packet in _surviving(container.demux(stream), scan):
            scan.packets += bool(packet.size)
            for frame in _decoded(stream.codec_context, packet, scan):
                scan.add(frame)
    return scan


def _surviving(packets: Iterator[VideoPacket], scan: Scan) -> Iterator[VideoPacket]:
    """The packets up to the first one that cannot be read."""
    import av

    try:
        yield from packets
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError):
        scan.bad += 1


def _decoded(context: VideoCodecContext, packet: VideoPacket, scan: Scan) -> list[VideoFrame]:
    import av

    try:
        return context.decode(packet if packet.size else None)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError):
        scan.bad += 1
        return []


def check_damage(scan: Scan, path: Path, limits: MediaLimits) -> None:
    """Refuse a clip of which too much, or everything, failed to decode.

    Raises:
        MediaError: `media_bad_packets`.
    """
    if not scan.pts or scan.bad > limits.max_bad_packets * scan.packets:
        raise media_error(
            RejectReason.MEDIA_BAD_PACKETS,
            f"{scan.bad} of {scan.packets} packets do not decode, {len(scan.pts)} frames do "
            f"(limits.max_bad_packets allows a share of {limits.max_bad_packets:g})",
            path,
        )


def first_frame(path: Path, spec: MediaSpec) -> tuple[int, int, int]:
    """Decode up to the first frame: `(height, width, rotation)`, upright, degrees counter-clockwise.

    Raises:
        MediaError: `media_bad_packets` when no packet gives a frame.
    """
    scan = Scan(Scaler(spec, 0, path), {})
    with open_video(path, spec.limits) as (container, stream):
        for packet in _surviving(container.demux(stream), scan):
            scan.packets += bool(packet.size)
            for frame in _decoded(stream.codec_context, packet, scan):
                check_size(frame.width, frame.height, path, spec.limits)
                turns = quarter_turns(frame)
                height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
                return height, width, 90 * turns
    raise media_error(RejectReason.MEDIA_BAD_PACKETS, f"none of {scan.packets} packets gives a frame", path)
