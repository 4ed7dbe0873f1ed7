"""N frames out of a clip: checked for completeness, decoded the fast way where it is sure, else in order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videop2r_data.errors import MissingExtraError
from videop2r_data.media.container import Layout, layout_of, open_video
from videop2r_data.media.decode import NotAsPlannedError, sample_in_order, sample_runs, shown_order
from videop2r_data.media.geometry import Sampled, choose, fitted, media_error
from videop2r_data.media.packets import read_index, read_table
from videop2r_data.media.timing import Timing
from videop2r_data.schemas import WHOLE, Focus, MediaLimits, MediaSpec, RejectReason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from videop2r_data.media.packets import PacketIndex


# What a container promises (frames, seconds, bytes) held against the packets that are there.


_SLACK_S = 0.5
"""A header's duration is that of the longest stream, rounded."""
_GAP_STEPS = 3


class _Shortfall(NamedTuple):
    share: float
    message: str
    cut: bool


def check_complete(
    container: InputContainer, stream: VideoStream, index: PacketIndex, path: Path, limits: MediaLimits
) -> float:
    """Compare what the container promises with the packets that are there.

    A clip that lacks more than `limits.max_missing` is refused even though its rest decodes: its question was
    asked about the whole clip, and "uniform over what is left" shows other moments.

    Returns:
        Share of the clip that is missing, 0 to 1; at least, where nothing says how much was to come.

    Raises:
        MediaError: `media_truncated` when the file ends early, `media_bad_packets` when it is damaged inside,
            `media_no_video` when there is no packet and none was promised, `media_unreadable` when another
            file is joined to it.
    """
    layout = layout_of(path)
    if layout.foreign:
        raise media_error(
            RejectReason.MEDIA_UNREADABLE,
            "a second file is joined to it, which no player shows right: take the two apart",
            path,
        )
    found = list(_shortfalls(container, stream, index, layout, path))
    allowed = limits.max_bad_packets if limits.max_missing is None else limits.max_missing
    too_much = [one for one in found if one.share > allowed]
    if too_much:
        # That the file ends early explains the rest.
        told = max(too_much, key=lambda one: (one.cut, one.share))
        reason = RejectReason.MEDIA_TRUNCATED if told.cut else RejectReason.MEDIA_BAD_PACKETS
        raise media_error(reason, told.message, path)
    if not index.pts:
        if layout.cut:
            raise media_error(RejectReason.MEDIA_TRUNCATED, "cut short before its first frame", path)
        raise media_error(RejectReason.MEDIA_NO_VIDEO, "its video stream holds no frame", path)
    if layout.cut and allowed < 1 and not _end_is_known(container, stream, layout):
        raise media_error(
            RejectReason.MEDIA_TRUNCATED,
            f"breaks off in the middle after {len(index.pts)} frames, and nothing says how many were to come "
            "(limits.max_missing: 1 accepts it)",
            path,
        )
    return round(max((one.share for one in found), default=0.0), 6)


def _shortfalls(
    container: InputContainer, stream: VideoStream, index: PacketIndex, layout: Layout, path: Path
) -> Iterator[_Shortfall]:
    found = len(index.pts)
    promised = _promised(container, stream, layout)
    if promised > found:
        cut = layout.cut or _table_leaves_file(container, stream, path)
        message = f"its header promises {promised} frames, {found} can be read"
        yield _Shortfall((promised - found) / promised, message, cut)
    if not found:
        return
    if index.corrupt:
        message = f"{len(index.corrupt)} of {found} packets are damaged"
        yield _Shortfall(len(index.corrupt) / found, message, False)
        yield _gaps(index)
    if promised <= 0:
        if layout.lost:
            message = f"{layout.lost} of {layout.whole} bytes are not there or belong to no part of the file"
            yield _Shortfall(layout.share, message, layout.cut)
        if layout.cut:
            yield from _seconds(container, stream, index)


def _promised(container: InputContainer, stream: VideoStream, layout: Layout) -> int:
    """Frames that the header promises, 0 if it does not say.

    The count in an ivf header is often wrong; it is believed only where the file breaks off.
    """
    return 0 if container.format.name == "ivf" and not layout.cut else stream.frames


def _end_is_known(container: InputContainer, stream: VideoStream, layout: Layout) -> bool:
    if container.format.name == "gif":
        return False  # A gif states no number of frames: they are counted.
    if layout.counted or _promised(container, stream, layout) > 0:
        return True
    # A fragmented mp4's duration is that of the fragments that are there.
    return container.duration is not None and not container.format.name.startswith("mov,")


def _table_leaves_file(container: InputContainer, stream: VideoStream, path: Path) -> bool:
    """Whether an mp4's sample table points beyond the end of the file."""
    if not container.format.name.startswith("mov,"):
        return False
    size = path.stat().st_size
    return any(entry.pos + entry.size > size for entry in stream.index_entries)


def _seconds(container: InputContainer, stream: VideoStream, index: PacketIndex) -> Iterator[_Shortfall]:
    """Does a cut clip end long before its header says? (A short video beside a long sound is no fault.)"""
    known = [p for p in index.pts if p is not None]
    if container.duration is None or stream.time_base is None or not known:
        return
    start = container.start_time or 0
    end = float(max(known) * stream.time_base) - start / 1e6
    promised = container.duration / 1e6
    if promised - end > _SLACK_S:
        message = f"its header promises {promised:.2f} s, the video ends after {end:.2f} s"
        yield _Shortfall((promised - end) / promised, message, True)


