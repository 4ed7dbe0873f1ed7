"""Clips of three kinds, and what people make of clips: other files that show the same.

*film*: camera moves over textures, things that move, cuts. *table*: one empty table and one camera for all
clips, two to five small things on it that slide: all clips look alike. *wall*: a fixed camera before a
texture of its own where one thing moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
SIZE = (320, 240)
RATE = 12
KINDS = ("film", "table", "wall")


def frames_of(kind: str, seed: int, seconds: int | None = None) -> Iterator[Picture]:
    """The pictures of a generated clip, `RATE` a second; 6 to 24 seconds unless it is said how many."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    length = (seconds or int(rng.integers(6, 25))) * RATE
    yield from {"film": _film, "table": _table, "wall": _wall}[kind](rng, length)


def _texture(rng: np.random.Generator, side: int) -> NDArray[np.float32]:
    """A picture with detail at all scales, as photographs have."""
    out = np.zeros((side, side, 3), np.float32)
    for octave in range(2, 8):
        cells = 2**octave
        coarse = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        at = np.arange(side) * cells // side
        out += coarse[at][:, at] * (1.6**-octave) * 90
    return out + rng.uniform(60, 190, 3).astype(np.float32)


def _film(rng: np.random.Generator, length: int) -> Iterator[Picture]:
    width, height = SIZE
    done = 0
    while done < length:
        shot = min(length - done, int(rng.integers(2, 7)) * RATE)
        scene = _texture(rng, 640)
        start, speed = rng.uniform(0, 300, 2), rng.uniform(-3, 3, 2)
        thing, path, colour = rng.uniform(20, 60), rng.uniform(0, 1, 4), rng.uniform(0, 255, 3)
        for i in range(shot):
            x, y = np.clip(start + speed * i, 0, (640 - width, 640 - height)).astype(int)
            picture = scene[y : y + height, x : x + width].copy()
            _put(picture, (path[:2] + (path[2:] - path[:2]) * i / shot) * SIZE, thing, colour)
            yield _shown(picture)
        done += shot


def _wall(rng: np.random.Generator, length: int) -> Iterator[Picture]:
    width, height = SIZE
    scene = _texture(rng, 320)[:height, :width]
    points = rng.uniform(0, 1, (4, 2)) * SIZE
    size, colour = rng.uniform(20, 50), rng.uniform(0, 255, 3)
    for i in range(length):
        at = i / length * 3
        picture = scene.copy()
        _put(
            picture,
            points[int(at)] + (points[min(int(at) + 1, 3)] - points[int(at)]) * (at % 1),
            size,
            colour,
        )
        yield _shown(picture)


def _table(rng: np.random.Generator, length: int) -> Iterator[Picture]:
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    scene = np.repeat((120 + y * 0.25 - np.abs(x - width / 2) * 0.1)[..., None], 3, 2).astype(np.float32)
    things = [
        (rng.uniform(0.1, 0.9, 2) * SIZE, rng.normal(0, 1.2, 2), rng.uniform(10, 18), rng.uniform(30, 230, 3))
        for _ in range(int(rng.integers(2, 6)))
    ]
    for i in range(length):
        picture = scene.copy()
        for place, speed, size, colour in things:
            _put(picture, place + speed * min(i, 5 * RATE), size, colour)
        yield _shown(picture)


def _put(
    picture: NDArray[np.float32], at: NDArray[np.float64], size: float, colour: NDArray[np.float64]
) -> None:
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    inside = (x - at[0]) ** 2 + (y - at[1]) ** 2 < size**2
    picture[inside] = colour


def _shown(picture: NDArray[np.float32]) -> Picture:
    return np.clip(picture, 0, 255).astype(np.uint8)


