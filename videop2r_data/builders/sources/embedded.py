"""Media that a pool holds inside of its rows, as files: each under the digest of its bytes, written once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from videop2r_data.errors import SourceError

_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (8, b"AVI ", ".avi"),
    (0, b"BM", ".bmp"),
    (0, b"II*\x00", ".tif"),
    (0, b"MM\x00*", ".tif"),
    (4, b"ftypavif", ".avif"),
    (4, b"ftypheic", ".heic"),
    (4, b"ftypqt", ".mov"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"FLV", ".flv"),
)


class EmbeddedMedia:
    """A folder of media files named by their content.

    The names depend on nothing but the bytes: a second pass, another share of the pool or another host give
    the same rows, and a file can be checked against its own name.

    Args:
        root: the folder; it is made with the first file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, data: bytes) -> str:
        """Path of these bytes below the folder; they lie there afterwards.

        Raises:
            SourceError: the file is not there and cannot be written.
        """
        relative = embedded_path(data)
        target = self.root / relative
        try:
            if target.is_file() and target.stat().st_size == len(data):
                return relative
            target.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may write the same file: each a part of its own, and the last one stays.
            handle, part = tempfile.mkstemp(dir=target.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(part).chmod(0o644)
                Path(part).replace(target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise SourceError(
                f"the media of a row cannot be written: {error}",
                where=str(target),
                hint="free some space, or choose another work folder with --work",
            ) from None
        return relative


def embedded_path(data: bytes) -> str:
    """Where bytes lie below a folder of embedded media; their kind is told by their first bytes.

    >>> embedded_path(b"GIF89a")[-4:]
    '.gif'
    """
    digest = hashlib.sha256(data).hexdigest()
    suffix = next((end for at, sign, end in _MAGIC if data[at : at + len(sign)] == sign), ".bin")
    return f"{digest[:2]}/{digest}{suffix}"
