"""Clips of known content, written with PyAV, and a plain in-order decoder to compare with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from videop2r_data.media import smart_resize
from videop2r_data.schemas.media import MediaSpec

EXACT = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)


def picture(i: int, width: int, height: int) -> NDArray[np.uint8]:
    """Frame i: a gradient that moves, so that no two frames are alike."""
    y, x = np.mgrid[0:height, 0:width]
    red = (x * 2 + i * 7) % 256
    green = (y * 3 + i * 5) % 256
    blue = ((x + y) + i * 11) % 256
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1 gives to the thread that encodes, where that is root's.

    Every program that a test starts from there would inherit it: a browser of such priority leaves no time to
    anybody else, the test that waits for it among them.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


@ordinary_priority()
def write_clip(
    path: Path,
    *,
    frames: int = 48,
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    rate: int = 24,
    gop: int = 12,
    b_frames: int = 2,
    pts: list[int] | None = None,
    rotation: int | None = None,
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """A clip of `frames` pictures; `pts` in units of 1/1000 s makes the frame rate variable."""
    width, height = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=codec_options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size = gop
        if codec in {"libx264", "mpeg4"}:
            stream.codec_context.max_b_frames = b_frames
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(i, width, height), format="rgb24").reformat(
                format=pix_fmt
            )
            if pts is not None:
                frame.pts, frame.time_base = pts[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        for packet in stream.encode(None):
            # x265 loses a time of a single frame, or both, once in a long while, and no muxer takes that
            if frames == 1:
                packet.pts = packet.dts = pts[0] if pts else 0
            container.mux(packet)
    return path


def write_audio(path: Path) -> Path:
    """A quarter of a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        for i in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, i * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def damage_slices(path: Path, packets: range) -> Path:
    """Overwrite the inside of coded pictures (positions in file order); every length and header stays whole."""
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for at in packets:
        start, size = places[at]
        assert start is not None
        unit = int.from_bytes(data[start : start + 4], "big")
        low, high = start + min(12, size), start + 4 + unit - 2
        data[low:high] = bytes(255 - b for b in data[low:high])
    path.write_bytes(data)
    return path


def cut(path: Path, target: Path, share: float) -> Path:
    """The first `share` of the bytes."""
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def decode_in_order(path: Path) -> tuple[list[av.VideoFrame], int]:
    """Every frame that decodes, in the decoder's order, and the number of packets that do not decode."""
    frames: list[av.VideoFrame] = []
    bad = 0
    with av.open(str(path), metadata_errors="replace") as container:
        stream = max(container.streams.video, key=lambda s: s.codec_context.width * s.codec_context.height)
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
        for packet in container.demux(stream):
            try:
                frames.extend(packet.decode())
            except av.FFmpegError:
                bad += 1
    return frames, bad


def to_array(frame: av.VideoFrame, spec: MediaSpec) -> NDArray[np.uint8]:
    """One frame as the sampler should give it: scaled as stored, then laid out as its display matrix says."""
    a, b, c, d = _matrix(frame)
    swapped = abs(b) > abs(a)
    tall, wide = (frame.width, frame.height) if swapped else (frame.height, frame.width)
    height, width = smart_resize(
        tall, wide, factor=spec.factor, min_pixels=spec.min_pixels, max_pixels=spec.max_pixels
    )
    if swapped:
        height, width = width, height
    scaled = frame.reformat(width=width, height=height, format="gbrp", interpolation=EXACT, threads=1)
    array: NDArray[np.uint8] = np.asarray(scaled.to_ndarray(), dtype=np.uint8)
    if swapped:
        array = array.swapaxes(0, 1)
    # A pixel at (p, q) is shown at (a p + c q, b p + d q): a negative factor runs the other way.
    to_left, to_top = ((c < 0), (b < 0)) if swapped else ((a < 0), (d < 0))
    return array[:: -1 if to_top else 1, :: -1 if to_left else 1]


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    found: Any = frame.side_data
    for data in (found[at] for at in range(len(found))):
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = np.frombuffer(memoryview(data), np.int32).tolist()
            return (a, b, c, d) if (a or b) and (c or d) else (1, 0, 0, 1)
    return (1, 0, 0, 1)
