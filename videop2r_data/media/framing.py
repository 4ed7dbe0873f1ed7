"""What the container's own bytes say: cut short, or encrypted. Read-only, bounded, no decoder involved.

A demuxer answers "invalid data" for a file whose download broke off and for a file that never was a video.
The outermost layer of ISO-BMFF (mp4, mov), RIFF (avi) and EBML (mkv, webm) carries sizes, and they tell the
two apart.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_MAX_BOXES = 100_000
_ISO_TYPES = {
    b"ftyp",
    b"moov",
    b"mdat",
    b"free",
    b"skip",
    b"wide",
    b"moof",
    b"styp",
    b"pnot",
    b"sidx",
    b"uuid",
}
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_CLUSTER = b"\x1f\x43\xb6\x75"
_CONTENT_ENCODINGS = b"\x6d\x80"
_CONTENT_ENCRYPTION = b"\x50\x35"
_HEAD = 1 << 20
_TS_PACKET = 188


def is_cut(path: Path) -> bool:
    """Whether the container's own sizes reach beyond the end of the file, or its index is not there.

    False also means "this container does not say".
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in _ISO_TYPES:
            return _iso_is_cut(file, size)
        if head[:4] == b"RIFF" and len(head) >= 8:
            return bool(struct.unpack("<I", head[4:8])[0] + 8 > size)
        if head[:4] == _EBML:
            return _ebml_is_cut(file, size)
    return False


def _iso_is_cut(file: BinaryIO, size: int) -> bool:
    at, seen = 0, set()
    for _ in range(_MAX_BOXES):
        if at + 8 > size:
            break
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            wide = file.read(8)
            if len(wide) < 8:
                return True
            length = struct.unpack(">Q", wide)[0]
        elif length == 0:
            length = size - at
        if length < 8:
            break
        seen.add(kind)
        if at + length > size:
            return True
        at += length
    return b"moov" not in seen and b"mdat" in seen


def _ebml_is_cut(file: BinaryIO, size: int) -> bool:
    file.seek(0)
    head = file.read(4096)
    at = head.find(_SEGMENT)
    if at < 0 or at + 12 > len(head):
        return False
    first = head[at + 4]
    if first == 0:
        return False
    width = 9 - first.bit_length()
    value = int.from_bytes(head[at + 4 : at + 4 + width], "big") & ((1 << (7 * width)) - 1)
    unknown = (1 << (7 * width)) - 1
    return value != unknown and at + 4 + width + value > size


def is_encrypted(path: Path) -> bool:
    """Whether a Matroska header announces encrypted tracks, or most MPEG-TS packets are scrambled.

    Common encryption in mp4 is seen in the packets (`packets.read_index`), not here.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] == _EBML:
        tracks = head[: head.find(_CLUSTER)] if _CLUSTER in head else head
        at = tracks.find(_CONTENT_ENCODINGS)
        return at >= 0 and _CONTENT_ENCRYPTION in tracks[at : at + 64]
    if head[:1] == b"\x47" and head[_TS_PACKET : _TS_PACKET + 1] == b"\x47":
        flags = [head[i + 3] for i in range(0, len(head) - 4, _TS_PACKET) if head[i] == 0x47]
        scrambled = sum(1 for flag in flags if flag & 0x80)
        return 2 * scrambled > len(flags)
    return False
