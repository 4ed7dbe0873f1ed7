"""Clips of the gallery: linked, copied or missing, and the sheets of frames that stand in for them."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import ValidationError

from videop2r_data.cards.gallery.rows import Entry
from videop2r_data.errors import ConfigError, MediaError
from videop2r_data.files import MEDIA_FOLDER, resolve_media
from videop2r_data.media import DecodePool, MediaKind
from videop2r_data.schemas import WHOLE, Focus, MediaSpec, digest_bytes, safe_relative_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# Addresses of clips: linked at their place, or copied beside the page.

"""Folder of copies beside the page, and first part of the server's addresses for clips."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


@dataclass(frozen=True, slots=True)
class Clip:
    """One media file of the page, or a part of one that questions are about.

    Attributes:
        source: the recipe's source.
        path: as the rows have it: relative, POSIX.
        data_type: `video` or `image`, of its first row.
        file: the file; None: missing, or outside of its media root.
        focus: the part.
    """

    source: str
    path: str
    data_type: str
    file: Path | None
    focus: Focus = WHOLE

    @property
    def place(self) -> tuple[str, str, Focus]:
        """As `Entry.place`."""
        return self.source, self.path, self.focus

    @property
    def address(self) -> str:
        """Path below the media root, percent-encoded; empty if there is no file."""
        return quote(safe_relative_path(self.path)) if self.file is not None else ""


def find_clips(entries: Iterable[Entry], roots: Mapping[str, Path]) -> list[Clip]:
    """Every part of every file once, in the order of the rows; `roots[""]` is every other source's root."""
    found: dict[tuple[str, str, Focus], Clip] = {}
    for entry in entries:
        if entry.path and entry.place not in found:
            root = roots.get(entry.media_source, roots.get(""))
            file = _file(root, entry.path) if root else None
            found[entry.place] = Clip(entry.media_source, entry.path, entry.data_type, file, entry.focus)
    return list(found.values())


def linked(clips: Iterable[Clip], roots: Mapping[str, Path], page: Path) -> dict[str, str]:
    """Source -> address of its media root, relative to the page's folder, with a slash at the end."""
    found: dict[str, str] = {}
    for clip in clips:
        root = roots.get(clip.source, roots.get(""))
        if root is not None and clip.source not in found:
            way = os.path.relpath(os.path.abspath(root), os.path.abspath(page))  # noqa: PTH100 - keeps links
            found[clip.source] = quote(Path(way).as_posix()) + "/"
    return found


def beside(clips: Iterable[Clip]) -> dict[str, str]:
    """Source -> address of its clips beside the page, for copies and for the server."""
    return {clip.source: f"{MEDIA_FOLDER}/{folder_of(clip.source)}/" for clip in clips}


def folder_of(source: str) -> str:
    """A folder name for a source: its own name if that is safe, else a digest of it.

    >>> folder_of("demo"), folder_of("..")
    ('demo', '_5ec1f7e7')
    """
    return source if _NAME.fullmatch(source) else f"_{digest_bytes(source.encode())[:8]}"


def copy_clips(clips: Iterable[Clip], page: Path) -> int:
    """Copy every clip that has a file to `media/<source>/<path>` beside the page; returns their bytes.

    Raises:
        ConfigError: the disk is full or cannot be written.
    """
    total = 0
    for clip in {(clip.source, clip.path): clip for clip in clips}.values():
        if clip.file is None:
            continue
        target = page / MEDIA_FOLDER / folder_of(clip.source) / safe_relative_path(clip.path)
        try:
            there = clip.file.stat()
            target.parent.mkdir(parents=True, exist_ok=True)
            here = target.stat() if target.is_file() else None
            if here is None or (here.st_size, here.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
                part = target.with_name(f".{target.name}.part")
                shutil.copy2(clip.file, part)
                part.replace(target)
        except OSError as error:
            raise ConfigError(
                f"cannot copy the clips: {error}", where=str(target), hint="free some space, or link them"
            ) from None
        total += there.st_size
    return total


def _file(root: Path, path: str) -> Path | None:
    try:
        found = resolve_media(root, path)
        return found if found.is_file() else None
    except (MediaError, OSError):
        return None


# A sheet per clip with its sampled frames: shown where a clip is missing or the browser cannot play it.

QUALITY = 72
"""JPEG quality."""
COLUMNS = 8
MAX_SIDE = 65_000
"""Pixels on one side of a JPEG at most: the format ends at 65,535."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The frames of one clip in one picture, row by row.

    Attributes:
        uri: `data:` address of the JPEG.
        columns: frames per row.
        width, height: of one frame, pixels.
        indices: T, display order.
        times_s: T, seconds from the first shown frame.
    """

    uri: str
    columns: int
    width: int
    height: int
    indices: tuple[int, ...]
    times_s: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """The sheet as the page's script reads it."""
        return {
            "uri": self.uri,
            "columns": self.columns,
            "width": self.width,
            "height": self.height,
            "frames": list(self.indices),
            "times": [round(t, 3) for t in self.times_s],
        }


async def draw_sheets(
    clips: Sequence[Clip],
    spec: MediaSpec,
    *,
    side: int = 160,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[int, Sheet], dict[int, str]]:
    """Sample every clip that has a file as its build did, in decoder processes.

    Args:
        clips: the page's clips.
        spec: how the build sampled them.
        side: the longer side of one small frame, pixels.
        tell: called with progress: (done, all).

    Returns:
        (index of a clip -> its sheet, index of a clip -> what went wrong).
    """
    sheets: dict[int, Sheet] = {}
    failed: dict[int, str] = {}
    wanted = [i for i, clip in enumerate(clips) if clip.file is not None]
    waiting = iter(wanted)  # shared by all workers: each takes the next clip
    async with DecodePool(spec, want="array") as pool:

        async def work() -> None:
            """Prepare one clip after the other until none waits."""
            for number in waiting:
                clip = clips[number]
                assert clip.file is not None
                try:
                    kind: MediaKind = "image" if clip.data_type == "image" else "video"
                    frames = await pool.sample(clip.file, kind, clip.focus)
                except MediaError as error:
                    failed[number] = error.message
                else:
                    assert frames.array is not None
                    record = frames.record
                    sheets[number] = draw_sheet(frames.array, record.indices, record.times_s, side=side)
                tell(len(sheets) + len(failed), len(wanted))

        await asyncio.gather(*(work() for _ in range(pool.workers)))
    return sheets, failed


def draw_sheet(
    frames: NDArray[np.uint8], indices: Sequence[int], times_s: Sequence[float], *, side: int
) -> Sheet:
    """Put frames, uint8 [T, H, W, 3], on a sheet; the same bytes for the same pixels.

    `side` is the longer side of one small frame in pixels; frames are never enlarged.
    """
    from PIL import Image

    count, tall, wide = frames.shape[:3]
    scale = min(1.0, side / max(tall, wide))
    width, height = max(1, round(wide * scale)), max(1, round(tall * scale))
    columns = max(1, min(count, COLUMNS, MAX_SIDE // width))
    count = min(count, columns * (MAX_SIDE // height))
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for i in range(count):
        small = Image.fromarray(frames[i]).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(small, ((i % columns) * width, (i // columns) * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Sheet(uri, columns, width, height, tuple(indices[:count]), tuple(times_s[:count]))


def spec_of(recipe: Mapping[str, Any] | None) -> MediaSpec:
    """How a build sampled its frames; the defaults without a recipe that can be read."""
    try:
        return MediaSpec.model_validate((recipe or {}).get("media") or {})
    except ValidationError:
        return MediaSpec()
