"""Clips and pictures: containers of strangers, whole, edited or made up, looked at and sampled."""

from __future__ import annotations

import io
import math
import os
import tempfile
from functools import cache
from pathlib import Path

from tests.fuzz.target import RAW, Target, edited, must
from videop2r_data.errors import MediaError
from videop2r_data.media import probe_media, sample_media
from videop2r_data.schemas import MediaLimits, MediaSpec, RejectReason

_FOLDER = Path(tempfile.mkdtemp(prefix="p2r-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
LIMITS = MediaLimits(max_side=2048, max_packets=20_000, max_duration_s=3600)
SPEC = MediaSpec(frames=4, max_pixels=28 * 28 * 4, limits=LIMITS, passthrough=True, encoding="png")
_CLIPS = (
    ("mp4", "libx264"), ("frag.mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("ts", "mpeg2video"),
    ("flv", "flv"), ("webm", "libvpx"), ("mov", "mjpeg"), ("ivf", "libvpx-vp9"), ("gif", "gif"), ("nut", "libx264"),
    ("ogg", "libvpx"), ("apng", "apng"), ("asf", "mpeg4"), ("3gp", "libx264"), ("mpg", "mpeg2video"),
)  # fmt: skip
_PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF")


@cache
def bases() -> tuple[tuple[str, bytes], ...]:
    """Small clips and pictures of every kind, then those of P2R_FUZZ_MEDIA, a folder of one's own."""
    from tests.media.clips import write_clip
    from tests.media.heic import write_heic

    found = []
    for ending, codec in _CLIPS:
        path = _FOLDER / f"base.{ending}"
        options = {"movflags": "frag_keyframe+empty_moov"} if ending.startswith("frag") else None
        pixels = {"mjpeg": "yuvj420p", "gif": "rgb8", "apng": "rgb24"}.get(codec, "yuv420p")
        try:
            write_clip(
                path, frames=8, size=(64, 48), codec=codec, gop=4, pix_fmt=pixels, container_options=options
            )
            found.append((ending, path.read_bytes()))
        finally:
            path.unlink(missing_ok=True)
    found += [(name.lower(), _picture(name)) for name in _PICTURES]
    found.append(("heic", write_heic(_FOLDER / "base.heic", (64, 64)).read_bytes()))
    folder = os.environ.get("P2R_FUZZ_MEDIA")
    for path in sorted(Path(folder).iterdir()) if folder else ():
        if path.suffix != ".md" and path.stat().st_size < 400_000:
            found.append((path.name, path.read_bytes()))
    return tuple(found)


def _picture(name: str) -> bytes:
    from PIL import Image

    from tests.media.clips import picture

    Image.init()
    sink = io.BytesIO()
    made = Image.fromarray(picture(1, 64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    made.save(sink, name, **({"exif": exif} if name in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    return sink.getvalue()


def check(data: bytes) -> None:
    """The first byte: the rest is a file (0), or its second byte names a file that the rest edits."""
    if len(data) < 2:
        return
    if data[0] % 8 == 0:
        look(data[1:])
    else:
        _, base = bases()[data[1] % len(bases())]
        look(edited(base, data[2:]), deep=data[0] % 8 == 7)


def look(content: bytes, *, deep: bool = False) -> None:
    """Every reader of media over one file: a record that holds together, or a `MediaError` with its reason."""
    path = _FOLDER / "file"
    path.write_bytes(content)
    for kind in ("video", "image"):
        try:
            probe = probe_media(path, kind, LIMITS, deep=deep)
            must(probe.fps is None or (math.isfinite(probe.fps) and probe.fps > 0), "a rate", probe)
            must(probe.duration_s is None or 0 <= probe.duration_s < 10**9, "a duration", probe)
            must(max(probe.width, probe.height) <= LIMITS.max_side, "a size within the limits", probe)
        except MediaError as error:
            _told(error, path)
        try:
            frames = sample_media(path, kind, SPEC, want="array")
            record, array = frames.record, frames.array
            must(
                array is not None and array.shape == (record.count, record.height, record.width, 3),
                "shape",
                record,
            )
            must(
                1 <= record.count <= SPEC.frames and list(record.indices) == sorted(set(record.indices)),
                "indices",
                record,
            )
            must(
                len(record.times_s) == record.count and all(map(math.isfinite, record.times_s)),
                "times",
                record,
            )
            must(list(record.times_s) == sorted(record.times_s), "times rise", record)
            must(0 <= (record.missing or 0) <= 1, "missing", record)
        except MediaError as error:
            _told(error, path)


def _told(error: MediaError, path: Path) -> None:
    must(error.reason in list(RejectReason), "a known reason", error.reason)
    must(str(path) in (error.where or ""), "the error names the file", error.where, str(error))


def seeds() -> list[bytes]:
    """Every base as it is, with one edit, and cut."""
    found = []
    for n in range(len(bases())):
        found += [
            bytes([RAW, 1, n]) + edits
            for edits in (b"", b"\0\x40\0\0\0\xff", b"\7\xa0\2\0\0\1", b"\2\x30\0\0\x50\xff")
        ]
    return [*found, bytes([RAW, 7, 0]), *(bytes([RAW, 0]) + base for _, base in bases() if len(base) < 3000)]


TARGET = Target("probe", check, seeds, seconds=4.0, megabytes=1500, longest=4096)
