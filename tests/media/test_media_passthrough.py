"""A picture goes out as its own bytes only if they say its pixels and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from videop2r_data.media import frames_digest, sample_media
from videop2r_data.media import worker as wire
from videop2r_data.media.image import own_bytes
from videop2r_data.schemas.calls import Frames
from videop2r_data.schemas.media import MediaSpec

SPEC = MediaSpec(passthrough=True)
SIZE = (56, 84)


def noise(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    picture = Image.effect_noise(size, 60).convert("RGB")
    picture.paste((200, 10, 10), (0, 0, 20, 20))
    return picture.convert(mode)


def file(folder: Path, picture: Image.Image, kind: str = "JPEG", **options: Any) -> Path:
    path = folder / f"a.{kind.lower()}"
    picture.save(path, kind, **options)
    return path


def sampled(path: Path, spec: MediaSpec = SPEC) -> Frames:
    return sample_media(path, "image", spec, want="encoded")


PASS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {"quality": 60}),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True, "dpi": (300, 300)}),
    ("JPEG", {"optimize": True}),
    ("PNG", {}),
    ("PNG", {"dpi": (72, 72), "compress_level": 9}),
]


@pytest.mark.parametrize(("kind", "options"), PASS)
@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_a_plain_picture_of_the_right_size_goes_out_as_it_is(
    tmp_path: Path, kind: str, options: dict[str, Any], encoding: Any
) -> None:
    path = file(tmp_path, noise(), kind, **options)
    spec = SPEC.model_copy(update={"encoding": encoding})
    frames = sampled(path, spec)
    assert frames.encoded == (path.read_bytes(),) and frames.mime == f"image/{kind.lower()}"
    assert frames.record.passthrough and spec.wire_of(frames.record.passthrough) == "source"
    seen = np.asarray(Image.open(io.BytesIO(frames.encoded[0])))[None]
    assert frames_digest(seen) == frames.record.frames_sha256, "the digest is that of what the model sees"
    record = frames.record.model_dump(mode="json")
    assert wire.frames_of({"record": record}, list(frames.encoded), spec, "encoded") == frames


def exif(**tags: Any) -> bytes:
    found = Image.Exif()
    for tag, value in tags.items():
        found[{"orientation": 0x0112, "maker": 0x010F}[tag]] = value
    return found.tobytes()


def profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def texts() -> PngInfo:
    found = PngInfo()
    found.add_text("where", "48.2 N 16.4 E")
    return found


ENCODE: list[tuple[str, str, tuple[int, int], dict[str, Any]]] = [
    ("JPEG", "RGB", (57, 84), {}),
    ("JPEG", "RGB", (1120, 1120), {}),
    ("JPEG", "L", SIZE, {}),
    ("JPEG", "CMYK", SIZE, {}),
    ("JPEG", "RGB", SIZE, {"exif": exif(orientation=6)}),
    ("JPEG", "RGB", SIZE, {"exif": exif(maker="somebody")}),
    ("JPEG", "RGB", SIZE, {"icc_profile": b""}),
    ("JPEG", "RGB", SIZE, {"comment": b"hello"}),
    ("JPEG", "RGB", SIZE, {"xmp": b"<x/>"}),
    ("PNG", "RGBA", SIZE, {}),
    ("PNG", "P", SIZE, {}),
    ("PNG", "L", SIZE, {}),
    ("PNG", "RGB", SIZE, {"transparency": (200, 10, 10)}),
    ("PNG", "RGB", SIZE, {"pnginfo": None}),
    ("PNG", "RGB", SIZE, {"icc_profile": b""}),
    ("WEBP", "RGB", SIZE, {"lossless": True}),
    ("BMP", "RGB", SIZE, {}),
]


@pytest.mark.parametrize(("kind", "mode", "size", "options"), ENCODE)
def test_any_other_picture_is_encoded_as_it_is_without_the_setting(
    tmp_path: Path, kind: str, mode: str, size: tuple[int, int], options: dict[str, Any]
) -> None:
    options = {k: profile() if k == "icc_profile" else v for k, v in options.items()}
    options = {k: texts() if k == "pnginfo" else v for k, v in options.items()}
    path = file(tmp_path, noise(mode, size), kind, **options)
    frames, plain = sampled(path), sampled(path, MediaSpec())
    assert frames.record.passthrough is False and plain.record.passthrough is None
    assert frames.encoded == plain.encoded and frames.mime == "image/jpeg"
    assert SPEC.wire_of(frames.record.passthrough) == "jpeg-95" == MediaSpec().wire
    assert frames.record.model_copy(update={"passthrough": None}) == plain.record


def png(depth: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """An RGB PNG of 56 x 56 written by hand, with further chunks behind the pixels."""
    row = b"\0" + bytes(56 * 3 * depth // 8)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 56, 56, depth, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 56)),
    ]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in [*parts, *chunks, (b"IEND", b"")]:
        data += struct.pack(">I", len(content)) + kind + content
        data += struct.pack(">I", zlib.crc32(kind + content))
    return data


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (png(8), True),
        (png(16), False),
        (png(8, (b"tEXt", b"where\x00here")), False),
        (png(8, (b"eXIf", exif(orientation=6)[6:])), False),
        (png(8) + b"more", False),
    ],
    ids=["plain", "16 bits", "text", "turned", "more"],
)
def test_what_lies_behind_the_pixels_counts(tmp_path: Path, data: bytes, passes: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert sampled(path).record.passthrough is passes


def test_bytes_behind_the_end_of_a_jpeg_are_not_sent(tmp_path: Path) -> None:
    path = file(tmp_path, noise())
    path.write_bytes(path.read_bytes() + b"a hidden archive")
    assert sampled(path).record.passthrough is False


def test_a_file_that_changed_since_it_was_decoded_is_not_sent(tmp_path: Path) -> None:
    from videop2r_data.media.image import sample_image

    path = file(tmp_path, noise())
    taken, digest = sample_image(path, SPEC), sampled(path).record.file_sha256
    assert own_bytes(path, taken, digest) is not None
    noise().save(path, quality=50)
    assert own_bytes(path, taken, digest) is None


def test_settings_without_the_switch_are_what_they_were() -> None:
    """Digests of recipes, and locks, do not change for those who do not use it."""
    assert not {"passthrough", "buffer_mb"} & MediaSpec().model_dump(mode="json").keys()
    assert MediaSpec(passthrough=True, buffer_mb=64).model_dump(mode="json")["passthrough"] is True
