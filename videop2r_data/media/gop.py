"""The fast way: only the groups of pictures that hold a wanted frame.

For each wanted frame the clip is decoded from the last key frame before it, and the decoder skips what
nothing depends on. That trusts the packet list. `shown_order` says when the list cannot be trusted;
`NotAsPlannedError` says that what came out contradicts it. In both cases the clip is decoded in order instead
(`inorder`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.container import open_video
from videop2r_data.media.geometry import uniform_indices
from videop2r_data.media.packets import KEEP_BYTES, PacketIndex, read_packets
from videop2r_data.media.sampled import Sampled
from videop2r_data.media.scaler import Scaler
from videop2r_data.media.timing import display_order, timing
from videop2r_data.schemas.recipe import MediaSpec

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from videop2r_data.media.packets import VideoPacket

SAMPLER = "pyav-gop/1"

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
    missing: float,
) -> Sampled:
    """Take the frames out of their groups of pictures.

    Args:
        path: for reading a large clip a second time.
        spec: sampling settings.
        stream: of an open container, nothing decoded from it yet.
        index: its packets.
        order: from `shown_order`.
        missing: share of the clip that is not there.

    Raises:
        NotAsPlannedError: the clip must be decoded in order.
        MediaError: `media_too_large`.
    """
    pts = _known(index)
    indices = uniform_indices(len(order), spec.frames)
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
    made = timing([pts[at] for at in order], indices, index.clock, index.last_duration)
    return Sampled(
        array=scaler.array,
        indices=tuple(indices),
        times_s=made.times_s,
        total=len(order),
        fps=made.fps,
        duration_s=made.duration_s,
        width=scaler.source[1],
        height=scaler.source[0],
        sampler=SAMPLER,
        times=made.kind,
        missing=missing,
    )


def _reread(packets: Iterable[VideoPacket], runs: list[Run]) -> Iterator[tuple[Run, list[VideoPacket]]]:
    """Hand out the packets of each run while the file is read once more; holds one run at a time."""
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
    """Decodes runs and converts what is wanted; `slots` says where a frame with this pts goes."""

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
                continue  # Shown before the key frame, needs the group before it: not what we came for.
            if frame.is_corrupt or frame.pts <= last:
                # What a damaged frame is referred to by is damaged too, and nothing marks it.
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
        # The decoder leaves out pictures that no other one needs: that changes no other picture.
        context.skip_frame = "DEFAULT" if packet is not None and packet.pts in wanted else "NONREF"
        try:
            frames = context.decode(packet)
        except MemoryError:
            raise
        except (av.FFmpegError, ValueError, OSError):
            raise NotAsPlannedError from None
        yield from frames
