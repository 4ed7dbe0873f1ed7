"""What is in a scene, exactly: questions, pixels, traces and the judge are all derived from it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from videop2r_data.schemas import DataType, Model


def stream(*name: object) -> Random:
    """A generator that depends on its name only, the same on every machine and Python.

    >>> stream("scene", 7).random() == stream("scene", 7).random()
    True
    """
    return Random("/".join(map(str, name)))  # noqa: S311 (pictures of shapes, not secrets)


Medium = Literal["video", "image", "text"]
Theme = Literal["shapes", "sign", "gauge", "groups"]
Key = tuple[str, str]
"""What a fact is about: (kind, subject), e.g. `("motion", "red circle")` or `("count", "all")`."""
Value = str | int | float | bool | tuple[float, ...]

RGB = tuple[int, int, int]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of the image normalisation of Qwen2-VL and Qwen2.5-VL (that of CLIP), R, G, B in [0, 1]."""
ZERO: RGB = (123, 117, 104)
"""`round(255 * CLIP_MEAN)`: the uint8 colour nearest to zero after normalisation (residual below 0.004)."""
EXACT_MEAN = (ZERO[0] / 255, ZERO[1] / 255, ZERO[2] / 255)
"""Give this `image_mean` to a processor and the background becomes exactly 0."""

COLOURS: dict[str, RGB] = {
    "red": (222, 32, 32),
    "green": (24, 160, 56),
    "blue": (36, 72, 224),
    "yellow": (244, 222, 36),
    "purple": (150, 44, 186),
    "orange": (246, 132, 20),
    "white": (246, 246, 246),
    "black": (14, 14, 14),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
MOTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
}
PLACES = ("upper left", "upper right", "lower left", "lower right")


class SceneObject(Model):
    """One coloured shape on a straight path."""

    colour: str
    shape: str
    size: Literal["small", "large"]
    half: int
    """Pixels from the centre pixel to the edge pixel: the shape is `2 * half + 1` pixels wide and high."""
    x: float
    y: float
    """Centre in frame 0, pixels."""
    motion: str
    pace: Literal["still", "slow", "fast"]
    step: float
    """Pixels per frame along `motion`."""
    appear: int
    vanish: int
    """Shown in the frames `appear <= f < vanish`."""

    @property
    def name(self) -> str:
        """Unique in its scene."""
        return f"{self.colour} {self.shape}"

    def centre(self, frame: int) -> tuple[int, int]:
        """Centre pixel (x, y) in a frame."""
        dx, dy = MOTIONS[self.motion]
        return round(self.x + dx * self.step * frame), round(self.y + dy * self.step * frame)

    def box(self, frame: int = 0) -> tuple[int, int, int, int]:
        """`[x1, y1, x2, y2]` in pixels; x2 and y2 are the first column and row behind the shape."""
        x, y = self.centre(frame)
        return x - self.half, y - self.half, x + self.half + 1, y + self.half + 1


class Sign(Model):
    """Words in capitals on a plain plate, one word a line."""

    words: tuple[str, ...]
    colour: str
    x: int
    y: int
    """Upper left corner of the first letter, pixels."""
    scale: int
    """Pixels per font dot."""
    appear: int
    vanish: int

    @property
    def text(self) -> str:
        """The reference transcription."""
        return " ".join(self.words)


class Gauge(Model):
    """A horizontal bar, filled from the left."""

    colour: str
    x: int
    y: int
    width: int
    """Inner width, pixels; the frame is one pixel around it."""
    height: int
    start: int
    end: int
    """Fill in percent in the first and the last frame; linear between them."""


class Group(Model):
    """Equal things that a text puzzle speaks of."""

    count: int
    colour: str
    shape: str

    @property
    def name(self) -> str:
        """E.g. `red circle`."""
        return f"{self.colour} {self.shape}"


