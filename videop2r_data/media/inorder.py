"""The sure way: everything in order, packet by packet, surviving bad packets up to a share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.container import check_size, media_error, open_video
from videop2r_data.media.geometry import uniform_indices
from videop2r_data.media.orientation import Orientation, frame_orientation
from videop2r_data.media.packets import read_packets
from videop2r_data.media.sampled import Sampled
from videop2r_data.media.scaler import Scaler
from videop2r_data.media.timing import Clock, clock_of, display_order, timing
from videop2r_data.schemas.recipe import MediaLimits, MediaSpec
from videop2r_data.schemas.verdict import RejectReason

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

    from videop2r_data.media.packets import VideoPacket

SAMPLER = "pyav-scan/1"


def sample_in_order(path: Path, spec: MediaSpec, *, expected: int, missing: float) -> Sampled:
    """Decode everything in order; a bad packet costs itself, too many of them the clip.

    Frames are converted at the places where `expected` frames would put them; if other ones turn out to be
    wanted, a second pass converts those.

    Args:
        path: the clip.
        spec: sampling settings.
        expected: shown frames, as far as the packets tell.
        missing: share of the clip that is not there.

    Raises:
        MediaError: `media_bad_packets`, or what opening raises.
    """
    guess = uniform_indices(max(1, expected), spec.frames)
    scan = decode_in_order(path, spec, guess)
    check_damage(scan, path, spec.limits)
    order = scan.order()
    indices = uniform_indices(len(order), spec.frames)
    decoded = [order[i] for i in indices]
    if decoded != guess:
        scan = decode_in_order(path, spec, decoded)
    made = timing([scan.pts[at] for at in order], indices, scan.clock, scan.last_duration)
    return Sampled(
        array=scan.scaler.array,
        indices=tuple(indices),
        times_s=made.times_s,
        total=len(scan.pts),
        fps=made.fps,
        duration_s=made.duration_s,
        width=scan.scaler.source[1],
        height=scan.scaler.source[0],
        sampler=SAMPLER,
        times=made.kind,
        missing=max(missing, scan.damaged),
    )


@dataclass(slots=True)
class Scan:
    """One pass of decoding in order."""

    scaler: Scaler
    slots: dict[int, int]
    """Number of a frame as it comes out of the decoder -> place in the array."""
    pts: list[int | None] = field(default_factory=list)
    """Of every frame, as they come out."""
    keys: list[bool] = field(default_factory=list)
    packets: int = 0
    bad: int = 0
    """Packets that gave an error, and frames that the decoder calls damaged."""
    clock: Clock = field(default_factory=lambda: Clock(None, None))
    last_duration: int = 0

    def add(self, frame: VideoFrame) -> None:
        """Count one frame, and convert it if it is wanted."""
        slot = self.slots.get(len(self.pts))
        self.pts.append(frame.pts)
        self.keys.append(frame.key_frame)
        self.bad += frame.is_corrupt
        self.last_duration = frame.duration or 0
        if slot is not None:
            self.scaler.put(slot, frame)

    def order(self) -> list[int]:
        """Numbers of the frames in display order: by their stamps where these give one, else as they came.

        A decoder puts out the first frame first: stamps that show another one before it are not trusted.
        """
        found = display_order(self.pts, self.keys, self.clock)
        return found if found and found[0] == 0 else list(range(len(self.pts)))

    @property
    def damaged(self) -> float:
        """Share of the packets that gave an error or a damaged frame."""
        return round(min(1.0, self.bad / max(1, self.packets)), 6)


def decode_in_order(path: Path, spec: MediaSpec, indices: list[int]) -> Scan:
    """Decode a clip from start to end, surviving bad packets; the frames at `indices` are converted.

    Raises:
        MediaError: what opening raises; `media_too_large`.
    """
    slots = {at: slot for slot, at in enumerate(indices)}
    scan = Scan(Scaler(spec, len(indices), path), slots)
    with open_video(path, spec.limits) as (container, stream):
        scan.clock = clock_of(container, stream)
        for packet in _surviving(read_packets(container, stream), scan):
            scan.packets += packet is not None
            for frame in _decoded(stream.codec_context, packet, scan):
                scan.add(frame)
    return scan


def _surviving(packets: Iterator[VideoPacket], scan: Scan) -> Iterator[VideoPacket | None]:
    """The packets up to the first one that cannot be read; then None, which empties the decoder."""
    import av

    try:
        yield from packets
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError):
        scan.bad += 1
    yield None


def _decoded(context: VideoCodecContext, packet: VideoPacket | None, scan: Scan) -> list[VideoFrame]:
    import av

    try:
        return context.decode(packet)
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


def first_frame(path: Path, spec: MediaSpec) -> tuple[int, int, Orientation]:
    """Decode up to the first frame: `(height, width)` upright, and what makes it upright.

    Raises:
        MediaError: `media_bad_packets` when no packet gives a frame.
    """
    scan = Scan(Scaler(spec, 0, path), {})
    with open_video(path, spec.limits) as (container, stream):
        found = _first_of(_surviving(read_packets(container, stream), scan), stream.codec_context, scan)
    if found is None:
        message = f"none of {scan.packets} packets gives a frame"
        raise media_error(RejectReason.MEDIA_BAD_PACKETS, message, path)
    check_size(found[1], found[0], path, spec.limits)
    return found


def first_frame_of(
    packets: list[VideoPacket], context: VideoCodecContext, path: Path, spec: MediaSpec
) -> tuple[int, int, Orientation] | None:
    """As `first_frame`, from packets that were read already: the file is not opened again.

    Args:
        packets: all of its stream.
        context: of their stream, which decoded nothing yet.
        path: their file.
        spec: its limits are read.

    Returns:
        None if these packets give no frame.
    """
    scan = Scan(Scaler(spec, 0, path), {})
    found = _first_of(chain(packets, [None]), context, scan)  # None: what the decoder still holds
    if found is not None:
        check_size(found[1], found[0], path, spec.limits)
    return found


def _first_of(
    packets: Iterable[VideoPacket | None], context: VideoCodecContext, scan: Scan
) -> tuple[int, int, Orientation] | None:
    """Decode until a frame comes out; None if none does."""
    for packet in packets:
        scan.packets += packet is not None
        for frame in _decoded(context, packet, scan):
            upright = frame_orientation(frame)
            sides = (frame.height, frame.width)
            height, width = sides[::-1] if upright.swaps_sides else sides
            return height, width, upright
    return None
