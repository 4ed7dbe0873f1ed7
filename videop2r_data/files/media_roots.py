"""Where the media of a data set lie, and from a row's relative path to a file that surely lies there."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.files.names import WORKSPACE_NAME, work_folder
from videop2r_data.files.opening import locate
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


_FLAG = "name the folder that the rows' `path` is relative to with --media-root (data.media_root)"


@dataclass(frozen=True)
class MediaRoots:
    """Media roots by source name; one root for all when the user named it.

    Attributes:
        where: the data set, for messages.
        one: the user's `media_root`.
        by_source: source name (the part of a `sample_id` before its `/`) -> root.
    """

    where: str
    one: Path | None = None
    by_source: Mapping[str, Path] = field(default_factory=dict)

    def known(self, sample_id: str) -> Path | None:
        """The root of a row's source, if it is known."""
        return self.one or self.by_source.get(sample_id.partition("/")[0])

    def root(self, sample_id: str) -> Path:
        """The root of a row's source.

        Raises:
            ConfigError: none is known.
        """
        found = self.known(sample_id)
        if found is None:
            known = f"known for: {', '.join(sorted(self.by_source))}" if self.by_source else "none is noted"
            raise ConfigError(
                f"no media root for {sample_id!r} ({known})", where=f"{self.where}, field path", hint=_FLAG
            )
        return found


def find_media_roots(source: str, *, base: Path, media_root: str = "") -> MediaRoots:
    """The media roots of a data set: the user's, else those noted in the work folder beside it.

    Args:
        source: the data set: a folder, or anything else, of which nothing is noted.
        base: folder that relative paths start from.
        media_root: as the user named it; empty: not at all.

    Raises:
        ConfigError: `media_root` is no folder.
    """
    if media_root:
        one = locate(media_root, base).absolute()
        if not one.is_dir():
            raise ConfigError("no such folder", where=f"media_root {one}", hint=_FLAG)
        return MediaRoots(source, one)
    folder = locate(source, base)
    if not folder.is_dir():
        return MediaRoots(source)
    work = work_folder(folder.absolute())
    try:
        note = orjson.loads((work / WORKSPACE_NAME).read_bytes())
        start = Path(note["base"])
        found = {str(spec["name"]): noted_root(spec, work, start) for spec in note["recipe"]["sources"]}
    except (OSError, ValueError, KeyError, TypeError):
        return MediaRoots(source)  # built elsewhere, or the note is not of this version: the user may say it
    return MediaRoots(source, by_source={name: root for name, root in found.items() if root is not None})


def noted_root(source: Mapping[str, Any], work: Path, base: Path) -> Path | None:
    """Where the media of a source of a recipe lie, as far as the recipe and the work folder tell.

    Args:
        source: a source of the recipe, as in its file.
        work: work folder of the build.
        base: folder that the recipe's paths start from.

    Returns:
        None: only the pool itself can tell.
    """
    name = str(source["name"])
    if source["kind"] == "demo":
        return work / "demo" / name / "media"
    embedded = work / "embedded" / name
    if embedded.is_dir():  # media that the rows of the pool held, written by the build
        return embedded.absolute()
    noted = str(source.get("media_root") or "")
    return locate(noted, base).absolute() if noted else None
