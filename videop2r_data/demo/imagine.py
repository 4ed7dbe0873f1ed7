"""Imagine a scene of the demo world, and render its frames."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from videop2r_data.demo.scene import (
    COLOURS,
    MOTIONS,
    SHAPES,
    WORDS,
    ZERO,
    Gauge,
    Group,
    Medium,
    Scene,
    SceneObject,
    Sign,
    Theme,
    stream,
)
from videop2r_data.errors import ConfigError, MissingExtraError
from videop2r_data.schemas import DemoSpec

if TYPE_CHECKING:
    from av.video.stream import VideoStream


# --- a bitmap font of 5 x 7 dots, A-Z and 0-9, drawn for this package ---

WIDTH, HEIGHT, ADVANCE, LINE = 5, 7, 6, 9
"""Dots: of a letter, from letter to letter, from line to line."""

# Seven rows from top to bottom; each number holds five dots, the left one is the bit of value 16.
_ROWS: dict[str, tuple[int, ...]] = {
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "D": (28, 18, 17, 17, 17, 18, 28),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 14),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "J": (7, 2, 2, 2, 2, 18, 12),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "M": (17, 27, 21, 21, 17, 17, 17),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "P": (30, 17, 17, 30, 16, 16, 16),
    "Q": (14, 17, 17, 17, 21, 18, 13),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "S": (15, 16, 16, 14, 1, 1, 30),
    "T": (31, 4, 4, 4, 4, 4, 4),
    "U": (17, 17, 17, 17, 17, 17, 14),
    "V": (17, 17, 17, 17, 17, 10, 4),
    "W": (17, 17, 17, 21, 21, 27, 17),
    "X": (17, 17, 10, 4, 10, 17, 17),
    "Y": (17, 17, 10, 4, 4, 4, 4),
    "Z": (31, 1, 2, 4, 8, 16, 31),
    "0": (14, 19, 21, 21, 21, 25, 14),
    "1": (4, 12, 4, 4, 4, 4, 31),
    "2": (14, 17, 1, 6, 8, 16, 31),
    "3": (30, 1, 1, 14, 1, 1, 30),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
}
LETTERS = frozenset(_ROWS)


def word_mask(word: str, scale: int) -> NDArray[np.bool_]:
    """Ink of a word: bool [7 * scale, (6 * len(word) - 1) * scale].

    Raises:
        KeyError: a character that the font does not have.
    """
    dots = np.zeros((HEIGHT, ADVANCE * len(word) - 1), dtype=bool)
    for at, letter in enumerate(word):
        rows = np.array(_ROWS[letter])[:, None]
        dots[:, at * ADVANCE : at * ADVANCE + WIDTH] = rows & (16 >> np.arange(WIDTH)) != 0
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)


# --- pixels of a scene ---

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
        # 1e-6: a time such as 3/8 s, stored as a rounded decimal, belongs to the frame that begins there.
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
        # Seeded by frame: a frame has the same noise whether the others are drawn or not.
        noise = np.random.default_rng((scene.noise_seed, frame))
        spread = noise.integers(-NOISE, NOISE + 1, picture.shape)
        picture = np.clip(picture.astype(np.int64) + spread, 0, 255).astype(np.uint8)
    if scene.gauge is not None:
        _draw_gauge(picture, scene, scene.gauge, frame)
    if scene.sign is not None and scene.sign.appear <= frame < scene.sign.vanish:
        _draw_sign(picture, scene.sign)
    for found in scene.objects:
        if found.appear <= frame < found.vanish:
            x1, y1, x2, y2 = found.box(frame)
            picture[y1:y2, x1:x2][_shape_mask(found.shape, found.half)] = COLOURS[found.colour]
    return picture


@lru_cache(maxsize=256)
def _shape_mask(shape: str, half: int) -> NDArray[np.bool_]:
    """Ink of a shape: bool [2 * half + 1, 2 * half + 1]; it touches all four edges."""
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    # 0.3 more than the half-width: the edge pixels on the axes count as inside.
    radius = half + 0.3
    round_ = x**2 + y**2 <= radius**2
    arm = half // 3 + 0.5 if half > 2 else 0.5
    found: NDArray[np.bool_] = {
        "circle": round_,
        "ring": round_ & (x**2 + y**2 > (radius * 0.55) ** 2),
        "square": np.ones_like(round_),
        "diamond": np.abs(x) + np.abs(y) <= half,
        "cross": (np.abs(x) <= arm) | (np.abs(y) <= arm),
        "triangle": (np.abs(x) <= (y + half) / 2 + 0.3) | (y == half),
    }[shape]
    # The cache hands out one array to all callers.
    found.setflags(write=False)
    return found


def _draw_sign(picture: Picture, sign: Sign) -> None:
    widest = max(len(word) for word in sign.words)
    right = sign.x + (ADVANCE * widest - 1) * sign.scale + sign.scale
    below = sign.y + (LINE * len(sign.words) - 2) * sign.scale + sign.scale
    picture[max(sign.y - sign.scale, 0) : below, max(sign.x - sign.scale, 0) : right] = PLATE
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


# --- a scene as a file: mp4 (display matrix) or PNG (EXIF orientation) ---

_EXIF = {1: 6, 2: 3, 3: 8}
"""Quarter turns clockwise that a reader must apply -> EXIF orientation."""
_ORIENTATION = 0x0112
_X264 = {
    "qp": "16",
    "preset": "veryfast",
    "flags": "+bitexact",
    "bf": "2",
    "x264-params": "mbtree=0:b-adapt=0:rc-lookahead=0:scenecut=0:weightp=0",
}
"""Constant quantiser, fixed B-frames and no lookahead: with x264's macroblock tree the same frames came out
as other bytes in a few clips of a hundred, depending on what the process had encoded before."""


def media_bytes(scene: Scene) -> bytes:
    """The whole file of a video or image scene.

    Raises:
        ConfigError: a video with an odd side (4:2:0 needs an even one).
        MissingExtraError: PyAV has neither an H.264 nor an MPEG-4 encoder.
    """
    # Turned against the clock: the reader turns it back.
    pixels = np.rot90(render_frames(scene), scene.turn, axes=(1, 2))
    return _mp4(pixels, scene) if scene.medium == "video" else _png(pixels[0], scene.turn)


def _png(pixels: Picture, turn: int) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    exif[_ORIENTATION] = _EXIF.get(turn, 1)
    out = io.BytesIO()
    image.save(out, format="PNG", exif=exif if turn else b"")
    return out.getvalue()


def _mp4(pixels: Picture, scene: Scene) -> bytes:
    import av

    if scene.side % 2:
        raise ConfigError(f"demo.side is {scene.side}: a clip needs an even side", where="demo.side")
    out, codec = io.BytesIO(), "png" if scene.exact else _encoder()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = cast("VideoStream", container.add_stream(codec, rate=scene.fps))
        stream.width = stream.height = scene.side
        stream.pix_fmt = "rgb24" if scene.exact else "yuv420p"
        # What x264 writes may depend on the number of threads, and that on the machine.
        stream.codec_context.thread_count = 1
        stream.codec_context.options = _X264 if codec == "libx264" else {"flags": "+bitexact"}
        stream.codec_context.gop_size = max(2 * scene.fps, 2)
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return _with_matrix(out.getvalue(), scene.turn, scene.side)


def _encoder() -> str:
    import av

    for name in ("libx264", "libopenh264", "mpeg4"):
        try:
            av.Codec(name, "w")
        except ValueError:
            continue
        return name
    raise MissingExtraError("a video encoder (PyAV with H.264 or MPEG-4)", "dev")


def _with_matrix(data: bytes, turn: int, side: int) -> bytes:
    """Set the display matrix in the track header, as phones do [ISO/IEC 14496-12, tkhd, version 0]."""
    if not turn:
        return data
    at = data.index(b"tkhd") + 4
    # Version 1 of the header has 64-bit times, and its matrix lies elsewhere.
    if data[at] != 0:
        raise AssertionError("the muxer wrote a track header of another version")
    a, b, c, d, x, y = {
        1: (0, 1, -1, 0, side, 0),
        2: (-1, 0, 0, -1, side, side),
        3: (0, -1, 1, 0, 0, side),
    }[turn]
    # 16.16 fixed point for all but the last column, which is 2.30.
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30)
    return data[: at + 40] + matrix + data[at + 76 :]


# Make up a scene from its number: every choice comes from one random stream per scene.


# Legible on the light plate of a sign; yellow and white are not.
_DARK = ("red", "green", "blue", "purple", "black")
_WEIGHTS: dict[Medium, int] = {"video": 5, "image": 4, "text": 1}
_THEMES: dict[Medium, dict[Theme, int]] = {
    "video": {"shapes": 8, "sign": 1, "gauge": 1},
    "image": {"shapes": 4, "sign": 3, "gauge": 2},
    "text": {"groups": 1},
}


def imagine(spec: DemoSpec, index: int, retry: int = 0) -> Scene:
    """Scene number `index`; it depends on nothing but the settings of a scene and the seed.

    Args:
        spec: the world; `rows` and `defect_rate` do not count here.
        index: number of the scene, from 0.
        retry: another draw for the same number (when the wanted tasks do not fit the first).
    """
    # The order of the draws is part of the format: one more draw here changes all that is drawn after it.
    # So grey, noise and turn are drawn even where the settings leave them unused.
    rng = stream(spec.seed, "scene", index, retry)
    media = sorted(set(spec.mediums))
    medium = rng.choices(media, [_WEIGHTS[m] for m in media])[0]
    themes = list(_THEMES[medium])
    theme = rng.choices(themes, [_THEMES[medium][t] for t in themes])[0]
    grey = tuple(rng.randint(96, 140) for _ in range(3))
    varied = spec.background == "varied"
    noise = rng.randrange(2**32)
    turn = rng.choice((0, 0, 0, 1, 2, 3))
    base = Scene(
        index=index,
        medium=medium,
        theme=theme,
        side=spec.side,
        frames=spec.frames if medium == "video" else 1,
        fps=spec.fps,
        background=(grey[0], grey[1], grey[2]) if varied else ZERO,
        noise_seed=noise if spec.noise else None,
        turn=turn if spec.rotated and medium != "text" else 0,
        numbered=spec.numbered,
        exact=spec.exact,
    )
    if theme == "shapes":
        return base.model_copy(update={"objects": _objects(base, rng.randint(1, spec.max_objects), rng)})
    if theme == "sign":
        return base.model_copy(update={"sign": _sign(base, rng)})
    if theme == "gauge":
        return base.model_copy(update={"gauge": _gauge(base, rng)})
    return base.model_copy(update={"groups": _groups(rng)})


def _objects(scene: Scene, wanted: int, rng: Random) -> tuple[SceneObject, ...]:
    """Up to `wanted` shapes of different names that never touch, nor leave the frame."""
    placed: list[SceneObject] = []
    # Rejection sampling. Late tries draw things that stand still: these fit where no path is free any more.
    for tries in range(40 * wanted):
        candidate = _object(scene, rng, calm=tries > 20 * wanted)
        if candidate.name not in {o.name for o in placed} and not any(
            _touch(scene, candidate, other) for other in placed
        ):
            placed.append(candidate)
        if len(placed) == wanted:
            break
    return tuple(placed)


def _object(scene: Scene, rng: Random, *, calm: bool) -> SceneObject:
    side, frames = scene.side, scene.frames
    size = rng.choice(("small", "large"))
    # At sides under 32 pixels both sizes would round to the same half-width.
    half = max(2, round(side * (0.07 if size == "small" else 0.12)) + (size == "large" and side < 32))
    moves = scene.medium == "video" and not calm and rng.random() < 0.75
    motion = rng.choice([m for m in MOTIONS if m != "still"]) if moves else "still"
    pace = rng.choice(("slow", "fast")) if moves else "still"
    appear, vanish = _interval(scene, rng)
    dx, dy = MOTIONS[motion]
    low, high = half + 1, side - half - 2
    # The pace is a share of the side, not of pixels: a question about speed looks alike at every size.
    travel = min(side * {"still": 0.0, "slow": 0.25, "fast": 0.6}[pace], float(high - low))
    x, y = _start(rng, dx * travel, low, high), _start(rng, dy * travel, low, high)
    return SceneObject(
        colour=rng.choice(list(COLOURS)),
        shape=rng.choice(SHAPES),
        size=size,
        half=half,
        x=x,
        y=y,
        motion=motion,
        pace=pace,
        step=round(travel / max(frames - 1, 1), 4),
        appear=appear,
        vanish=vanish,
    )


def _start(rng: Random, travel: float, low: int, high: int) -> int:
    """A first coordinate from which `travel` pixels stay within [low, high]."""
    first, last = low + max(0.0, -travel), high - max(0.0, travel)
    return round(first + (last - first) * rng.random())


def _interval(scene: Scene, rng: Random) -> tuple[int, int]:
    """Frames in which a thing is shown: half of the time all, else at least a third of the clip."""
    frames = scene.frames
    least = max(1, -(-frames // 3))
    if scene.medium != "video" or rng.random() < 0.5:
        return 0, frames
    appear = rng.randint(0, frames - least)
    return appear, rng.randint(appear + least, frames)


def _touch(scene: Scene, a: SceneObject, b: SceneObject) -> bool:
    # Boxes in place of outlines, and every frame, shown or not: stricter than needed, and simple to verify.
    reach = a.half + b.half + 2
    places = ((a.centre(frame), b.centre(frame)) for frame in range(scene.frames))
    return any(abs(ax - bx) <= reach and abs(ay - by) <= reach for (ax, ay), (bx, by) in places)


def _sign(scene: Scene, rng: Random) -> Sign:
    side = scene.side
    scale = max(1, side // 64)
    # Letters and lines that fit beside the margin of one dot on either side.
    longest = max(1, (side - 2 * scale + scale) // (ADVANCE * scale))
    lines = max(1, min(4, (side - 2 * scale + 2 * scale) // (LINE * scale)))
    words = [w for w in WORDS if len(w) <= longest]
    chosen: list[str] = []
    for _ in range(rng.randint(1, lines)):
        if words and rng.random() < 0.7:
            chosen.append(rng.choice([w for w in words if w not in chosen] or words))
        else:
            digits = rng.randint(min(2, longest), min(4, longest))
            chosen.append(str(rng.randint(10 ** (digits - 1), 10**digits - 1)))
    width = (ADVANCE * max(map(len, chosen)) - 1) * scale
    height = (LINE * len(chosen) - 2) * scale
    appear, vanish = _interval(scene, rng)
    return Sign(
        words=tuple(chosen),
        colour=rng.choice(_DARK),
        x=rng.randint(scale, max(scale, side - width - scale)),
        y=rng.randint(scale, max(scale, side - height - scale)),
        scale=scale,
        appear=appear,
        vanish=vanish,
    )


def _gauge(scene: Scene, rng: Random) -> Gauge:
    side = scene.side
    width = round(side * rng.uniform(0.6, 0.85))
    height = max(3, round(side * rng.uniform(0.08, 0.16)))
    start = rng.randint(8, 96)
    end = start
    # At least 20 percent, so that the trend can be seen.
    while scene.medium == "video" and abs(end - start) < 20:
        end = rng.randint(8, 96)
    return Gauge(
        colour=rng.choice(("red", "green", "blue", "purple", "orange")),
        x=rng.randint(2, max(2, side - width - 2)),
        y=rng.randint(2, side - height - 2),
        width=width,
        height=height,
        start=start,
        end=end,
    )


def _groups(rng: Random) -> tuple[Group, ...]:
    names: dict[tuple[str, str], int] = {}
    wanted = rng.randint(2, 4)
    while len(names) < wanted:
        names[rng.choice(list(COLOURS)), rng.choice(SHAPES)] = rng.randint(2, 12)
    return tuple(Group(count=n, colour=c, shape=s) for (c, s), n in names.items())
