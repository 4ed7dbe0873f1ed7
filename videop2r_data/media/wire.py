"""What parent and decoder process say to each other: a JSON header and raw blobs, each with its length.

Nothing is pickled: a hostile file may own the decoder process, and what comes from it is parsed as data and
held against the settings before it is used.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import ValidationError

from videop2r_data.media.encode import mime_of
from videop2r_data.schemas.calls import Frames, MediaRecord
from videop2r_data.schemas.recipe import MediaSpec

if TYPE_CHECKING:
    from videop2r_data.media.sampling import Want

PREFIX = struct.Struct(">I")
MAX_HEADER = 8 * 2**20


class WireError(Exception):
    """The decoder process said something that no honest one says."""


def pack(header: dict[str, Any], blobs: tuple[bytes | memoryview, ...] = ()) -> list[bytes | memoryview]:
    """The pieces of one message, to be written one after the other."""
    text = orjson.dumps({**header, "blobs": [len(b) for b in blobs]})
    return [PREFIX.pack(len(text)), text, *blobs]


def header_length(prefix: bytes) -> int:
    """Bytes of the header that follows.

    Raises:
        WireError: longer than any header.
    """
    length = int(PREFIX.unpack(prefix)[0])
    if length > MAX_HEADER:
        raise WireError(f"a header of {length} bytes")
    return length


def parse_header(data: bytes, *, max_blobs: int, max_bytes: int) -> tuple[dict[str, Any], list[int]]:
    """The header and the lengths of its blobs.

    Raises:
        WireError: not a header, or blobs past the limits.
    """
    try:
        header = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise WireError("a header that is no JSON") from None
    lengths = header.pop("blobs", None) if isinstance(header, dict) else None
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        raise WireError("a header without blob lengths")
    if len(lengths) > max_blobs or sum(lengths) > max_bytes:
        raise WireError(f"{len(lengths)} blobs of {sum(lengths)} bytes")
    return header, lengths


def budget(spec: MediaSpec) -> int:
    """Bytes that one reply may hold at most: frames at their pixel budget, and room for poor compression."""
    pixels = max(spec.max_pixels, spec.image_max_pixels or 0)
    return 4 * spec.frames * pixels + 2**20


def _mime(picture: bytes) -> Literal["image/jpeg", "image/png"] | None:
    """Media type by the first bytes."""
    if picture.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    return "image/png" if picture.startswith(b"\x89PNG\r\n\x1a\n") else None


def frames_of(header: dict[str, Any], blobs: list[bytes], spec: MediaSpec, want: Want) -> Frames:
    """The `Frames` of a reply, checked against its own record.

    Raises:
        WireError: record, sizes and settings do not fit each other.
    """
    import numpy as np

    try:
        record = MediaRecord.model_validate(header.get("record"), strict=False)
    except ValidationError as error:
        raise WireError(f"a bad record: {error.error_count()} errors") from None
    shape = (record.count, record.height, record.width, 3)
    if record.count > spec.frames or len(record.indices) != record.count != len(record.times_s):
        raise WireError(f"a record of {record.count} frames")
    if want == "encoded":
        mime = _mime(blobs[0]) if blobs else None
        if len(blobs) != record.count or mime is None or any(_mime(blob) != mime for blob in blobs):
            raise WireError(f"{len(blobs)} pictures for {record.count} frames")
        if mime != mime_of(spec) and not (spec.passthrough and record.passthrough):
            raise WireError(f"{mime} where {mime_of(spec)} was asked for")
        return Frames(record=record, encoded=tuple(blobs), mime=mime)
    if len(blobs) != 1 or len(blobs[0]) != math.prod(shape):
        raise WireError("pixels that do not fill their shape")
    # Writable, as an array of `sample_media` is.
    array = np.frombuffer(bytearray(blobs[0]), dtype=np.uint8).reshape(shape)
    return Frames(record=record, array=array, mime=mime_of(spec))