class Scene(Model):
    """One clip, picture or text puzzle."""

    index: int
    medium: Medium
    theme: Theme
    side: int
    """Width and height, pixels."""
    frames: int
    """1 for an image."""
    fps: int
    background: RGB
    noise_seed: int | None = None
    """Of the pixel noise; None: the background is one exact colour."""
    turn: int = 0
    """Quarter turns clockwise that a reader must apply to the stored file (display matrix, EXIF)."""
    numbered: bool = True
    objects: tuple[SceneObject, ...] = ()
    sign: Sign | None = None
    gauge: Gauge | None = None
    groups: tuple[Group, ...] = ()

    @property
    def label(self) -> str:
        """How questions call it: `clip 17`, or `the clip` in an unnumbered world."""
        noun = {"video": "clip", "image": "picture", "text": "puzzle"}[self.medium]
        return f"{noun} {self.index}" if self.numbered else f"the {noun}"

    @property
    def path(self) -> str:
        """Media file relative to the media root, POSIX; empty for text."""
        if self.medium == "text":
            return ""
        return f"demo/{self.medium}_{self.index:06d}{'.mp4' if self.medium == 'video' else '.png'}"

    @property
    def data_type(self) -> DataType:
        """The column of the same name."""
        return DataType(self.medium)

    @property
    def duration_s(self) -> float:
        """Seconds that the clip shows."""
        return self.frames / self.fps

    def named(self, name: str) -> SceneObject | None:
        """The object of that name."""
        return next((o for o in self.objects if o.name == name), None)

    def seconds(self, frame: int) -> float:
        """Time of a frame, seconds to three decimals."""
        return round(frame / self.fps, 3)


def truth(scene: Scene, key: Key) -> Value | None:
    """The exact value of a fact, or None where the scene has none (the fact has no bearing on it)."""
    kind, subject = key
    if kind in _TRUTHS:
        return _TRUTHS[kind](scene, subject)
    if kind in ("appear", "vanish"):
        return _when(scene, kind, subject)
    found = scene.named(subject)
    return None if found is None else _of_object(scene, kind, found)


def _listed(scene: Scene, name: str) -> bool | None:
    if scene.theme == "groups":
        return any(g.name == name for g in scene.groups)
    return scene.named(name) is not None if scene.theme == "shapes" else None


def _of_object(scene: Scene, kind: str, found: SceneObject) -> Value | None:
    if kind == "size":
        return found.size
    if kind in ("motion", "pace"):
        value: str = getattr(found, kind)
        return value if scene.medium == "video" else None
    if found.motion == "still" and kind == "box":
        return tuple(float(v) for v in found.box())
    return place_of(scene, found) if found.motion == "still" and kind == "place" else None


def place_of(scene: Scene, found: SceneObject) -> str | None:
    """The corner of the frame that a still object lies in; None near a middle line."""
    x, y = found.centre(0)
    middle, margin = scene.side / 2, scene.side / 14
    if abs(x - middle) < margin or abs(y - middle) < margin:
        return None
    return f"{'upper' if y < middle else 'lower'} {'left' if x < middle else 'right'}"


def _matches(subject: str, colour: str, shape: str) -> bool:
    return subject in ("all", colour, shape, f"{colour} {shape}")


def _count(scene: Scene, subject: str) -> int | None:
    if scene.theme == "groups":
        return sum(g.count for g in scene.groups if _matches(subject, g.colour, g.shape))
    if scene.theme != "shapes":
        return None
    if subject in ("moving", "still"):
        moving = sum(o.motion != "still" for o in scene.objects)
        if scene.medium != "video":
            return None
        return moving if subject == "moving" else len(scene.objects) - moving
    return sum(_matches(subject, o.colour, o.shape) for o in scene.objects)


def _level(scene: Scene, anchor: str) -> int | None:
    gauge = scene.gauge
    if gauge is None:
        return None
    if anchor == "start":
        return gauge.start
    if anchor == "end" or gauge.start == gauge.end:
        return gauge.end
    return None


def _when(scene: Scene, kind: str, subject: str) -> float | None:
    shown = scene.sign if subject == "sign" else scene.named(subject)
    if scene.medium != "video" or shown is None:
        return None
    return scene.seconds(shown.appear if kind == "appear" else shown.vanish)


def _beside(scene: Scene, subject: str) -> str | None:
    """`"a|b"`: on which side of b the object a lies (left, right); None where that is not clear."""
    first, _, second = subject.partition("|")
    a, b = scene.named(first), scene.named(second)
    if a is None or b is None or a.motion != "still" or b.motion != "still" or a.name == b.name:
        return None
    gap = a.centre(0)[0] - b.centre(0)[0]
    return None if abs(gap) < a.half + b.half + 1 else "left" if gap < 0 else "right"


def _text(scene: Scene, subject: str) -> str | None:
    return scene.sign.text if scene.sign else None


_TRUTHS: dict[str, Callable[[Scene, str], Value | None]] = {
    "exists": _listed,
    "count": _count,
    "text": _text,
    "level": _level,
    "beside": _beside,
}
