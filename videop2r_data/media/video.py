"""N frames out of a clip with PyAV: only the needed groups of pictures, or everything in order.

The fast way decodes, for each wanted frame, from the last key frame before it, and tells the decoder to skip what
nothing depends on. It trusts the packet list. Where that list cannot be trusted (see `plan_runs`), or where what
comes out contradicts it, the clip is decoded in order from its start, packet by packet: slower, and always right.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videop2r_data.media.container import (
    KEEP_BYTES,
    PacketIndex,
    check_complete,
    check_size,
    media_error,
    open_video,
    read_index,
    read_packets,
)
from videop2r_data.media.geometry import smart_resize, uniform_indices
from videop2r_data.schemas.reasons import RejectReason
from videop2r_data.schemas.recipe import MediaLimits, MediaSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

    import numpy as np
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

GOP = "pyav-gop/1"
SCAN = "pyav-scan/1"

_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mjpeg"}
)
"""Codecs whose shown packets give one frame each and whose key-frame flags hold; the others are decoded in order."""
_PTS_IN_DECODE_ORDER = frozenset({"avi"})


class NotAsPlannedError(Exception):
    """What was decoded contradicts the packet list: decode in order instead. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sampler took out of a clip.

    Attributes:
        array: uint8 [T, H, W, 3], RGB, upright.
        indices: T, display order.
        times_s: T, seconds from the first shown frame.
        total: frames that the clip shows.
        fps: average frames per second, or None.
        duration_s: seconds from the first frame's start to the last one's end, or None.
        width: of the source, upright, pixels.
        height: of the source, upright, pixels.
        sampler: name and version of the way that was taken.
    """

    array: NDArray[np.uint8]
    indices: tuple[int, ...]
    times_s: tuple[float, ...]
    total: int
    fps: float | None
    duration_s: float | None
    width: int
    height: int
    sampler: str


@dataclass(slots=True)
class Run:
    """Packets `start..end` (both included) decode the frames with these pts."""

    start: int
    end: int
    wanted: set[int] = field(default_factory=set)


class Scaler:
    """Turns decoded frames into RGB arrays of one size, fixed by the first frame; upright."""

    def __init__(self, spec: MediaSpec, path: Path) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._spec, self._path = spec, path
        self._reformatter = VideoReformatter()
        # The exact variants give the same pixels with and without vector instructions.
        self._how = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        self._size: tuple[int, int] | None = None
        self._turns = 0
        self.source: tuple[int, int] = (0, 0)
        """Height and width of the source, upright."""

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        import numpy as np

        if self._size is None:
            self._fix(frame)
        assert self._size is not None
        height, width = self._size
        if self._turns % 2:
            height, width = width, height
        picture = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", interpolation=int(self._how), threads=1
        )
        array = picture.to_ndarray()
        return np.ascontiguousarray(np.rot90(array, self._turns)) if self._turns else array

    def _fix(self, frame: VideoFrame) -> None:
        self._turns = round(frame.rotation / 90) % 4
        height, width = frame.height, frame.width
        check_size(width, height, self._path, self._spec.limits)
        if self._turns % 2:
            height, width = width, height
        self.source = (height, width)
        self._size = smart_resize(
            height,
            width,
            factor=self._spec.factor,
            min_pixels=self._spec.min_pixels,
            max_pixels=self._spec.max_pixels,
        )


def sample_video(path: Path, spec: MediaSpec) -> Sampled:
    """Take `spec.frames` uniformly spaced frames.

    Raises:
        MediaError: see `container` and `scan_in_order`.
    """
    with open_video(path, spec.limits) as (container, stream):
        index = read_index(container, stream, path, spec.limits)
        check_complete(container, stream, index, path, spec.limits)
        order = shown_order(index, container.format.name, stream.codec_context.codec.name)
        if order is not None:
            try:
                return _sample_runs(path, spec, stream, index, order)
            except NotAsPlannedError:
                pass
    return scan_in_order(path, spec, expected=index.shown_count)


def shown_order(index: PacketIndex, container_name: str, codec: str) -> list[int] | None:
    """Positions of the shown packets in display order; None when the packet list cannot be trusted."""
    if index.error or index.corrupt or codec not in _ONE_FRAME_PER_PACKET:
        return None
    if any(name in _PTS_IN_DECODE_ORDER for name in container_name.split(",")):
        return None
    if not index.keys[0] or None in index.pts:
        return None
    pts = _known(index)
    order = sorted((at for at, shown in enumerate(index.shown) if shown), key=pts.__getitem__)
    if not order or len({pts[at] for at in order}) != len(order) or pts[order[0]] < pts[0]:
        return None
    keys = [pts[at] for at, key in enumerate(index.keys) if key]
    return order if keys == sorted(set(keys)) else None


def plan_runs(index: PacketIndex, targets: list[int]) -> list[Run]:
    """Group wanted packets (positions) by the key frame that they are decoded from, in file order."""
    pts = _known(index)
    key_at = [at for at, key in enumerate(index.keys) if key]
    key_pts = [pts[at] for at in key_at]
    runs: dict[int, Run] = {}
    for at in targets:
        start = key_at[bisect_right(key_pts, pts[at]) - 1]
        if at < start:
            raise NotAsPlannedError
        run = runs.setdefault(start, Run(start, at))
        run.end = max(run.end, at)
        run.wanted.add(pts[at])
    return [runs[start] for start in sorted(runs)]


def _known(index: PacketIndex) -> list[int]:
    return [p for p in index.pts if p is not None]


def _sample_runs(
    path: Path, spec: MediaSpec, stream: VideoStream, index: PacketIndex, order: list[int]
) -> Sampled:
    import numpy as np

    pts = _known(index)
    indices = uniform_indices(len(order), spec.frames)
    targets = [order[i] for i in indices]
    runs = plan_runs(index, targets)
    scaler = Scaler(spec, path)
    pictures: dict[int, NDArray[np.uint8]] = {}
    if index.packets is not None:
        for run in runs:
            packets = index.packets[run.start : run.end + 1]
            _decode_run(stream.codec_context, packets, run, index, scaler, pictures)
    else:
        with open_video(path, spec.limits) as (container, again):
            for run, packets in _reread(read_packets(container, again), runs):
                _decode_run(again.codec_context, packets, run, index, scaler, pictures)
    wanted = [pts[at] for at in targets]
    shown_pts = [pts[at] for at in order]
    times, fps, duration = timing(shown_pts, stream.time_base, stream.average_rate, index.last_duration)
    return Sampled(
        array=np.stack([pictures[p] for p in wanted]),
        indices=tuple(indices),
        times_s=tuple(times[i] for i in indices),
        total=len(order),
        fps=fps,
        duration_s=duration,
        width=scaler.source[1],
        height=scaler.source[0],
        sampler=GOP,
    )


def _reread(packets: Iterable[Packet], runs: list[Run]) -> Iterator[tuple[Run, list[Packet]]]:
    """Hand out the packets of each run while the file is read once more; holds one run at a time."""
    waiting = list(runs)
    buffer: dict[int, Packet] = {}
    held = 0
    for at, packet in enumerate(packets):
        if not waiting:
            return
        if at >= waiting[0].start:
            buffer[at] = packet
            held += packet.size
            if held > KEEP_BYTES:
                raise NotAsPlannedError
        while waiting and waiting[0].end <= at:
            run = waiting.pop(0)
            yield run, [buffer[i] for i in range(run.start, run.end + 1)]
            floor = waiting[0].start if waiting else at + 1
            buffer = {i: p for i, p in buffer.items() if i >= floor}
            held = sum(p.size for p in buffer.values())
    if waiting:
        raise NotAsPlannedError


def _decode_run(
    context: VideoCodecContext,
    packets: list[Packet],
    run: Run,
    index: PacketIndex,
    scaler: Scaler,
    pictures: dict[int, Any],
) -> None:
    """Decode one run and convert what is wanted.

    Raises:
        NotAsPlannedError: a packet fails, the run does not start with a key frame, a wanted frame is missing,
            damaged or comes twice.
    """
    import av

    key_pts = index.pts[run.start]
    assert key_pts is not None
    missing = set(run.wanted)
    check_key = index.shown[run.start]
    feed: list[Packet | None] = [*packets, None]
    for packet in feed:
        # Skipping unreferenced pictures is the decoder's own mode: it changes no other picture.
        context.skip_frame = "DEFAULT" if packet is not None and packet.pts in run.wanted else "NONREF"
        try:
            frames = context.decode(packet)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, OSError):
            raise NotAsPlannedError from None
        for frame in frames:
            if frame.pts is None:
                raise NotAsPlannedError
            if frame.pts < key_pts:
                continue  # Shown before the key frame, needs the group before it: not what we came for.
            if check_key and not (frame.pts == key_pts and frame.key_frame):
                raise NotAsPlannedError
            check_key = False
            if frame.pts in run.wanted:
                if frame.is_corrupt or frame.pts not in missing:
                    raise NotAsPlannedError
                missing.discard(frame.pts)
                pictures[frame.pts] = scaler(frame)
    context.flush_buffers()
    if missing:
        raise NotAsPlannedError


def scan_in_order(path: Path, spec: MediaSpec, *, expected: int) -> Sampled:
    """Decode everything in order; a bad packet costs itself, too many of them the clip.

    Frames are converted at the places where `expected` frames would put them; if another number comes out, a second
    pass converts the right ones.

    Raises:
        MediaError: `media_bad_packets`, or what opening raises.
    """
    import numpy as np

    wanted = set(uniform_indices(max(1, expected), spec.frames))
    scan = _scan(path, spec, wanted)
    indices = uniform_indices(len(scan.pts), spec.frames)
    if wanted != set(indices):
        scan = _scan(path, spec, set(indices))
    times, fps, duration = timing(scan.pts, scan.time_base, scan.rate, scan.last_duration)
    return Sampled(
        array=np.stack([scan.pictures[i] for i in indices]),
        indices=tuple(indices),
        times_s=tuple(times[i] for i in indices),
        total=len(scan.pts),
        fps=fps,
        duration_s=duration,
        width=scan.source[1],
        height=scan.source[0],
        sampler=SCAN,
    )


@dataclass(slots=True)
class Scan:
    """One pass of decoding in order."""

    pts: list[int | None] = field(default_factory=list)
    packets: int = 0
    bad: int = 0
    """Packets that gave an error, and frames that the decoder calls damaged."""
    pictures: dict[int, Any] = field(default_factory=dict)
    source: tuple[int, int] = (0, 0)
    time_base: Fraction | None = None
    rate: Fraction | None = None
    last_duration: int = 0

    def add(self, frame: VideoFrame, wanted: set[int], scaler: Scaler) -> None:
        """Count one frame, and convert it if it is wanted."""
        at = len(self.pts)
        self.pts.append(frame.pts)
        self.bad += frame.is_corrupt
        self.last_duration = frame.duration or 0
        if at in wanted:
            self.pictures[at] = scaler(frame)


def _scan(path: Path, spec: MediaSpec, wanted: set[int]) -> Scan:
    scan = decode_in_order(path, spec, wanted)
    check_damage(scan, path, spec.limits)
    return scan


def decode_in_order(path: Path, spec: MediaSpec, wanted: set[int]) -> Scan:
    """Decode a clip from start to end, surviving bad packets; `wanted` frames (display order) are converted."""
    import av

    scan, scaler = Scan(), Scaler(spec, path)
    with open_video(path, spec.limits) as (container, stream):
        scan.time_base, scan.rate = stream.time_base, stream.average_rate
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError, OSError):
                scan.bad += 1
                break
            if packet is None:
                break
            scan.packets += bool(packet.size)
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError, OSError):
                scan.bad += 1
                continue
            for frame in frames:
                scan.add(frame, wanted, scaler)
    scan.source = scaler.source
    return scan


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


def timing(
    pts: list[int] | list[int | None],
    time_base: Fraction | None,
    rate: Fraction | None,
    last_duration: int,
) -> tuple[list[float], float | None, float | None]:
    """Times of the shown frames, average fps and duration, from timestamps rather than from the header.

    Args:
        pts: of every shown frame, in display order; may have holes or run in decode order (AVI).
        time_base: seconds per unit of `pts`.
        rate: frames per second that the header claims; used only where timestamps are of no use.
        last_duration: of the frame shown last, in units of `pts`; 0 = unknown.

    Returns:
        `(times, fps, duration)`: seconds from the first frame, rounded to 6 decimals; frames per second or None;
        seconds or None.
    """
    known = sorted({p for p in pts if p is not None})
    if time_base is None or len(known) != len(pts):
        step = 1 / rate if rate else None
        # Without timestamps and without a rate nothing is known but the order: one second apart.
        times = [round(float(i * (step or 1)), 6) for i in range(len(pts))]
        return times, _round(rate), None if step is None else round(float(len(pts) * step), 6)
    times = [round(float((p - known[0]) * time_base), 6) for p in known]
    span = (known[-1] - known[0]) * time_base
    if len(known) == 1:
        only = last_duration * time_base if last_duration > 0 else None
        return times, _round(rate), None if only is None else round(float(only), 6)
    end = last_duration * time_base if last_duration > 0 else span / (len(known) - 1)
    return times, round(float((len(known) - 1) / span), 6), round(float(span + end), 6)


def _round(rate: Fraction | None) -> float | None:
    return round(float(rate), 6) if rate else None


def first_frame(path: Path, spec: MediaSpec) -> tuple[int, int, int]:
    """Decode up to the first frame: `(height, width, rotation)`, upright, degrees counter-clockwise.

    Raises:
        MediaError: `media_bad_packets` when no packet gives a frame.
    """
    import av

    packets = 0
    with open_video(path, spec.limits) as (container, stream):
        for packet in container.demux(stream):
            packets += bool(packet.size)
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except MemoryError:
                raise
            except (av.FFmpegError, ValueError, OSError):
                continue
            for frame in frames:
                check_size(frame.width, frame.height, path, spec.limits)
                turns = round(frame.rotation / 90) % 4
                size = (frame.height, frame.width)
                return (size[1], size[0], turns * 90) if turns % 2 else (*size, turns * 90)
    raise media_error(RejectReason.MEDIA_BAD_PACKETS, f"none of {packets} packets gives a frame", path)
