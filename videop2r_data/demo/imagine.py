"""Make up a scene from its number: every choice comes from one random stream per scene."""

from __future__ import annotations

from random import Random

from videop2r_data.demo.render import ADVANCE, LINE
from videop2r_data.demo.scene import (
    COLOURS,
    MOTIONS,
    SHAPES,
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
from videop2r_data.schemas import DemoSpec

# fmt: off
WORDS = (
    "RED", "SUN", "FOX", "KEY", "MAP", "ICE", "OWL", "BUS", "TAXI", "EXIT", "STOP", "PARK", "HOTEL",
    "RIVER", "BRIDGE", "MARKET", "GARDEN", "SILVER", "NORTH", "HARBOR", "WINTER", "OCEAN", "COFFEE",
    "STATION", "LIBRARY", "CASTLE", "MUSEUM", "TICKET", "ORANGE", "PLANET", "WINDOW", "CAMERA", "BAKERY",
    "SCHOOL",
)
# fmt: on
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
    for frame in range(scene.frames):
        (ax, ay), (bx, by) = a.centre(frame), b.centre(frame)
        if abs(ax - bx) <= reach and abs(ay - by) <= reach:
            return True
    return False


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