def write(
    path: Path,
    pictures: Iterator[Picture],
    *,
    rate: Fraction | int = RATE,
    codec: str = "libx264",
    quality: int = 23,
) -> Path:
    """Encode pictures of one size; `quality` is x264's constant rate factor, or a bit rate in kbit/s."""
    options = {"crf": str(quality), "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream: Any = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = (side // 2 * 2 for side in picture.shape[:2])
                stream.pix_fmt = "yuv420p"
                if codec != "libx264":
                    stream.bit_rate = quality * 1000
            even = picture[: stream.height, : stream.width]
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24"))
            )
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[list[Picture], Fraction]:
    """All pictures of a clip, and its rate."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        pictures: list[Any] = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return pictures, Fraction(stream.average_rate or RATE)


class Change(NamedTuple):
    """What is done to a clip.

    Attributes:
        promised: docs say that it is found; else it is measured to say what is not.
    """

    name: str
    make: Callable[[list[Picture], Fraction, Path, np.random.Generator], object]
    promised: bool = True


def _scaled(pictures: list[Picture], share: float) -> Iterator[Picture]:
    for picture in pictures:
        height, width = (max(16, int(side * share)) // 2 * 2 for side in picture.shape[:2])
        frame: Any = av.VideoFrame.from_ndarray(picture, format="rgb24")
        yield frame.reformat(width, height).to_ndarray(format="rgb24")


def _part(pictures: list[Picture], share: float, rng: np.random.Generator) -> list[Picture]:
    length = max(2, int(len(pictures) * share))
    start = int(rng.integers(0, len(pictures) - length + 1))
    return pictures[start : start + length]


def _fewer(pictures: list[Picture], rate: Fraction, path: Path) -> None:
    write(path, iter(pictures[::2]), rate=rate / 2, quality=28)


def _mpeg4(pictures: list[Picture], rate: Fraction, path: Path) -> None:
    # the codec takes no rates such as 22.29
    write(path, iter(pictures), rate=round(rate), codec="mpeg4", quality=200)


def _bordered(pictures: list[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        high = picture.shape[0] // 6
        yield np.pad(picture, ((high, high), (0, 0), (0, 0)))


def _cropped(pictures: list[Picture], share: float) -> Iterator[Picture]:
    for picture in pictures:
        y, x = (int(side * share) for side in picture.shape[:2])
        yield picture[y:-y, x:-x]


def _marked(pictures: list[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        shown = picture.copy()
        shown[-picture.shape[0] // 8 :, -picture.shape[1] // 6 :] = 255
        yield shown


def _brighter(pictures: list[Picture]) -> Iterator[Picture]:
    for picture in pictures:
        yield _shown(picture.astype(np.float32) * 1.1 + 8)


CHANGES = (
    Change("re-encoded, crf 35", lambda p, r, to, g: write(to, iter(p), rate=r, quality=35)),
    Change("half the size", lambda p, r, to, g: write(to, _scaled(p, 0.5), rate=r, quality=28)),
    Change("1.5 times the size", lambda p, r, to, g: write(to, _scaled(p, 1.5), rate=r, quality=28)),
    Change("MPEG-4, 200 kbit/s", lambda p, r, to, g: _mpeg4(p, r, to)),
    Change("half the frame rate", lambda p, r, to, g: _fewer(p, r, to)),
    Change("trimmed to 80 %", lambda p, r, to, g: write(to, iter(_part(p, 0.8, g)), rate=r, quality=28)),
    Change("trimmed to 50 %", lambda p, r, to, g: write(to, iter(_part(p, 0.5, g)), rate=r, quality=28)),
    Change("trimmed to 30 %", lambda p, r, to, g: write(to, iter(_part(p, 0.3, g)), rate=r, quality=28)),
    Change("trimmed to 50 %, half the size",
           lambda p, r, to, g: write(to, _scaled(_part(p, 0.5, g), 0.5), rate=r, quality=30)),
    Change("brighter by a tenth", lambda p, r, to, g: write(to, _brighter(p), rate=r)),
    Change("a logo in a corner", lambda p, r, to, g: write(to, _marked(p), rate=r), promised=False),
    Change("cropped by 5 % a side", lambda p, r, to, g: write(to, _cropped(p, 0.05), rate=r), promised=False),
    Change("black bars", lambda p, r, to, g: write(to, _bordered(p), rate=r), promised=False),
    Change("mirrored", lambda p, r, to, g: write(to, (x[:, ::-1] for x in p), rate=r), promised=False),
)  # fmt: skip
