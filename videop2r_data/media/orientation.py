"""From a clip's display matrix to the turn that makes it upright: what ffmpeg and ffplay do with it.

The matrix can turn and mirror. The angle alone says nothing of a mirror: read as a turn, a picture mirrored
left to right would come out upside down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: mirrored left to right first, then turned.

    Attributes:
        turns: counter-clockwise quarter turns, 0 to 3.
        mirrored: columns are reversed before.
    """

    turns: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether the upright picture is as wide as the stored one is high."""
        return self.turns % 2 == 1


def orientation_of(matrix: tuple[int, ...] | None) -> Orientation:
    """The nearest quarter turn, and the mirror, of a display matrix.

    Args:
        matrix: its 9 numbers `a b u c d v x y w`; None: there is none.

    >>> orientation_of((0, 65536, 0, -65536, 0, 0, 0, 0, 2**30))
    Orientation(turns=3, mirrored=False)
    >>> orientation_of((-65536, 0, 0, 0, 65536, 0, 0, 0, 2**30))
    Orientation(turns=0, mirrored=True)
    """
    if matrix is None:
        return Orientation()
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    across, down = math.hypot(a, c), math.hypot(b, d)
    if across == 0 or down == 0:
        return Orientation()  # Not a picture plane: such a matrix says nothing.
    clockwise = round(math.degrees(math.atan2(b / down, a / across)) / 90) % 4
    if clockwise == 1:
        return Orientation(1, True) if c > 0 else Orientation(3)
    if clockwise == 3:
        return Orientation(3, True) if c < 0 else Orientation(1)
    left_right, up_down = clockwise == 2 and a < 0, d < 0
    # Upside down is mirrored left to right and then turned by half.
    return Orientation(2 if up_down else 0, left_right != up_down)


def frame_orientation(frame: VideoFrame) -> Orientation:
    """How a decoded frame becomes upright: PyAV does not turn it."""
    from av.sidedata.sidedata import Type

    for at in range(len(frame.side_data)):
        data = cast("SideData", frame.side_data[at])  # type: ignore[literal-required]
        if data.type == Type.DISPLAYMATRIX:
            numbers = np.frombuffer(memoryview(data), dtype=np.int32)
            return orientation_of(tuple(numbers[:9].tolist()) if len(numbers) >= 9 else None)
    return Orientation()
