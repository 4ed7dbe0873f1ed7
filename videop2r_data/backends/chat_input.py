"""Frames and messages as the chat templates and processors of Hugging Face models take them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, TypedDict

from videop2r_data.errors import BackendError
from videop2r_data.schemas import Frames, MediaRecord, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Metadata that keeps a processor from sampling the frames again and from guessing their times.


FIXED_SIZE = {"shortest_edge": 1, "longest_edge": 2**31 - 1}
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


_MILLISECONDS = 1000.0
_MICROSECONDS = 1_000_000.0
_TOLERANCE_S = 0.002
"""Farthest that `index / rate` may be off: containers round timestamps to milliseconds (mkv, webm, flv)."""


def video_metadata(record: MediaRecord) -> VideoMetadata:
    """Metadata of a sampled clip.

    Models compute the time of a frame as `index / fps`. At a constant rate these are the source's own indices
    and the rate that puts the last sampled frame at its true time. Where the rate varies no rate puts every
    frame right: the clip is then described in milliseconds, as if it had a frame for each of them, so that
    `index / fps` is each frame's own time (Qwen3-VL writes it into the prompt) and the average stays true
    (Qwen2.5-VL spaces its grid evenly by `total_num_frames / fps` over the number of frames).

    >>> clip = MediaRecord(data_type="video", frames_sha256="0", count=2, width=28, height=28,
    ...     indices=(0, 50), times_s=(0.0, 2.0), source_fps=24.0, source_frames=51,
    ...     source_width=28, source_height=28,
    ...     file_sha256="0", file_bytes=1, sampler="doc/1")
    >>> video_metadata(clip)["fps"]
    25.0
    >>> update = {"indices": (0, 1, 2), "times_s": (0.0, 0.5, 2.0), "source_frames": 3}
    >>> varied = clip.model_copy(update=update)
    >>> video_metadata(varied)["fps"], video_metadata(varied)["frames_indices"]
    (1000.0, [0, 500, 2000])
    """
    record = record.seen
    total = max(record.source_frames, record.indices[-1] + 1)
    fps = _rate(record, total)
    duration = record.duration_s if record.duration_s else total / fps
    indices = list(record.indices)
    if _varies(record, fps):
        indices, fps = _by_time(record.times_s)
        total = max(round(duration * fps), indices[-1] + 1)
    return {"fps": fps, "duration": float(duration), "total_num_frames": total, "frames_indices": indices}


def _varies(record: MediaRecord, fps: float) -> bool:
    """Whether `index / fps` misses the true time of a sampled frame."""
    pairs = zip(record.indices, record.times_s, strict=True)
    return any(abs(index / fps - time_s) > _TOLERANCE_S for index, time_s in pairs)


def _by_time(times_s: tuple[float, ...]) -> tuple[list[int], float]:
    """Indices of which `index / rate` is each time, and that rate: milliseconds, or finer where two meet."""
    indices = [round(time_s * _MILLISECONDS) for time_s in times_s]
    if len(set(indices)) == len(indices):
        return indices, _MILLISECONDS
    return [round(time_s * _MICROSECONDS) for time_s in times_s], _MICROSECONDS


def _rate(record: MediaRecord, total: int) -> float:
    """Frames per second: from the sampled times, else the container, else the duration, else 1."""
    if record.indices[-1] > 0 and record.times_s[-1] > 0:
        return record.indices[-1] / record.times_s[-1]
    if record.source_fps:
        return record.source_fps
    if record.duration_s:
        return total / record.duration_s
    return 1.0


def chat_messages(request: Request, frames: Frames | None) -> list[dict[str, Any]]:
    """Messages for a chat template: plain text, or a media placeholder before the text."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        content: Any = message.text
        if message.media and frames is not None:
            content = [{"type": frames.record.data_type}, {"type": "text", "text": message.text}]
        messages.append({"role": message.role, "content": content})
    return messages


def frames_array(frames: Frames) -> NDArray[np.uint8]:
    """The frames as uint8 [T, H, W, 3].

    Raises:
        BackendError: they are there in encoded form only.
    """
    if frames.array is None:
        raise BackendError("a model in this process needs the frames as an array, got encoded ones only")
    return frames.array


def vllm_prompt(text: str, frames: Frames | None) -> dict[str, Any]:
    """A rendered chat and its frames as vLLM's prompt dictionary.

    Raises:
        BackendError: the frames are there in encoded form only.
    """
    if frames is None:
        return {"prompt": text}
    array = frames_array(frames)
    media: dict[str, Any]
    if frames.record.data_type == "video":
        about = {**video_metadata(frames.record), "do_sample_frames": False, "video_backend": "none"}
        media = {"video": [(array, about)]}
    else:
        from PIL import Image

        media = {"image": [Image.fromarray(array[0])]}
    return {"prompt": text, "multi_modal_data": media, "mm_processor_kwargs": {"size": FIXED_SIZE}}


# Rotary positions of text behind a clip, in transformers, as Qwen's models were trained with.
#
# Qwen2-VL and Qwen2.5-VL go on from the highest position of a picture or clip on any axis, time included:
# so they were trained, and so vLLM does. transformers (5.19 to 5.23 read) goes on from the sides of a frame
# alone: text behind a long clip gets positions that its frames already have.
#
# The times of the frames are multiplied in double precision, as vLLM does: a product at a whole number would
# else round to the other side.


def number_behind_clips(net: Any) -> None:
    """Correct the positions that a loaded Qwen model gives its prompts; other models are left as they are.

    Where the library is right, or becomes it, nothing changes: every shift below is then 0.
    """
    inner = getattr(net, "model", None)
    original = getattr(inner, "get_rope_index", None)
    if net.config.model_type not in ("qwen2_vl", "qwen2_5_vl") or original is None:
        return

    def get_rope_index(input_ids: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The library's positions, each video's shifted to where its own rule puts them."""
        seconds = kwargs.get("second_per_grid_ts")
        if seconds is not None:
            kwargs["second_per_grid_ts"] = seconds.double()
        positions, deltas = original(input_ids, *args, **kwargs)
        kinds = kwargs.get("mm_token_type_ids")
        if kinds is None:
            return positions, deltas
        mask = kwargs.get("attention_mask")
        for row in range(input_ids.shape[0]):
            real = slice(None) if mask is None else mask[row].bool()
            part = positions[:, row, real]
            deltas[row] = _renumber(part, kinds[row, real].tolist())
            positions[:, row, real] = part
        return positions, deltas

    inner.get_rope_index = get_rope_index  # type: ignore[union-attr]


def _renumber(positions: Any, kinds: list[int]) -> int:
    """Shift every run of tokens behind the highest position before it.

    Args:
        positions: (3, tokens) of one prompt without padding: time, height, width; changed in place.
        kinds: for each token 0 for text, 1 for an image, 2 for a video.

    Returns:
        How far the next position is beyond the number of tokens.
    """
    start = following = 0
    for _, run in groupby(kinds):
        end = start + len(list(run))
        part = positions[:, start:end]
        part += following - int(part.min())
        start, following = end, int(part.max()) + 1
    return following - len(kinds)
