"""Pictures of every odd kind end as upright 8-bit RGB."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.clips import picture
from tests.media.heic import write_heic
from videop2r_data.errors import MediaError
from videop2r_data.media import probe_media, sample_media
from videop2r_data.media.image import load_image
from videop2r_data.schemas.media import MediaLimits, MediaSpec

LIMITS = MediaLimits()
RED, WHITE = [255, 0, 0], [255, 255, 255]


def save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def failure(path: Path, limits: MediaLimits = LIMITS) -> str:
    with pytest.raises(MediaError) as caught:
        load_image(path, limits)
    with pytest.raises(MediaError) as again:
        probe_media(path, "image", limits)
    assert caught.value.reason == again.value.reason
    return caught.value.reason


def test_exif_orientation(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), (0, 0, 0))
    picture.paste((255, 0, 0), (0, 0, 10, 10))  # red, top left
    # Orientation 6: turn clockwise to stand upright, so the top left corner ends top right.
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", picture, exif=exif)
    pixels = load_image(path, LIMITS)
    assert pixels.shape == (40, 20, 3)
    assert pixels[0, 19].tolist() == RED
    assert pixels[0, 0].tolist() == [0, 0, 0]
    probe = probe_media(path, "image", LIMITS)
    assert (probe.width, probe.height, probe.rotation, probe.container) == (20, 40, 270, "PNG")


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [(8, 1, struct.pack("<hh", -5, 0)), (2, 4, b"abc\0"), (12, 1, struct.pack("<d", 1e300))],
)
def test_an_exif_block_that_cannot_be_written_anew(
    tmp_path: Path, kind: int, count: int, value: bytes
) -> None:
    """A tag whose value does not fit its type: the picture is turned all the same, and the process lives."""
    tags = [(0x100, kind, count, value), (0x112, 3, 1, struct.pack("<I", 6))]
    block, behind = b"II*\0" + struct.pack("<IH", 8, len(tags)), b""
    for tag, type_, many, content in tags:
        field = content if len(content) == 4 else struct.pack("<I", 38 + len(behind))
        behind += content if len(content) > 4 else b""
        block += struct.pack("<HHI", tag, type_, many) + field
    exif = b"Exif\0\0" + block + bytes(4) + behind
    path = save(tmp_path / "a.jpg", Image.new("RGB", (40, 20)), exif=exif)
    assert load_image(path, LIMITS).shape == (40, 20, 3)
    assert probe_media(path, "image", LIMITS).rotation == 270


def test_colour_modes(tmp_path: Path) -> None:
    plain = Image.new("RGB", (30, 30), (255, 0, 0))
    assert load_image(save(tmp_path / "cmyk.tiff", plain.convert("CMYK")), LIMITS)[5, 5].tolist() == RED
    assert load_image(save(tmp_path / "palette.png", plain.convert("P")), LIMITS)[5, 5].tolist() == RED
    assert load_image(save(tmp_path / "bw.png", Image.new("1", (30, 30), 1)), LIMITS)[5, 5].tolist() == WHITE
    grey = Image.fromarray(np.full((30, 30), 0x80FF, np.uint16))
    assert load_image(save(tmp_path / "16.png", grey), LIMITS)[5, 5].tolist() == [128, 128, 128]
    wide = Image.fromarray(np.full((30, 30), 65535, np.int32))
    assert load_image(save(tmp_path / "32.tiff", wide), LIMITS)[5, 5].tolist() == WHITE
    real = Image.fromarray(np.full((30, 30), np.nan, np.float32))
    assert load_image(save(tmp_path / "float.tiff", real), LIMITS)[5, 5].tolist() == [0, 0, 0]


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    assert load_image(save(tmp_path / "a.png", clear), LIMITS)[5, 5].tolist() == WHITE
    half = Image.new("RGBA", (30, 30), (255, 0, 0, 128))
    assert load_image(save(tmp_path / "b.png", half), LIMITS)[5, 5].tolist() == [255, 127, 127]
    palette = Image.new("P", (30, 30), 3)
    assert load_image(save(tmp_path / "c.gif", palette, transparency=3), LIMITS)[5, 5].tolist() == WHITE
    grey = Image.new("LA", (30, 30), (0, 0))
    assert load_image(save(tmp_path / "d.png", grey), LIMITS)[5, 5].tolist() == WHITE


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (30, 30), (255, 0, 0)), Image.new("RGB", (30, 30), (0, 0, 255))
    path = save(tmp_path / "a.gif", first, save_all=True, append_images=[second], duration=100)
    assert load_image(path, LIMITS)[5, 5].tolist() == RED
    assert probe_media(path, "image", LIMITS).warnings == ["animated: only the first of 2 frames is used"]
    clip = sample_media(path, "video", MediaSpec(frames=4), want="array")
    assert clip.array is not None
    assert clip.record.count == 2
    assert clip.array[:, 5, 5].tolist() == [RED, [0, 0, 255]]
    assert clip.record.times_s == (0.0, 0.1)


def test_broken_pictures(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    for name in ("a.jpg", "a.png", "a.webp"):
        data = save(tmp_path / name, noise).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(data[: len(data) // 2])
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    assert failure(tmp_path / "cut_a.jpg") == "media_truncated"
    assert failure(tmp_path / "cut_a.png") == "media_truncated"
    assert failure(tmp_path / "page.jpg") == "media_unreadable"
    with pytest.raises(MediaError) as caught:
        load_image(tmp_path / "cut_a.webp", LIMITS)
    assert caught.value.reason in {"media_truncated", "media_unreadable"}
    with pytest.raises(MediaError) as caught:
        sample_media(tmp_path / "empty.jpg", "image", MediaSpec(), want="array")
    assert caught.value.reason == "media_empty"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (8193, 10), (2_000_000_000, 3), (5000, 10)])
def test_absurd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    assert failure(path) == "media_too_large"


def test_the_budget_of_pictures(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (1000, 500), (255, 0, 0)))
    small = sample_media(path, "image", MediaSpec(), want="array").record
    large = sample_media(path, "image", MediaSpec(image_max_pixels=1024 * 784), want="array").record
    assert (small.width, small.height) == (448, 224)
    # 1000 x 500 at 1/2.2321 is 448 x 224: the budget of 128 patches to the pixel.
    assert (large.width, large.height) == (1008, 504)
    assert (small.count, small.indices, small.times_s, small.source_fps) == (1, (0,), (0.0,), None)
    assert (small.source_width, small.source_height, small.sampler) == (1000, 500, "pillow/1")
    exact = save(tmp_path / "b.png", Image.new("RGB", (112, 56), (1, 2, 3)))
    pixels = sample_media(exact, "image", MediaSpec(), want="array").array
    assert pixels is not None and pixels.shape == (1, 56, 112, 3)
    assert pixels.flags.writeable and pixels[0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("turned", [False, True])
def test_heic(tmp_path: Path, turned: bool) -> None:
    path = write_heic(tmp_path / "a.heic", turned=turned)
    shown = picture(0, 128, 96)
    pixels = load_image(path, LIMITS)
    wanted = np.rot90(shown) if turned else shown
    assert pixels.shape == wanted.shape
    assert np.abs(pixels.astype(int) - wanted).mean() < 12  # colour at half the resolution
    assert sample_media(path, "image", MediaSpec(), want="array").record.sampler == "pillow/1"
    short = tmp_path / "b.heic"
    short.write_bytes(path.read_bytes()[:-400])
    assert failure(short) in {"media_truncated", "media_unreadable"}


@pytest.mark.parametrize("largest", [1.0, 255.0, 65535.0])
def test_real_numbers_fill_the_range_that_they_are_meant_for(tmp_path: Path, largest: float) -> None:
    """A float TIFF from 0 to 1 is no black picture."""
    ramp = np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a.tiff")
    pixels = load_image(tmp_path / "a.tiff", LIMITS)
    assert np.abs(pixels[..., 0].reshape(-1) - np.linspace(0, 255, 64)).max() <= 1
