"""Decoding a clip: every frame in order, or only the groups of pictures that hold the frames asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import MediaError
from videop2r_data.media.container import open_video
from videop2r_data.media.geometry import (
    Choice,
    Orientation,
    Sampled,
    Scaler,
    TimingOf,
    media_error,
)
from videop2r_data.media.packets import KEEP_BYTES, PacketIndex, read_packets
from videop2r_data.media.timing import Clock, clock_of, display_order, timing
from videop2r_data.schemas import MediaLimits, MediaSpec, RejectReason

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from videop2r_data.media.packets import VideoPacket


# Every frame in order: works for any clip, and survives damaged packets up to a share.


SAMPLER_IN_ORDER = "pyav-scan/1"
Pick = Callable[[int, TimingOf], Choice]
"""What says which frames of a clip to take, of how many it shows and when it shows them: `choose`."""


def sample_in_order(
    path: Path, spec: MediaSpec, pick: Pick, *, index: PacketIndex, missing: float
) -> Sampled:
    """Decode every packet in order; damaged packets are skipped up to a share, beyond it the clip is refused.

    The frames to convert are planned from the packets in `index`; if the clip turns out to have others, a
    second pass converts the right ones. `missing` is the share of the clip that is not there.

    Raises:
        MediaError: `media_bad_packets`, `media_outside`, or what opening raises.
    """
    guess = _guessed(pick, index)
    scan = decode_in_order(path, spec, guess)
    check_damage(scan, path, spec.limits)
    order = scan.order()
    timing_of = partial(
        timing, [scan.pts[at] for at in order], clock=scan.clock, last_duration=scan.last_duration
    )
    indices, part = pick(len(order), timing_of)
    decoded = [order[i] for i in indices]
    if decoded != guess:
        scan = decode_in_order(path, spec, decoded)
    return Sampled(
        array=scan.scaler.array,
        indices=tuple(indices),
        timing=timing_of(indices),
        total=len(order),
        source=scan.scaler.source,
        sampler=SAMPLER_IN_ORDER,
        missing=max(missing, scan.damaged),
        part=part,
    )


def _guessed(pick: Pick, index: PacketIndex) -> list[int]:
    """The frames to take as far as the packets tell: what decodes may have other times."""
    pts = index.shown_pts()
    timing_of = partial(timing, pts, clock=index.clock, last_duration=index.last_duration)
    try:
        return pick(max(1, len(pts)), timing_of)[0]
    except MediaError:
        return []


@dataclass(slots=True)
class Scan:
    """One pass of decoding in order."""

    scaler: Scaler
    slots: dict[int, int]
    """Number of a frame in order of decoder output -> place in the array."""
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
        """Numbers of the frames in display order: by timestamps where these give an order, else as they came.

        Decoders output the first shown frame first: timestamps that place another one before it are ignored.
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
        packets = _surviving(read_packets(container, stream), scan)
        found = first_frame_of(packets, stream.codec_context, scan)
    if found is None:
        message = f"none of {scan.packets} packets gives a frame"
        raise media_error(RejectReason.MEDIA_BAD_PACKETS, message, path)
    return found


def first_frame_of(
    packets: Iterable[VideoPacket | None], context: VideoCodecContext, scan: Scan
) -> tuple[int, int, Orientation] | None:
    """As `first_frame`, from packets that were read already: the file is not opened again.

    Args:
        packets: all of its stream, and None, for what the decoder still holds.
        context: of their stream, which decoded nothing yet.
        scan: empty; its scaler checks the frame's size.

    Returns:
        None if these packets give no frame.
    """
    for packet in packets:
        scan.packets += packet is not None
        for frame in _decoded(context, packet, scan):
            scan.scaler.look(frame)
            return *scan.scaler.source, scan.scaler.upright
    return None


# Only the groups of pictures that hold a wanted frame.
#
# For each wanted frame the clip is decoded from the last key frame before it, and the decoder skips frames
# that no other frame refers to. That trusts the packet list. `shown_order` is None where the list cannot be
# trusted; `NotAsPlannedError` is raised where decoded frames contradict it. In both cases `sample_in_order`
# decodes the whole clip instead.


SAMPLER_RUNS = "pyav-gop/1"

_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "libvpx", "vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1", "mjpeg"}
)
"""Codecs whose shown packets give one frame each, with key-frame flags that hold."""


class NotAsPlannedError(Exception):
    """What was decoded contradicts the packet list. Never leaves this room."""


@dataclass(slots=True)
class Run:
    """Packets `start..end` (both included) decode the frames with these pts."""

    start: int
    end: int
    wanted: set[int] = field(default_factory=set)


