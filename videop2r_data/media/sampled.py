"""What every sampler gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from videop2r_data.schemas.calls import TimesKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sampled:
    """What a sampler took out of a clip.

    Attributes:
        array: uint8 [T, H, W, 3], RGB, upright.
        indices: T, display order.
        times_s: T, seconds from the first shown frame.
        total: frames that the clip shows.
        fps: average frames per second, or None.
        duration_s: seconds from the first frame's start to the last one's end, or None.
        width: of the source, upright, pixels.
        height: of the source, upright, pixels.
        sampler: name and version of the way that was taken.
        times: where `times_s` come from; None for pictures.
        missing: share of the clip that is not there or does not decode.
    """

    array: NDArray[np.uint8]
    indices: tuple[int, ...]
    times_s: tuple[float, ...]
    total: int
    fps: float | None
    duration_s: float | None
    width: int
    height: int
    sampler: str
    times: TimesKind | None = None
    missing: float = 0.0
