"""N frames with decord (`decoder: decord`): for comparison with data made elsewhere; PyAV is the default.

decord repeats frames on damaged files, and knows neither AV1 nor GIF nor every MPEG-TS. The container is
therefore looked at with PyAV first, and timestamps that do not rise are an error instead of repeated frames.
"""

from __future__ import annotations

from pathlib import Path

from videop2r_data.errors import MissingExtraError
from videop2r_data.media.completeness import check_complete
from videop2r_data.media.container import media_error, open_video
from videop2r_data.media.geometry import smart_resize, uniform_indices
from videop2r_data.media.packets import read_index
from videop2r_data.media.sampled import Sampled
from videop2r_data.schemas.recipe import MediaSpec
from videop2r_data.schemas.verdict import RejectReason

SAMPLER = "decord/1"


def require_decord() -> None:
    """Say early that decord is not here.

    Raises:
        MissingExtraError: with the line that installs it.
    """
    from importlib.util import find_spec

    if find_spec("decord") is None:
        raise MissingExtraError("decord", "decord")


def sample_decord(path: Path, spec: MediaSpec) -> Sampled:
    """Take `spec.frames` uniformly spaced frames with decord.

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
        size = smart_resize(
            tall, wide, factor=spec.factor, min_pixels=spec.min_pixels, max_pixels=spec.max_pixels
        )
        reader = decord.VideoReader(str(path), height=size[0], width=size[1], num_threads=1)
        indices = uniform_indices(len(reader), spec.frames)
        array = reader.get_batch(indices).asnumpy()
        stamps = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
        rate = float(reader.get_avg_fps())
    except MemoryError:
        raise
    except (decord.DECORDError, RuntimeError, OSError, ValueError, IndexError) as error:
        text = str(error).strip().splitlines()
        raise media_error(
            RejectReason.MEDIA_UNREADABLE, f"decord cannot read it: {text[-1] if text else error}", path
        ) from None
    starts = stamps[:, 0]
    if not np.isfinite(stamps).all() or (np.diff(starts) <= 0).any():
        raise media_error(
            RejectReason.MEDIA_BAD_PACKETS,
            "decord gives timestamps that do not rise: it would repeat frames; use decoder: pyav",
            path,
        )
    return Sampled(
        array=np.ascontiguousarray(array, dtype=np.uint8),
        indices=tuple(indices),
        times_s=tuple(round(float(starts[i] - starts[0]), 6) for i in indices),
        total=len(reader),
        fps=round(rate, 6) if np.isfinite(rate) and rate > 0 else None,
        duration_s=round(float(stamps[-1, 1] - starts[0]), 6),
        width=wide,
        height=tall,
        sampler=SAMPLER,
        times="exact",
        missing=missing,
    )
