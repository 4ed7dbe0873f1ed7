"""Small pictures of the sampled frames, one sheet for a clip: for clips that stay away or do not play."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from videop2r_data.cards.gallery_media import Clip
from videop2r_data.errors import MediaError
from videop2r_data.media.pool import DecodePool
from videop2r_data.schemas import MediaSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

QUALITY = 72
"""Of the JPEG: a look, not a measurement."""
COLUMNS = 8
MAX_SIDE = 65_000
"""Pixels that a JPEG may have on a side."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The frames of one clip in one picture, row by row.

    Attributes:
        uri: `data:` address of the JPEG.
        columns: frames beside each other.
        width: of one frame, pixels.
        height: of one frame, pixels.
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
        """What the page reads."""
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
    workers: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[int, Sheet], dict[int, str]]:
    """Sample every clip that is here just as its build did, in guarded processes.

    Args:
        clips: where they lie.
        spec: how the build sampled them.
        side: the longer side of one small frame, pixels.
        workers: decoder processes, 0: one per core.
        tell: hears (done, all).

    Returns:
        Sheets and failures by the index of their clip.
    """
    sheets: dict[int, Sheet] = {}
    failed: dict[int, str] = {}
    wanted = [i for i, clip in enumerate(clips) if clip.file is not None]
    waiting = iter(wanted)
    async with DecodePool(spec, want="array", workers=workers) as pool:

        async def work() -> None:
            for number in waiting:
                clip = clips[number]
                assert clip.file is not None
                try:
                    frames = await pool.sample(clip.file, "image" if clip.data_type == "image" else "video")
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
    """Put frames on a sheet; the same bytes for the same pixels.

    Args:
        frames: uint8 [T, H, W, 3], RGB.
        indices: T.
        times_s: T.
        side: the longer side of one small frame, pixels; frames are never enlarged.
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
    """How a build sampled its frames; the defaults where there is no lock."""
    return MediaSpec.model_validate((recipe or {}).get("media") or {})