def _gaps(index: PacketIndex) -> _Shortfall:
    """Time that is missing beside damaged packets: a hole in a transport stream."""
    stamps = sorted({p for p in index.pts if p is not None})
    steps = sorted(b - a for a, b in pairwise(stamps))
    if not steps:
        return _Shortfall(0.0, "", False)
    step = steps[(len(steps) - 1) // 2]
    beside: set[int] = set()
    for at in index.corrupt:
        stamp = index.pts[at]
        if stamp is not None:
            place = bisect_left(stamps, stamp)
            beside.update(range(max(0, place - 2), min(len(stamps) - 1, place + 2)))
    wide = [stamps[i + 1] - stamps[i] - step for i in sorted(beside)]
    lost = sum(gap for gap in wide if gap > _GAP_STEPS * step)
    span = stamps[-1] - stamps[0] + step
    message = f"{100 * lost / span:.1f} % of its time is missing beside damaged packets"
    return _Shortfall(lost / span, message, False)


# Sampling with PyAV.


def checked_index(
    container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits
) -> tuple[PacketIndex, float]:
    """The packets of a clip, by its own table if that can be used, and the share of it that is missing.

    Raises:
        MediaError: as `check_complete`; `media_too_large`, `media_encrypted`.
    """
    index = read_table(container, stream, path, limits) or read_index(container, stream, path, limits)
    return index, check_complete(container, stream, index, path, limits)


def sample_video(path: Path, spec: MediaSpec, focus: Focus = WHOLE) -> Sampled:
    """Take the frames that `choose` says.

    Which way is taken depends on the file and the settings alone, and both give the same frames wherever
    every packet decodes.

    Raises:
        MediaError: see `container.open_video`, `check_complete` and `decode.sample_in_order`.
    """
    pick = partial(choose, spec, focus, path=path)
    with open_video(path, spec.limits) as (container, stream):
        index, missing = checked_index(container, stream, path, spec.limits)
        order = shown_order(index, stream.codec_context.codec.name)
        if order is not None and not spec.limits.decode_all:
            try:
                return sample_runs(path, spec, stream, index, order, pick=pick, missing=missing)
            except NotAsPlannedError:
                pass
    return sample_in_order(path, spec, pick, index=index, missing=missing)


# N frames with decord (`decoder: decord`): for comparison with data made elsewhere; PyAV is the default.
#
# decord repeats frames on damaged files, and knows neither AV1 nor GIF nor every MPEG-TS. The container is
# therefore looked at with PyAV first, and timestamps that do not rise are an error instead of repeated
# frames.


SAMPLER_DECORD = "decord/1"


def require_decord() -> None:
    """Check that decord is installed, before any process is started.

    Raises:
        MissingExtraError: with the line that installs it.
    """
    from importlib.util import find_spec

    if find_spec("decord") is None:
        raise MissingExtraError("decord", "decord")


def sample_decord(path: Path, spec: MediaSpec, focus: Focus = WHOLE) -> Sampled:
    """Take the frames that `choose` says with decord.

    Raises:
        MissingExtraError: decord is not installed.
        MediaError: what the PyAV look at the file raises; `media_unreadable` when decord cannot read it;
            `media_bad_packets` when it repeats frames.
    """
    require_decord()
    import decord
    import numpy as np

    with open_video(path, spec.limits) as (container, stream):
        index = read_index(container, stream, path, spec.limits)
        missing = check_complete(container, stream, index, path, spec.limits)
    try:
        probe = decord.VideoReader(str(path), num_threads=1)
        tall, wide = probe[0].shape[:2]
        height, width = fitted(tall, wide, spec)
        reader = decord.VideoReader(str(path), height=height, width=width, num_threads=1)
        stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
        rate = float(reader.get_avg_fps())
        starts = stamps[:, 0]
        fps = round(rate, 6) if np.isfinite(rate) and rate > 0 else None

        def timing_of(indices: Sequence[int]) -> Timing:
            times = tuple(round(float(starts[i] - starts[0]), 6) for i in indices)
            return Timing(times, fps, round(float(stamps[-1, 1] - starts[0]), 6), "exact")

        indices, part = choose(spec, focus, len(reader), timing_of, path)
        array = reader.get_batch(indices).asnumpy()
    except MemoryError:
        raise
    except (decord.DECORDError, RuntimeError, OSError, ValueError, IndexError) as error:
        text = str(error).strip().splitlines()
        raise media_error(
            RejectReason.MEDIA_UNREADABLE, f"decord cannot read it: {text[-1] if text else error}", path
        ) from None
    if not np.isfinite(stamps).all() or (np.diff(starts) <= 0).any():
        raise media_error(
            RejectReason.MEDIA_BAD_PACKETS,
            "decord gives timestamps that do not rise: it would repeat frames; use decoder: pyav",
            path,
        )
    return Sampled(
        array=np.ascontiguousarray(array, dtype=np.uint8),
        indices=tuple(indices),
        timing=timing_of(indices),
        total=len(reader),
        source=(tall, wide),
        sampler=SAMPLER_DECORD,
        missing=missing,
        part=part,
    )
