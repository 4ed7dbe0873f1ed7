"""Write a scene as a file, the same bytes every time: mp4 (display matrix), PNG (EXIF orientation)."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, cast

import numpy as np

from videop2r_data.demo.render import Picture, render_frames
from videop2r_data.demo.scene import Scene
from videop2r_data.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

_EXIF = {1: 6, 2: 3, 3: 8}
"""Quarter turns clockwise that a reader must apply -> EXIF orientation."""
_ORIENTATION = 0x0112
_X264 = {
    "qp": "16",
    "preset": "veryfast",
    "flags": "+bitexact",
    "bf": "2",
    "x264-params": "mbtree=0:b-adapt=0:rc-lookahead=0:scenecut=0:weightp=0",
}
"""Constant quantiser, fixed B-frames and no lookahead: with x264's macroblock tree the same frames came out
as other bytes in a few clips of a hundred, depending on what the process had encoded before."""


def media_bytes(scene: Scene) -> bytes:
    """The whole file of a video or image scene.

    Raises:
        ConfigError: a video with an odd side (4:2:0 needs an even one).
        MissingExtraError: PyAV has neither an H.264 nor an MPEG-4 encoder.
    """
    pixels = np.rot90(
        render_frames(scene), scene.turn, axes=(1, 2)
    )  # against the clock: the reader turns it back
    return _mp4(pixels, scene) if scene.medium == "video" else _png(pixels[0], scene.turn)


def _png(pixels: Picture, turn: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    if turn:
        exif[_ORIENTATION] = _EXIF[turn]
    out = io.BytesIO()
    image.save(out, format="PNG", exif=exif if turn else b"")
    return out.getvalue()


def _mp4(pixels: Picture, scene: Scene) -> bytes:
    import av

    if scene.side % 2:
        raise ConfigError(f"demo.side is {scene.side}: a clip needs an even side", where="demo.side")
    out, codec = io.BytesIO(), _encoder()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=scene.fps))
        stream.width, stream.height, stream.pix_fmt = scene.side, scene.side, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = _X264 if codec == "libx264" else {"flags": "+bitexact"}
        stream.codec_context.gop_size = max(2 * scene.fps, 2)
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return _with_matrix(out.getvalue(), scene.turn, scene.side)


def _encoder() -> str:
    import av

    for name in ("libx264", "libopenh264", "mpeg4"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise MissingExtraError("a video encoder (PyAV with H.264 or MPEG-4)", "dev")


def _with_matrix(data: bytes, turn: int, side: int) -> bytes:
    """Set the display matrix in the track header, as phones do [ISO/IEC 14496-12, tkhd, version 0]."""
    if not turn:
        return data
    at = data.index(b"tkhd") + 4
    if data[at] != 0:
        raise AssertionError("the muxer wrote a track header of another version")
    a, b, c, d, x, y = {
        1: (0, 1, -1, 0, side, 0),
        2: (-1, 0, 0, -1, side, side),
        3: (0, -1, 1, 0, 0, side),
    }[turn]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30)
    return data[: at + 40] + matrix + data[at + 76 :]
