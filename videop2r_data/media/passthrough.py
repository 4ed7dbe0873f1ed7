"""Pictures that go out as the bytes of their own file: those that say their pixels and nothing else."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

    from videop2r_data.media.sampled import Sampled

Mime = Literal["image/jpeg", "image/png"]
_PLAIN: dict[str, frozenset[str]] = {
    "JPEG": frozenset(
        {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "progressive", "progression"}
    ),
    "PNG": frozenset({"dpi", "interlace"}),
}
"""What the header of a plain file may say. Anything else (EXIF, a colour profile, gamma, transparency, texts)
could change what a reader shows, or tell more than the picture."""
_HEADER_BYTES = 2**16
_JFIF_BYTES = 14
"""A JFIF segment without a thumbnail."""
_EIGHT_BITS_RGB = b"\x08\x02"
"""Bit depth and colour type in a PNG's first chunk: Pillow cuts 16 bits to 8, another reader may round."""


def own_bytes(path: Path, sampled: Sampled, file_sha256: str) -> tuple[bytes, Mime] | None:
    """The file's bytes, if every reader makes the sampled pixels out of them and learns nothing else.

    That is a JPEG or PNG of three 8-bit colour channels that was neither scaled nor turned, whose header
    holds no more than resolution and coding, and which is no longer than its pixels.

    Args:
        path: the picture.
        sampled: what was made of it; one frame.
        file_sha256: of the bytes that `sampled` was made of.

    Returns:
        The bytes and their media type; None: encode the pixels.
    """
    height, width = sampled.array.shape[1:3]
    most = 3 * height * width + _HEADER_BYTES
    if (sampled.width, sampled.height) != (width, height) or path.stat().st_size > most:
        return None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != file_sha256:
        return None  # changed meanwhile: the pixels are those of the bytes before
    return _plain(data, (width, height))


def _plain(data: bytes, size: tuple[int, int]) -> tuple[bytes, Mime] | None:
    from PIL import Image

    if not data.startswith((b"\xff\xd8\xff", b"\x89PNG")):
        return None
    with Image.open(io.BytesIO(data), formats=list(_PLAIN)) as picture:
        known = _PLAIN.get(picture.format or "")
        if known is None or picture.mode != "RGB" or picture.size != size:
            return None
        if getattr(picture, "n_frames", 1) != 1 or not _pixels_only(picture, data):
            return None
        if any(name not in known for name in picture.info):
            return None
        return data, "image/jpeg" if picture.format == "JPEG" else "image/png"


def _pixels_only(picture: Image, data: bytes) -> bool:
    """Whether the file holds no more segments than a picture needs, and nothing behind its end."""
    if picture.format == "JPEG":
        segments = [(name, len(content)) for name, content in getattr(picture, "applist", [])]
        return segments in ([], [("APP0", _JFIF_BYTES)]) and data.endswith(b"\xff\xd9")
    picture.load()  # a PNG may hold texts behind its pixels: they are known only when it was read to its end
    return data[24:26] == _EIGHT_BITS_RGB and data.endswith(b"IEND\xaeB`\x82")
