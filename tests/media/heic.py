"""A HEIC picture, put together box by box around one HEVC frame."""

from __future__ import annotations

import struct
from pathlib import Path

import av

from tests.media.clips import write_clip


def write_heic(path: Path, size: tuple[int, int] = (128, 96), *, turned: bool = False) -> Path:
    """Frame 0 of `clips.picture` as a phone writes it; `turned`: stored on its side, to be turned back."""
    clip = write_clip(
        path.with_suffix(".mkv"),
        frames=1,
        size=size,
        codec="libx265",
        pts=[0],
        # One thread: a flushed frame of several came without its time once in a long while, and no muxer takes that.
        codec_options={"x265-params": "log-level=none:crf=4:pools=none:frame-threads=1"},
    )
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        sets = stream.codec_context.extradata or b""
        coded = b"".join(bytes(p) for p in container.demux(stream))
    properties = box(b"hvcC", sets) + full(b"ispe", struct.pack(">II", *size))
    if turned:
        properties += box(b"irot", b"\1")  # a quarter counter-clockwise
    uses = bytes((0x81, 2, 3)) if turned else bytes((0x81, 2))
    entry = full(b"infe", struct.pack(">HH4s", 1, 0, b"hvc1") + b"\0", version=2)

    def meta(offset: int) -> bytes:
        place = struct.pack(">BBHHHHII", 0x44, 0, 1, 1, 0, 1, offset, len(coded))
        parts = (
            full(b"hdlr", struct.pack(">I4s12x", 0, b"pict") + b"\0"),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iloc", place),
            full(b"iinf", struct.pack(">H", 1) + entry),
            box(
                b"iprp", box(b"ipco", properties) + full(b"ipma", struct.pack(">IHB", 1, 1, len(uses)) + uses)
            ),
        )
        return full(b"meta", b"".join(parts))

    head = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + box(b"mdat", coded))
    return path


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO-BMFF."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full(kind: bytes, content: bytes, version: int = 0) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", version << 24) + content)
