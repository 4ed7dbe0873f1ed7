"""Decoded frames into RGB arrays: scaled, converted, upright."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.media.container import check_size
from videop2r_data.media.geometry import smart_resize
from videop2r_data.media.orientation import Orientation, frame_orientation
from videop2r_data.schemas.recipe import MediaSpec

if TYPE_CHECKING:
    import numpy as np
    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

_PLANES = (2, 0, 1)
"""Where R, G and B lie in a `gbrp` frame."""


class Scaler:
    """Turns decoded frames into one uint8 [T, H, W, 3] RGB array, whose size the first converted frame fixes.

    Bicubic, in the exact variants of swscale: the same pixels with and without vector instructions. Planar
    RGB is asked for: swscale then interpolates colour in full, in half the time that packed RGB takes.

    Args:
        spec: pixel budget, factor and limits.
        count: T, frames to come.
        path: for error messages.
    """

    def __init__(self, spec: MediaSpec, count: int, path: Path) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._spec, self._path, self._count = spec, path, count
        self._reformatter = VideoReformatter()
        self._how = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT)
        self._array: NDArray[np.uint8] | None = None
        self._upright = Orientation()
        self.source: tuple[int, int] = (0, 0)
        """Height and width of the source, upright."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """What was converted so far: uint8 [T, H, W, 3], RGB, upright."""
        assert self._array is not None, "no frame was converted"
        return self._array

    def put(self, slot: int, frame: VideoFrame) -> None:
        """Convert one frame into place `slot` of the array.

        Raises:
            MediaError: `media_too_large` for the first frame's size.
        """
        import numpy as np

        if self._array is None:
            self._array = self._allocate(frame)
        # A view in the stored orientation: what is written to it stands upright in the array.
        target = np.rot90(self._array[slot], -self._upright.turns)
        if self._upright.mirrored:
            target = target[:, ::-1]
        height, width = target.shape[:2]
        planar = self._reformatter.reformat(
            frame, width=width, height=height, format="gbrp", interpolation=self._how, threads=1
        )
        for channel, at in enumerate(_PLANES):
            plane = planar.planes[at]
            rows = np.frombuffer(memoryview(plane), dtype=np.uint8)[: height * plane.line_size]
            target[:, :, channel] = rows.reshape(height, plane.line_size)[:, :width]

    def _allocate(self, frame: VideoFrame) -> NDArray[np.uint8]:
        import numpy as np

        check_size(frame.width, frame.height, self._path, self._spec.limits)
        self._upright = frame_orientation(frame)
        tall, wide = frame.height, frame.width
        if self._upright.swaps_sides:
            tall, wide = wide, tall
        self.source = (tall, wide)
        height, width = smart_resize(
            tall,
            wide,
            factor=self._spec.factor,
            min_pixels=self._spec.min_pixels,
            max_pixels=self._spec.max_pixels,
        )
        return np.empty((self._count, height, width, 3), dtype=np.uint8)
