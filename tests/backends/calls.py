"""Requests and frames for the tests of the backends."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videop2r_data.schemas.calls import Frames, MediaRecord, Message, Request, SamplingParams


def request(
    text: str,
    *,
    system: str | None = None,
    frames: Frames | None = None,
    max_tokens: int = 64,
    params: SamplingParams | None = None,
    model: str = "some/model",
) -> Request:
    messages = [Message("system", system)] if system else []
    messages.append(Message("user", text, media=frames is not None))
    return Request(
        purpose="generate",
        model=model,
        messages=tuple(messages),
        params=params or SamplingParams(max_tokens=max_tokens),
        media=frames.record if frames else None,
        media_encoding="jpeg-95" if frames else "",
    )


def _frames(array: NDArray[np.uint8], *, kind: str, fps: float | None, every: int) -> Frames:
    count, height, width = array.shape[:3]
    indices = tuple(i * every for i in range(count))
    encoded = []
    for picture in array:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=95)
        encoded.append(buffer.getvalue())
    record = MediaRecord(
        data_type="video" if kind == "video" else "image",
        frames_sha256=hashlib.sha256(array.tobytes()).hexdigest(),
        count=count,
        width=width,
        height=height,
        indices=indices,
        times_s=tuple(i / fps if fps else 0.0 for i in indices),
        source_fps=fps,
        source_frames=indices[-1] + 1,
        source_width=width,
        source_height=height,
        file_sha256="0" * 64,
        file_bytes=1,
        sampler="test/1",
    )
    return Frames(record, array=array, encoded=tuple(encoded))


def clip_frames(
    count: int, *, height: int = 56, width: int = 56, fps: float = 8.0, every: int = 1, seed: int = 0
) -> Frames:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return _frames(array, kind="video", fps=fps, every=every)


def image_frames(*, height: int = 56, width: int = 56, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return _frames(array, kind="image", fps=None, every=1)
