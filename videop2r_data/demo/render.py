"""Pixels of a scene, without any codec."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from videop2r_data.demo.font import LINE, word_mask
from videop2r_data.demo.scene import COLOURS, Gauge, Scene, SceneObject, Sign

Picture = NDArray[np.uint8]
PLATE = (232, 232, 226)
"""Colour behind the letters of a sign."""
NOISE = 10
"""Half-width of the pixel noise, in uint8 steps."""


def render_frames(
    scene: Scene, frames: Sequence[int] | None = None, *, times_s: Sequence[float] | None = None
) -> Picture:
    """Draw frames of a scene in their upright orientation.

    Args:
        scene: a video or image scene.
        frames: indices in `[0, scene.frames)`; None: all of them.
        times_s: seconds instead of indices; each shows the frame whose interval holds it (ends are clamped).

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        ValueError: a text scene, both or out-of-range arguments.
    """
    if scene.medium == "text":
        raise ValueError(f"{scene.label} is text: it has no pixels")
    if times_s is not None:
        if frames is not None:
            raise ValueError("give frames or times_s, not both")
        frames = [min(max(int(t * scene.fps + 1e-6), 0), scene.frames - 1) for t in times_s]
    wanted = range(scene.frames) if frames is None else frames
    bad = [f for f in wanted if not 0 <= f < scene.frames]
    if bad:
        raise ValueError(f"frame {bad[0]} of {scene.frames} (allowed: 0 to {scene.frames - 1})")
    return np.stack([_draw(scene, f) for f in wanted])


def _draw(scene: Scene, frame: int) -> Picture:
    picture = np.empty((scene.side, scene.side, 3), dtype=np.uint8)
    picture[:] = scene.background
    if scene.noise_seed is not None:
        noise = np.random.default_rng((scene.noise_seed, frame))
        spread = noise.integers(-NOISE, NOISE + 1, picture.shape)
        picture = np.clip(picture.astype(np.int64) + spread, 0, 255).astype(np.uint8)
    if scene.gauge is not None:
        _draw_gauge(picture, scene, scene.gauge, frame)
    if scene.sign is not None and scene.sign.appear <= frame < scene.sign.vanish:
        _draw_sign(picture, scene.sign)
    for found in scene.objects:
        if found.appear <= frame < found.vanish:
            _draw_object(picture, found, frame)
    return picture


def _draw_object(picture: Picture, found: SceneObject, frame: int) -> None:
    x1, y1, x2, y2 = found.box(frame)
    picture[y1:y2, x1:x2][_shape_mask(found.shape, found.half)] = COLOURS[found.colour]


@lru_cache(maxsize=256)
def _shape_mask(shape: str, half: int) -> NDArray[np.bool_]:
    """Ink of a shape: bool [2 * half + 1, 2 * half + 1]; it touches all four edges."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    radius = half + 0.3
    round_ = x**2 + y**2 <= radius**2
    if shape == "circle":
        mask = round_
    elif shape == "ring":
        mask = round_ & (x**2 + y**2 > (radius * 0.55) ** 2)
    elif shape == "square":
        mask = np.ones_like(round_)
    elif shape == "diamond":
        mask = np.abs(x) + np.abs(y) <= half
    elif shape == "cross":
        arm = max(half // 3, 0) + 0.5 if half > 2 else 0.5
        mask = (np.abs(x) <= arm) | (np.abs(y) <= arm)
    elif shape == "triangle":
        mask = np.abs(x) <= (y + half) / 2 + 0.3
        mask[-1] = True
    else:
        raise ValueError(f"no such shape: {shape!r}")
    found: NDArray[np.bool_] = mask
    found.setflags(write=False)
    return found


def sign_box(sign: Sign) -> tuple[int, int, int, int]:
    """Plate of a sign, `[x1, y1, x2, y2]` in pixels."""
    widest = max(len(word) for word in sign.words)
    pad = sign.scale
    return (
        sign.x - pad,
        sign.y - pad,
        sign.x + (6 * widest - 1) * sign.scale + pad,
        sign.y + (LINE * len(sign.words) - 2) * sign.scale + pad,
    )


def _draw_sign(picture: Picture, sign: Sign) -> None:
    x1, y1, x2, y2 = sign_box(sign)
    picture[max(y1, 0) : y2, max(x1, 0) : x2] = PLATE
    for line, word in enumerate(sign.words):
        mask = word_mask(word, sign.scale)
        top = sign.y + line * LINE * sign.scale
        picture[top : top + mask.shape[0], sign.x : sign.x + mask.shape[1]][mask] = COLOURS[sign.colour]


def fill_at(gauge: Gauge, frame: int, frames: int) -> float:
    """Percent of the bar that is filled in a frame."""
    share = frame / (frames - 1) if frames > 1 else 1.0
    return gauge.start + (gauge.end - gauge.start) * share


def _draw_gauge(picture: Picture, scene: Scene, gauge: Gauge, frame: int) -> None:
    x1, y1, x2, y2 = gauge.x, gauge.y, gauge.x + gauge.width, gauge.y + gauge.height
    picture[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = COLOURS["black"]
    picture[y1:y2, x1:x2] = PLATE
    filled = round(gauge.width * fill_at(gauge, frame, scene.frames) / 100)
    picture[y1:y2, x1 : x1 + filled] = COLOURS[gauge.colour]