def shown_order(index: PacketIndex, codec: str) -> list[int] | None:
    """Positions of the shown packets in display order; None when the packet list cannot be trusted."""
    if index.error or index.corrupt or index.changed or codec not in _ONE_FRAME_PER_PACKET:
        return None
    if not index.keys[0] or index.false_keys:
        return None
    every = display_order(index.pts, index.keys, index.clock)
    order = [at for at in every or () if index.shown[at]]
    # A frame that is shown before the first key frame needs what is not there.
    return order if order and _known(index)[order[0]] >= _known(index)[0] else None


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


def sample_runs(
    path: Path,
    spec: MediaSpec,
    stream: VideoStream,
    index: PacketIndex,
    order: list[int],
    *,
    pick: Pick,
    missing: float,
) -> Sampled:
    """Take the frames out of their groups of pictures.

    Args:
        path: for reading a large clip a second time.
        stream: of an open container, nothing decoded from it yet.
        index: its packets.
        order: from `shown_order`.
        missing: share of the clip that is not there.

    Raises:
        NotAsPlannedError: the clip must be decoded in order.
        MediaError: `media_too_large`, `media_outside`.
    """
    pts = _known(index)
    shown = [pts[at] for at in order]
    timing_of = partial(timing, shown, clock=index.clock, last_duration=index.last_duration)
    indices, part = pick(len(order), timing_of)
    targets = [order[i] for i in indices]
    runs = plan_runs(index, targets)
    scaler = Scaler(spec, len(indices), path)
    decoder = _RunDecoder(index, scaler, {pts[at]: slot for slot, at in enumerate(targets)})
    if index.packets is not None:
        for run in runs:
            decoder.decode(stream.codec_context, run, index.packets[run.start : run.end + 1])
    elif index.places is not None:
        for run in runs:
            if int(index.places.sizes[run.start : run.end + 1].sum()) > KEEP_BYTES:
                raise NotAsPlannedError
            read = index.places.packets(index, run.start, run.end, stream)
            decoder.decode(stream.codec_context, run, read)
    else:
        with open_video(path, spec.limits) as (container, again):
            for run, packets in _reread(read_packets(container, again), runs):
                decoder.decode(again.codec_context, run, packets)
    return Sampled(
        array=scaler.array,
        indices=tuple(indices),
        timing=timing_of(indices),
        total=len(order),
        source=scaler.source,
        sampler=SAMPLER_RUNS,
        missing=missing,
        part=part,
    )


def _reread(packets: Iterable[VideoPacket], runs: list[Run]) -> Iterator[tuple[Run, list[VideoPacket]]]:
    """Read the file once more and yield the packets of each run; one run is in memory at a time."""
    waiting = list(runs)
    buffer: dict[int, VideoPacket] = {}
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


@dataclass(slots=True)
class _RunDecoder:
    """Decodes runs and converts wanted frames; `slots` maps the pts of a frame to its place in the array."""

    index: PacketIndex
    scaler: Scaler
    slots: dict[int, int]

    def decode(self, context: VideoCodecContext, run: Run, packets: list[VideoPacket]) -> None:
        """One run, start to end.

        Raises:
            NotAsPlannedError: a packet fails, the run does not start with a key frame, a frame is damaged or
                out of order, a wanted one is missing.
        """
        key_pts = self.index.pts[run.start]
        assert key_pts is not None
        missing = set(run.wanted)
        check_key = self.index.shown[run.start]
        last = key_pts - 1
        for frame in _frames(context, packets, run.wanted):
            if frame.pts is None:
                raise NotAsPlannedError
            if frame.pts < key_pts:
                continue  # Shown before the key frame, refers to the group before: not wanted here.
            if frame.is_corrupt or frame.pts <= last:
                # Frames that refer to a damaged frame are damaged too, and nothing marks them.
                raise NotAsPlannedError
            last = frame.pts
            if check_key and not (frame.pts == key_pts and frame.key_frame):
                raise NotAsPlannedError
            check_key = False
            if frame.pts in run.wanted:
                missing.discard(frame.pts)
                self.scaler.put(self.slots[frame.pts], frame)
        context.flush_buffers()
        if missing:
            raise NotAsPlannedError


def _frames(context: VideoCodecContext, packets: list[VideoPacket], wanted: set[int]) -> Iterator[VideoFrame]:
    import av

    feed: list[VideoPacket | None] = [*packets, None]
    for packet in feed:
        # Skipping frames that no other frame refers to changes no other frame.
        context.skip_frame = "DEFAULT" if packet is not None and packet.pts in wanted else "NONREF"
        try:
            frames = context.decode(packet)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, OSError):
            raise NotAsPlannedError from None
        yield from frames
