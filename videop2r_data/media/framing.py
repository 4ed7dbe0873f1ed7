"""What the container's own bytes say of encryption. Read-only, bounded, no decoder involved."""

from __future__ import annotations

from pathlib import Path

_EBML = b"\x1a\x45\xdf\xa3"
_CLUSTER = b"\x1f\x43\xb6\x75"
_CONTENT_ENCODINGS = b"\x6d\x80"
_CONTENT_ENCRYPTION = b"\x50\x35"
_HEAD = 1 << 20
_TS_PACKET = 188


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
