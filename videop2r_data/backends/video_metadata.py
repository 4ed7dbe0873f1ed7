"""What a video model must know about sampled frames, so that it neither samples again nor guesses times."""

from __future__ import annotations

from typing import TypedDict

from videop2r_data.schemas.calls import MediaRecord

MIN_PIXELS = 1
MAX_PIXELS = 2**31 - 1
"""Size limits that never bind: the frames already have the recipe's size; a second resize would undo it."""


class VideoMetadata(TypedDict):
    """The fields that vLLM and transformers know a video by.

    `fps` is frames per second of the *source*, `duration` seconds, `frames_indices` the index of each sampled
    frame in it, `total_num_frames` how many frames it has.
    """

    fps: float
    duration: float
    total_num_frames: int
    frames_indices: list[int]


def video_metadata(record: MediaRecord) -> VideoMetadata:
    """Metadata of a sampled clip.

    Models compute the time of a frame as `index / fps`. The rate is the one that puts the last sampled frame
    at its true presentation time, which also serves variable rates and containers that state no rate.

    >>> clip = MediaRecord(data_type="video", frames_sha256="0", count=2, width=28, height=28,
    ...     indices=(0, 50), times_s=(0.0, 2.0), source_fps=24.0, source_frames=51,
    ...     source_width=28, source_height=28,
    ...     file_sha256="0", file_bytes=1, sampler="doc/1")
    >>> video_metadata(clip)["fps"]
    25.0
    """
    total = max(record.source_frames, record.indices[-1] + 1)
    fps = _rate(record, total)
    duration = record.duration_s if record.duration_s else total / fps
    return {
        "fps": fps,
        "duration": float(duration),
        "total_num_frames": total,
        "frames_indices": list(record.indices),
    }


def _rate(record: MediaRecord, total: int) -> float:
    """Frames per second: from the sampled times, else the container, else the duration, else 1."""
    if record.indices[-1] > 0 and record.times_s[-1] > 0:
        return record.indices[-1] / record.times_s[-1]
    if record.source_fps:
        return record.source_fps
    if record.duration_s:
        return total / record.duration_s
    return 1.0
