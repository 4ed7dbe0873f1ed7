"""From a row's relative path to a file that surely lies under its media root."""

from __future__ import annotations

import stat
from pathlib import Path

from videop2r_data.errors import MediaError
from videop2r_data.schemas import MediaLimits, RejectReason, safe_relative_path


def resolve_media(root: Path, relative: str) -> Path:
    """The file that a row means; never outside `root`, symbolic links followed first.

    The file need not exist: `probe_media` and `sample_media` say so when they open it.

    Args:
        root: media root of the row's source.
        relative: `Sample.path`: POSIX, relative.

    Returns:
        An absolute path with no symbolic link left in it.

    Raises:
        MediaError: reason `unsafe_path` when the path, or what its links lead to, is outside the root.
    """
    try:
        inside = safe_relative_path(relative)
        base = root.resolve()
        target = (base / inside).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise MediaError(str(error), reason=RejectReason.UNSAFE_PATH, where=repr(relative)) from None
    if not target.is_relative_to(base) or target == base:
        raise MediaError(
            f"leads out of the media root {base} (to {target})",
            reason=RejectReason.UNSAFE_PATH,
            where=repr(relative),
        )
    return target


def file_size(path: Path, limits: MediaLimits) -> int:
    """Size in bytes of a regular, non-empty file within the limits.

    Raises:
        MediaError: `media_missing`, `media_unreadable` (not a regular file, no permission), `media_empty`,
            `media_too_large`.
    """
    where = str(path)
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError("no such file", reason=RejectReason.MEDIA_MISSING, where=where) from None
    except (OSError, ValueError) as error:
        raise MediaError(
            f"cannot be opened: {error}", reason=RejectReason.MEDIA_UNREADABLE, where=where
        ) from None
    if not stat.S_ISREG(info.st_mode):
        # A named pipe or a device would block or never end.
        raise MediaError("not a regular file", reason=RejectReason.MEDIA_UNREADABLE, where=where)
    if info.st_size == 0:
        raise MediaError("the file has 0 bytes", reason=RejectReason.MEDIA_EMPTY, where=where)
    if info.st_size > limits.max_bytes:
        raise MediaError(
            f"{info.st_size} bytes, limits.max_bytes allows {limits.max_bytes}",
            reason=RejectReason.MEDIA_TOO_LARGE,
            where=where,
        )
    return info.st_size
