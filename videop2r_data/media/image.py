"""One picture: read, scaled and encoded, or sent as the bytes of its own file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from videop2r_data.media.geometry import Sampled, check_size, fitted, media_error
from videop2r_data.media.timing import Timing
from videop2r_data.schemas import MediaLimits, MediaSpec, RejectReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


# Reading with Pillow: upright, RGB, 8 bits, transparency laid on white.


SAMPLER = "pillow/1"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats that Pillow may open: none that runs a program (EPS) or names other files."""

_BROKEN_EXIF = (ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, OSError, struct.error)


@cache
def register_formats() -> None:
    """Make Pillow's own formats and HEIC known; loads what decodes them."""
    import pi_heif
    from PIL import Image

    Image.init()
    # One thread: the process has its own limits of memory, and other processes use the other cores.
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener(thumbnails=False)


def open_image(path: Path, limits: MediaLimits) -> Image:
    """Open a picture and check its header; the pixels are not decoded yet.

    Raises:
        MediaError: `media_unreadable`, `media_too_large`.
    """
    from PIL import Image, UnidentifiedImageError

    register_formats()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        with warnings.catch_warnings():
            # Pillow's own guard looks at the area only; ours (max_side) stands below.
            warnings.simplefilter("ignore")
            picture = Image.open(path, formats=known)
    except Image.DecompressionBombError as error:
        raise media_error(RejectReason.MEDIA_TOO_LARGE, str(error), path) from None
    except UnidentifiedImageError:
        raise media_error(
            RejectReason.MEDIA_UNREADABLE, f"no picture of a known format ({', '.join(known)})", path
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - the readers of some twenty formats raise what they like
        raise media_error(RejectReason.MEDIA_UNREADABLE, f"cannot be read: {error}", path) from None
    try:
        check_size(picture.width, picture.height, path, limits)
    except BaseException:
        picture.close()
        raise
    return picture


def load_image(path: Path, limits: MediaLimits) -> NDArray[np.uint8]:
    """Decode a picture: EXIF orientation applied, first frame of an animation, uint8 [H, W, 3] RGB.

    16-bit grey is scaled to 8 bits; transparency is laid on white.

    Raises:
        MediaError: `media_truncated`, `media_unreadable`, `media_too_large`.
    """
    import numpy as np
    from PIL import ImageOps

    with open_image(path, limits) as picture:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.load()
                # A broken EXIF block says nothing about the pixels. Pillow turns them first and then writes
                # the block anew, which fails with `struct.error` where a tag's value does not fit its type.
                with contextlib.suppress(*_BROKEN_EXIF):
                    ImageOps.exif_transpose(picture, in_place=True)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            text = str(error)
            cut = "truncated" in text or "unexpected end" in text or isinstance(error, EOFError)
            reason = RejectReason.MEDIA_TRUNCATED if cut else RejectReason.MEDIA_UNREADABLE
            raise media_error(reason, f"does not decode: {text}", path) from None
        return np.asarray(_rgb(picture))


def told_of(picture: Image) -> tuple[int, int]:
    """Frames of an animation, and degrees counter-clockwise that make the picture upright; 1 and 0 where the
    file says neither, or nothing that can be read: its pixels are none the worse."""
    frames, turned = 1, 0
    with contextlib.suppress(EOFError, *_BROKEN_EXIF):
        frames = int(getattr(picture, "n_frames", 1))
        turned = {3: 180, 6: 270, 8: 90}.get(picture.getexif().get(0x0112, 1), 0)
    return frames, turned


def _rgb(picture: Image) -> Image:
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in {"I", "F"}:
        values = np.nan_to_num(np.asarray(picture).astype(np.float64), posinf=0.0, neginf=0.0)
        # 32-bit grey holds values from 0 to 1 (real numbers), to 255 or to 65,535 in practice.
        largest = float(values.max(initial=0.0))
        scale = 1.0 if largest <= 255 else 255.0 / 65535.0
        if picture.mode == "F" and largest <= 1.0:
            scale = 255.0
        return Image.fromarray((values * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        base = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(base, layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def sample_image(path: Path, spec: MediaSpec) -> Sampled:
    """The picture within its pixel budget, as a clip of one frame.

    Raises:
        MediaError: see `load_image`.
    """
    import numpy as np
    from PIL import Image

    source = load_image(path, spec.limits)
    tall, wide = source.shape[:2]
    height, width = fitted(tall, wide, spec, spec.image_max_pixels)
    if (height, width) != (tall, wide):
        scaled = Image.fromarray(source).resize((width, height), Image.Resampling.BICUBIC)
        source = np.asarray(scaled)
    return Sampled(
        array=source[None].copy(),
        indices=(0,),
        timing=Timing((0.0,)),
        total=1,
        source=(tall, wide),
        sampler=SAMPLER,
    )


# Encoding: the same bytes for the same pixels.

Want = Literal["encoded", "array"]
"""What is made of frames: pictures, or pixels as they are."""


def encode_frames(array: NDArray[np.uint8], spec: MediaSpec) -> tuple[bytes, ...]:
    """Encode each frame on its own.

    JPEG keeps full colour resolution (4:4:4): at 28-pixel patches a halved one smears small coloured things.
    No metadata is written, so the bytes depend on the pixels, the settings and the library version only.

    Args:
        array: uint8 [T, H, W, 3], RGB.
        spec: `encoding` and `quality` count.

    Returns:
        T encoded pictures.
    """
    from PIL import Image

    pictures = []
    for frame in array:
        buffer = io.BytesIO()
        picture = Image.fromarray(frame)
        if spec.encoding == "jpeg":
            picture.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
        else:
            # Level 1 costs a tenth of the default's time for a few per cent more bytes.
            picture.save(buffer, "PNG", compress_level=1)
        pictures.append(buffer.getvalue())
    return tuple(pictures)


# Pictures that are sent as the bytes of their own file: files that hold pixels and nothing else.


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
    if sampled.source != (height, width) or path.stat().st_size > most:
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
        if picture.info.keys() - known:
            return None
        return data, "image/jpeg" if picture.format == "JPEG" else "image/png"


def _pixels_only(picture: Image, data: bytes) -> bool:
    """Whether the file holds no more segments than a picture needs, and nothing behind its end."""
    if picture.format == "JPEG":
        segments = [(name, len(content)) for name, content in getattr(picture, "applist", [])]
        return segments in ([], [("APP0", _JFIF_BYTES)]) and data.endswith(b"\xff\xd9")
    picture.load()  # a PNG may hold texts behind its pixels: they are known only when it was read to its end
    return data[24:26] == _EIGHT_BITS_RGB and data.endswith(b"IEND\xaeB`\x82")
