"""Where the page finds its clips: linked where they lie, copied beside it, or not here."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from videop2r_data.cards.gallery_rows import Entry
from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.files.media_roots import resolve_media
from videop2r_data.schemas import digest_bytes, safe_relative_path

MEDIA = "media"
"""Folder of copies beside the page, and of the addresses that the server answers."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class Clip:
    """One media file of the page.

    Attributes:
        source: the recipe's source that has it.
        path: as the rows have it; relative, POSIX.
        data_type: `video` or `image`, as its first row says.
        file: where it lies; None: not here, or outside of its root.
    """

    source: str
    path: str
    data_type: str
    file: Path | None

    @property
    def address(self) -> str:
        """Below the root of its source, percent-encoded; empty for a path that may not be followed."""
        return quote(safe_relative_path(self.path)) if self.file is not None else ""


def find_clips(entries: Iterable[Entry], roots: Mapping[str, Path]) -> list[Clip]:
    """Every media file once, in the order of the rows.

    Args:
        entries: rows of the page.
        roots: source -> media root; the empty name stands for every other source.
    """
    found: dict[tuple[str, str], Clip] = {}
    for entry in entries:
        key = (entry.media_source, entry.path)
        if entry.path and key not in found:
            root = roots.get(entry.media_source, roots.get(""))
            found[key] = Clip(*key, entry.data_type, _file(root, entry.path) if root else None)
    return list(found.values())


def linked(clips: Iterable[Clip], roots: Mapping[str, Path], page: Path) -> dict[str, str]:
    """Source -> address of its media root, relative to the folder of the page, with a slash at its end."""
    found: dict[str, str] = {}
    for clip in clips:
        root = roots.get(clip.source, roots.get(""))
        if root is not None and clip.source not in found:
            way = os.path.relpath(os.path.abspath(root), os.path.abspath(page))  # noqa: PTH100 - keeps links
            found[clip.source] = quote(Path(way).as_posix()) + "/"
    return found


def beside(clips: Iterable[Clip]) -> dict[str, str]:
    """Source -> address of its copies, or of what the server answers for it."""
    return {clip.source: f"{MEDIA}/{folder_of(clip.source)}/" for clip in clips}


def folder_of(source: str) -> str:
    """A folder name for a source: its own name, if that is one.

    >>> folder_of("demo"), folder_of("..")
    ('demo', '_5ec1f7e7')
    """
    return source if _NAME.fullmatch(source) else f"_{digest_bytes(source.encode())[:8]}"


def copy_clips(clips: Iterable[Clip], page: Path) -> int:
    """Copy every clip that is here to `media/<source>/<path>` beside the page; returns the bytes.

    Raises:
        ConfigError: the disk is full or cannot be written.
    """
    total = 0
    for clip in clips:
        if clip.file is None:
            continue
        target = page / MEDIA / folder_of(clip.source) / safe_relative_path(clip.path)
        try:
            there = clip.file.stat()
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_file() or not _same(target.stat(), there):
                part = target.with_name(f".{target.name}.part")
                shutil.copy2(clip.file, part)
                part.replace(target)
        except OSError as error:
            raise ConfigError(
                f"cannot copy the clips: {error}", where=str(target), hint="free some space, or link them"
            ) from None
        total += there.st_size
    return total


def _same(here: os.stat_result, there: os.stat_result) -> bool:
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def _file(root: Path, path: str) -> Path | None:
    try:
        found = resolve_media(root, path)
        return found if found.is_file() else None
    except (MediaError, OSError):
        return None
